"""A large file of texts does not fill memory."""

import tracemalloc

import pytest
from reliability.text_memory import of_size, stages, write_rows

FEW, MANY = 3_000, 15_000
# Bytes that a row more may add to the peak of each stage. What is left is in memory for a moment: the
# order of the rows, 4 bytes each, and of a scored row its log-probabilities and what is chosen of them.
MOST = {"read": 6, "counts": 2, "batches": 6, "scores": 12}


def peaks(path, cache):
    """Return the peak of each stage, in bytes, of what Python and NumPy take."""
    options = {"tokenizer": "bytes", "max_length": 32, "cache": str(cache)}
    found = {}
    tracemalloc.start()
    try:
        for stage, _ in stages(path, options):
            found[stage] = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    return found


def test_the_peak_of_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("resnorm_jax.data.text_cache.SMALL", 0)
    monkeypatch.setattr("resnorm_jax.data.encoded.PADDED", 0)
    monkeypatch.setattr("resnorm_jax.data.row_arrays.SMALL", 0)
    monkeypatch.setattr("resnorm_jax.data.row_arrays.BLOCK", 1000)
    monkeypatch.setattr("resnorm_jax.data.fingerprint.ROWS", 500)
    few, many = (write_rows(tmp_path / f"{n}.csv", n, 1) for n in (FEW, MANY))
    peaks(many, tmp_path / "first")  # libraries, buffers
    one, two = peaks(few, tmp_path / "few"), peaks(many, tmp_path / "many")
    grown = {stage: (two[stage] - one[stage]) / (MANY - FEW) for stage in one}
    assert all(grown[stage] < most for stage, most in MOST.items()), grown


@pytest.mark.slow
def test_memory_stays_flat_while_a_large_file_of_texts_is_read_batched_and_scored():
    small, large = of_size(100), of_size(400)
    assert large["rows"] > 3.9 * small["rows"]
    for stage, most in large["anonymous_mb"].items():
        assert most - small["anonymous_mb"][stage] < 30, (small, large)
    # Pages of files, which the system takes back when it needs them, are let go after 64 MiB.
    assert large["resident_mb"]["scores"] - small["resident_mb"]["scores"] < 100, (small, large)
