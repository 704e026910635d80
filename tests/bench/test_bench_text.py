"""``resnorm bench --only=text``: a fine-tuned encoder beside what costs less."""

import csv
import json

import pytest
from pretrained_folder import make_checkpoint

from resnorm_jax.bench.text_scores import Texts, cases
from resnorm_jax.cli.main import main


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


@pytest.fixture
def texts(tmp_path):
    rows = [(f"a {word} day", "yes" if word == "good" else "no") for word in ("good", "bad")]
    for split, times in (("train", 8), ("valid", 3), ("test", 2)):
        write(tmp_path / f"{split}.csv", rows * times)
    return tmp_path


def test_what_is_missing_is_told(texts, capsys):
    assert main(["bench", "--only=text", f"--init-from={texts}"]) == 2
    assert "--data: missing" in capsys.readouterr().err
    assert main(["bench", f"--data={texts}"]) == 2
    assert "--data: not read without --only=text" in capsys.readouterr().err
    (texts / "valid.csv").unlink()
    argv = ["bench", "--only=text", f"--data={texts}", f"--init-from={texts}"]
    assert main(argv) == 2
    assert "valid.csv" in capsys.readouterr().err


@pytest.mark.slow
def test_every_way_is_scored(texts, tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "bert")
    output = tmp_path / "scores.json"
    argv = ["bench", "--only=text", f"--data={texts}", f"--init-from={checkpoint}", "--quick"]
    assert main([*argv, f"--output={output}"]) == 0
    document = json.loads(output.read_text())
    rows = document["text"]
    assert (
        len({row["classifier"] for row in rows}) == 10
    )  # "a good day" has as many words as "a bad day"
    found = {row["classifier"]: row["accuracy"] for row in rows}
    assert found["majority class"] == 0.5
    assert found["TF-IDF of 1 and 2 words, logistic regression"] == 1.0
    out = capsys.readouterr().out
    assert "| configs/finetune.py |" in out
    (speed,) = document["speed"]
    assert len(speed["losses"]) == 3
    assert "the first 3 losses are within" in out


@pytest.mark.slow
def test_nothing_but_texts_is_needed(texts, tmp_path):
    output = tmp_path / "scores.json"
    assert main(["bench", "--only=text", f"--data={texts}", "--quick", f"--output={output}"]) == 0
    document = json.loads(output.read_text())
    assert len({row["classifier"] for row in document["text"]}) == 8
    assert "speed" not in document


def test_the_ways_without_training_suit_rows_of_letters(tmp_path):
    """Nucleotides: no word has the two letters that scikit-learn's words have."""
    rows = [(" ".join(letters), label) for letters, label in (("ACG", "n"), ("TTG", "ei"))]
    for split in ("train", "valid", "test"):
        write(tmp_path / f"{split}.csv", rows * 4)
    texts = Texts(tmp_path, seeds=1)
    found = {way.name: way.score(texts, seed) for way, seed in cases(texts) if not way.seeded}
    assert found.pop("majority class") == 0.5
    assert set(found.values()) == {1.0}
    assert len(found) == 3  # of characters, and by place twice
