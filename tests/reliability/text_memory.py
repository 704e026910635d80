"""How much memory a large file of texts takes, from reading it to the scores of held-back rows.

    cd tests && python -m reliability.text_memory --megabytes 400 2000

Each size is a file made by repetition, read in a fresh process. That tells two peaks of each stage:
``anonymous``, memory that is the process's own, looked at every 2 ms; and ``resident``, which also
holds pages of files that the system takes back when it needs them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SENTENCE = (
    "the film was neither clever nor dull and the plot of row {} went nowhere in particular . "
)
STEPS = 2000  # batches at most


def write_rows(path: Path, rows: int, repeats: int) -> Path:
    """Write a CSV file of rows of 90 characters, so many times each."""
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for row in range(rows):
            file.write(f"{(SENTENCE * repeats).format(*[row] * repeats)},{'ab'[row % 2]}\n")
    return path


def make_file(path: Path, megabytes: int) -> None:
    """Write a CSV file of a size, of rows of about a thousand characters."""
    write_rows(path, megabytes * 10**6 // (11 * (len(SENTENCE) + 4) + 3), 11)


class Blind:
    """In place of the devices: it knows a row's label for as much as its number is even."""

    def replicate(self, variables: Any) -> Any:
        return variables

    def share(self, size: int) -> None:
        return None

    def predict(self, variables: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
        right = np.where(batch["rows"] % 4 < 3, batch["y"], 1 - batch["y"])
        p = np.where(np.arange(2) == right[:, None], 0.9, 0.1)
        return np.log(p, dtype=np.float32, casting="same_kind")


def stages(path: Path, options: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Do on the host what a run does; yield each stage's name, and what it found, when it is done."""
    from resnorm_jax.data import TrainBatches, length_buckets, load_dataset, majority_accuracy
    from resnorm_jax.data.fingerprint import fingerprint
    from resnorm_jax.data.preprocess import describe, split_validation
    from resnorm_jax.reporting.calibration import calibration
    from resnorm_jax.reporting.metrics import score
    from resnorm_jax.training.evaluation import predict
    from resnorm_jax.training.losses import balanced_weights

    begin, cpu = time.perf_counter(), time.process_time()
    data = load_dataset("text", {"train": str(path), **options})
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    data = split_validation(data, 0.1, 0)
    splits = (data.train, data.valid, data.test)
    tokens = sum(int(part.lengths.sum(dtype=np.int64)) for part in splits)
    yield (
        "read",
        {
            "rows": sum(map(len, splits)),
            "tokens": tokens,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 1),
            "tokens_a_second": round(tokens / seconds),
            "lines": data.lines,
        },
    )
    weights = balanced_weights(data.train.y, len(data.classes))
    yield "counts", {"digest": fingerprint(data)["splits"], "stride": describe(data)["stride"]}
    buckets = length_buckets(data.train.lengths, 4, 64, 1e5)
    batches = TrainBatches(data.train, 64, buckets, 0)
    last = batches.steps_per_epoch - 1
    for step in (*range(min(last, STEPS)), last, last + 1):  # and the first of the next epoch
        batches.batch_at(step)
    yield "batches", {"buckets": buckets, "weights": weights}
    for rows in (data.valid, data.test):
        log_probs = predict(Blind(), {}, rows, 64, buckets)
        found = score(log_probs, rows.y, data.classes)
        fitted = calibration(log_probs, rows.y)
    yield (
        "scores",
        {
            "accuracy": found["accuracy"],
            "temperature": fitted["temperature"],
            "majority": majority_accuracy(data),
        },
    )


def status(name: str) -> float:
    """Return a line of what the system says of this process's memory, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's memory")


class Watch:
    """The peak of anonymous memory since it was last asked for."""

    def __init__(self) -> None:
        self._peak = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._peak = max(self._peak, status("RssAnon"))
            time.sleep(0.002)

    def peak(self) -> float:
        found, self._peak = max(self._peak, status("RssAnon")), 0.0
        return found


def measure(path: Path, cache: str, tokenizer: str) -> dict[str, Any]:
    """Measure the stages of a file in this process."""
    options = {"tokenizer": tokenizer, "max_length": 256, "cache": cache}
    small = Path(cache) / "small.csv"
    small.parent.mkdir()
    make_file(small, 20)  # large enough for the cache
    for _ in stages(small, options):  # libraries, buffers
        pass
    watch, told = Watch(), dict[str, Any]()
    told["anonymous_mb"], told["resident_mb"] = {"before": round(watch.peak())}, {}
    for stage, found in stages(path, options):
        told["anonymous_mb"][stage] = round(watch.peak())
        told["resident_mb"][stage] = round(status("VmHWM"))  # the peak so far
        told |= found
    return told


def of_size(megabytes: int, tokenizer: str = "bytes") -> dict[str, Any]:
    """Measure a file of a size in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        make_file(path, megabytes)
        command = [sys.executable, "-m", "reliability.text_memory", "--tokenizer", tokenizer]
        done = subprocess.run(
            [*command, "--measure", str(path), folder + "/cache"],
            cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of large text files.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--tokenizer", default="bytes", help="a kind, or the path of a file")
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "CACHE"), help="of one file, here")
    chosen = parser.parse_args()
    if chosen.measure:
        file, cache = chosen.measure
        print(json.dumps(measure(Path(file), cache, chosen.tokenizer)))
        return
    for size in chosen.megabytes:
        print(json.dumps({"megabytes": size, **of_size(size, chosen.tokenizer)}), flush=True)


if __name__ == "__main__":
    main()
