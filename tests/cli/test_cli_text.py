"""A run on texts with a tokenizer of its own, and all that is done with it when the files are gone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax.cli import train
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.data.tokenizer_training import train_tokenizer

ROOT = Path(__file__).parents[2]
WORDS = {"good": ("clever", "moving"), "bad": ("dull", "tedious")}
ROWS = [
    {"a": f"the film {i % 7} was", "b": f"{WORDS[label][i % 3 % 2]} {i % 5}", "mood": label}
    for i in range(60)
    for label in WORDS
]
TINY = "width=16,depth=1,heads=2,epochs=1,batch_size=16"

pytestmark = pytest.mark.table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (folder / "model").mkdir()
    data = train_tokenizer("wordpiece", lambda: (f"{r['a']} {r['b']}" for r in ROWS), 60)
    (folder / "model" / "tokenizer.json").write_bytes(data)
    command = [
        "train.py",
        f"--config={ROOT}/configs/text.py:train={folder}/a.jsonl,tokenizer={folder}/model,"
        f"text_column=a,pair_column=b,label_column=mood,data.max_length=12,{TINY}",
        f"--workdir={folder}/run",
    ]
    assert train.main(command) == 0
    return folder, command, data


def test_the_run_keeps_its_tokenizer_and_tells_of_cuts(run):
    folder, command, data = run
    assert (folder / "run" / "tokenizer.json").read_bytes() == data
    report = json.loads((folder / "run" / "report.json").read_text())
    assert report["truncation"].keys() == {"max_length", "rows", "tokens"}
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["content"]["tokenizer"] == config["data"]["encoding"]["sha256"]
    assert train.main(command) == 0  # again: nothing to do
    (folder / "run" / "tokenizer.json").unlink()  # as if a run was killed before it was written
    assert train.main(command) == 0
    assert (folder / "run" / "tokenizer.json").read_bytes() == data


def test_another_tokenizer_is_another_run(run, capsys):
    folder, command, data = run
    path = folder / "model" / "tokenizer.json"
    path.write_bytes(data + b"\n")
    try:
        assert train.main(command) == 2
        assert "the data are not those of this run: tokenizer was " in capsys.readouterr().err
    finally:
        path.write_bytes(data)


def test_all_works_when_the_folder_of_the_tokenizer_is_gone(run, tmp_path, capsys):
    folder, _, _ = run
    report = json.loads((folder / "run" / "report.json").read_text())
    shutil.move(folder / "model", tmp_path / "elsewhere")
    shutil.copytree(folder / "run", tmp_path / "moved")
    try:
        assert resnorm(["evaluate", str(tmp_path / "moved"), f"--output={tmp_path}/s.json"]) == 0
        assert json.loads((tmp_path / "s.json").read_text())["accuracy"] == report["accuracy"]
        output = tmp_path / "p.jsonl"
        given = [str(tmp_path / "moved"), f"{folder}/a.jsonl", f"--output={output}"]
        assert resnorm(["predict", *given]) == 0
        assert len(output.read_text().splitlines()) == len(ROWS)
        loaded = rn.load_run(tmp_path / "moved")
        pairs = [(r["a"], r["b"]) for r in ROWS[:8]]
        lines = map(json.loads, output.read_text().splitlines()[:8])
        assert loaded.predict(pairs).tolist() == [line["class"] for line in lines]
        assert np.isfinite(loaded.predict_proba(pairs)).all()
    finally:
        shutil.move(tmp_path / "elsewhere", folder / "model")


def test_a_pair_is_given_on_the_command_line(run, capsys):
    folder, _, _ = run
    workdir = str(folder / "run")
    pairs = [["the film was", "clever"], ["the film", "dull 3"]]
    given = [a for text, pair in pairs for a in (f"--text={text}", f"--text-pair={pair}")]
    assert resnorm(["predict", workdir, *given, "--calibrated=false"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    wanted = rn.load_run(workdir).predict_proba([tuple(pair) for pair in pairs])
    found = [[float(cell) for cell in line.split(",")[-2:]] for line in lines]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    for given, message in (
        (
            ["--text=a"],
            "--text: this model reads pairs of texts; give --text-pair too, one for each",
        ),
        (
            ["--text=a", "--text=b", "--text-pair=c"],
            "1 of --text-pair, 2 of --text; give one for each",
        ),
        (["--text=a", "--text-pair= "], "--text-pair: text 1: no visible character"),
    ):
        assert resnorm(["predict", workdir, *given]) == 2
        assert message in capsys.readouterr().err
