"""Public corpora become the three files that ``resnorm bench --only=text`` reads."""

import csv
import dataclasses
import hashlib
import io
import lzma
import tarfile
import zipfile

import pytest

from resnorm_jax.bench import text_data
from resnorm_jax.errors import UserError

RATED = [("A fine film.", 2.5), ("A dull one.", -1.0), ("Neither.", 0.0), ("So, so good.", 0.5)]


def tar(name, content, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    lines = "".join(f"{n}\t{rating}\t{text}\t[]\n" for n, (text, rating) in enumerate(RATED))
    inner = tar("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", lines.encode())
    path = tmp_path / "vader.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("vader/additional_resources/hutto_ICWSM_2014.tar.gz", inner)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    row = dataclasses.replace(text_data.CORPORA["movie"], sha256=digest)
    monkeypatch.setitem(text_data.CORPORA, "movie", row)
    return path


def test_every_rated_text_is_in_one_split(archive, tmp_path, capsys):
    assert text_data.main(["movie", str(archive), str(tmp_path / "movie")]) == 0
    assert capsys.readouterr().out.endswith("2 train rows, 0 valid rows, 1 test rows\n")
    found = {}
    for split in ("train", "valid", "test"):
        with open(tmp_path / "movie" / f"{split}.csv", newline="", encoding="utf-8") as file:
            found |= {row["text"]: row["label"] for row in csv.DictReader(file)}
    assert found == {text: "positive" if r > 0 else "negative" for text, r in RATED if r}


def test_splits_are_tenths_and_the_same_every_time():
    rows = [(str(n), "a") for n in range(30)]
    splits = text_data.tenths(rows)
    assert {name: len(some) for name, some in splits.items()} == {
        "train": 24,
        "valid": 3,
        "test": 3,
    }
    assert sorted(row for some in splits.values() for row in some) == sorted(rows)
    assert text_data.tenths(rows) == splits
    assert splits["train"] != rows[:24]


def test_another_file_or_a_folder_that_is_there_is_refused(archive, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken: exists; name a new folder"):
        text_data.write("movie", archive, tmp_path / "taken")
    assert text_data.main(["chinese", str(archive), str(tmp_path / "new")]) == 2
    assert "and chinese is c92accd025b70dd1; get it with `pip download" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"nothing\.zip: No such file"):
        text_data.write("movie", tmp_path / "nothing.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_debian_package_gives_its_data(tmp_path):
    data = lzma.compress(b"what is in it")

    def entry(name, content):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode()
        return header + content + b"\n" * (len(content) % 2)

    package = b"!<arch>\n" + entry("debian-binary", b"2.0\n") + entry("control.tar.xz", b"odd")
    assert text_data._data(package + entry("data.tar.xz", data)) == data
    with pytest.raises(UserError, match="has no data"):
        text_data._data(package)
