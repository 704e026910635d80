"""A large file of texts does not fill memory."""

import pytest
from reliability.text_memory import of_size


@pytest.mark.slow
def test_memory_stays_flat_while_a_file_of_texts_is_read_and_trained_on():
    small, large = of_size(100), of_size(400)
    assert large["rows"] > 3.9 * small["rows"]
    for when in ("read_mb", "batches_mb"):
        grown = large[when] - small[when]
        assert grown < 100, (small, large)  # a row's numbers, and 64 MiB of the disk's pages
    assert large["batches_mb"] - large["before_mb"] < 200
