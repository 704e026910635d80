"""How much memory a large file of texts takes, from reading it to an epoch of batches.

    cd tests && python -m reliability.text_memory --megabytes 200 2000

Each size is a file made by repetition, read in a fresh process, which tells its peak before and after.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SENTENCE = (
    "the film was neither clever nor dull and the plot of row {} went nowhere in particular . "
)
EPOCH = 2000  # batches at most


def make_file(path: Path, megabytes: int) -> int:
    """Write a CSV file of rows of about a thousand characters; return how many rows it has."""
    rows, written = 0, 0
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        while written < megabytes * 10**6:
            written += file.write(f"{(SENTENCE * 11).format(*[rows] * 11)},{'ab'[rows % 2]}\n")
            rows += 1
    return rows


def peak() -> float:
    """The most memory that this process has held, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's peak of memory")


def measure(path: str, cache: str, tokenizer: str) -> dict:
    """Read a file as training does: ids, splits, digest, batches in the order of training."""
    from resnorm_jax.data import TrainBatches, load_dataset
    from resnorm_jax.data.fingerprint import fingerprint
    from resnorm_jax.data.preprocess import split_validation
    from resnorm_jax.data.text_cache import SMALL

    small = Path(cache) / "small.csv"
    small.parent.mkdir()
    make_file(small, max(2 * SMALL // 10**6, 20))
    options = {"tokenizer": tokenizer, "max_length": 256, "cache": cache}
    load_dataset("text", {"train": str(small), **options})  # libraries, buffers
    before, begin = peak(), time.process_time()
    data = split_validation(load_dataset("text", {"train": path, **options}), 0.1, 0)
    read, seconds = peak(), time.process_time() - begin
    fingerprint(data)
    batches = TrainBatches(data.train, 64, (256,), 0)
    for step in range(min(batches.steps_per_epoch, EPOCH)):
        batches.batch_at(step)
    rows = sum(len(part) for part in (data.train, data.valid, data.test))
    return {
        "rows": rows,
        "tokens": int(sum(p.lengths.sum() for p in (data.train, data.valid, data.test))),
        "cpu_seconds": round(seconds, 1),
        "before_mb": round(before, 1),
        "read_mb": round(read, 1),
        "batches_mb": round(peak(), 1),
        "lines": data.lines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of large text files.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--tokenizer", default="bytes", help="a kind, or the path of a file")
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "CACHE"), help="of one file, here")
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(*chosen.measure, chosen.tokenizer)))
        return
    for size in chosen.megabytes:
        print(json.dumps({"megabytes": size, **of_size(size, chosen.tokenizer)}), flush=True)


def of_size(megabytes: int, tokenizer: str = "bytes") -> dict:
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


if __name__ == "__main__":
    main()
