"""Every mistake of a person: one clear line, exit status 2, nothing written."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnorm_jax.cli import train
from resnorm_jax.cli.main import main as resnorm

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def line(tmp_path, capsys):
    """Run train.py with a mistake; return the one line that it prints."""

    def run(config: str, *more: str) -> str:
        workdir = tmp_path / "work"
        arguments = ["train.py", f"--config={CONFIGS}/{config}", f"--workdir={workdir}", *more]
        assert train.main(arguments) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert "\n" not in error
        assert not workdir.exists()
        return error

    return run


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ("digits.py:depht=3", (), "did you mean 'depth'?"),
        ("digits.py", ("--config.model.widht=3",), "did you mean 'model.width'?"),
        ("digits.py:arrangement=pre_nl", (), "config.model.arrangement: unknown name 'pre_nl'"),
        ("digits.py:norm=batch_", (), "config.model.norm"),
        (
            "digits.py:norm=rms*4+layer",
            (),
            "config.model.norm: 'rms*4+layer' does not fit 3 layers",
        ),
        (
            "digits.py:norm=layer*1+rns",
            (),
            "config.model.norm: unknown name 'rns'; did you mean 'rms'",
        ),
        ("digits.py:norm_after=rms", (), "norm_after: not read: arrangement 'pre_ln' has no norm"),
        ("digits.py:final_norm=rmsn", (), "config.model.final_norm: unknown name 'rmsn'"),
        ("digits.py:query_key=cosin", (), "config.model.query_key: unknown name 'cosin'"),
        ("digits.py:stream=ad", (), "config.model.stream: unknown name 'ad'; did you mean 'add'"),
        ("digits.py:norm=dyt,norm_epsilon=1e-5", (), "norm_epsilon: norm 'dyt' has no epsilon"),
        ("digits.py:remat_every=3", (), "remat_every: not read without remat"),
        ("digits.py:remat=full,remat_every=2", (), "remat_every: 2 does not divide 3 layers"),
        ("digits.py:arrangement=res_post_norm,norm=l2", (), "'l2' has no scale"),
        ("digits.py:heads=7", (), "7 does not divide model.width 64; try heads=8"),
        ("digits.py:batch_size=12", (), "12 rows do not divide by 8 devices; try 16"),
        ("digits.py:batch_size=30,accumulate=2", ("--config.devices=4",), "4 devices x 2"),
        ("digits.py:select=best", (), "set train.validation=0.2"),
        ("digits.py:attention=cudnn", (), "needs a GPU, and JAX runs on cpu"),
        ("digits.py:attention=chunk", (), "config.model.attention: unknown value"),
        ("digits.py:positions=rotery", (), "did you mean 'rotary'?"),
        ("digits.py:momentum=0.9", (), "adamw does not read it"),
        ("digits.py:patch=2", (), "not read: the data are features, not images"),
        ("digits.py:view=image,kernel=none,patch=3", (), "3 does not divide images of 8 x 8"),
        ("digits.py:max_length=4", (), "4 is under the data's longest, 8"),
        ("series.py:name=BasicMotion", (), "did you mean 'BasicMotions'?"),
        ("series.py:train=none_TRAIN.ts", (), "data.test: not given"),
        ("series.py:train=a.ts,data.test=b.ts", (), "no file at 'a.ts'"),
        ("digit.py", (), "did you mean"),
        ("digits.py", ("--wrkdir=a",), "did you mean 'workdir'?"),
        ("digits.py", ("extra",), "unexpected argument 'extra'"),
        ("arrays.py", (), "data.train"),
        ("text.py", (), "data.train"),
    ],
)
def test_train(line, config, more, message):
    assert message in line(config, *more)


FILES = {
    "empty.ts": (b"", "series.py", "empty.ts"),
    "number.ts": (b"@classLabel true a b\n@data\n1,2,x:a\n", "series.py", "number.ts:3"),
    "ragged.ts": (b"@classLabel true a b\n@data\n1,2:1:a\n", "series.py", "ragged.ts:3"),
    "broken.npz": (b"not an archive", "arrays.py", "broken.npz"),
    "broken.jsonl": (b'{"text": "a", "label": "x"}\n{"text": \n', "text.py", "broken.jsonl:2"),
    "column.csv": (b"text,lable\na,b\n", "text.py", "column.csv:"),
    "fields.csv": (b"text,label\na,b\na,b,c\n", "text.py", "fields.csv:3"),
}


@pytest.mark.parametrize("name", FILES)
def test_malformed_files_name_file_and_line(line, tmp_path, name):
    content, config, where = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert where in line(f"{config}:data.train={path},data.test={path}")


def test_object_arrays_are_refused(line, tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, x=np.array([[1], [2, 3]], dtype=object), y=np.array([0, 1]))
    assert "objects.npz" in line(f"arrays.py:data.train={path}")


def test_unseen_labels_are_named(line, tmp_path):
    rows = [{"text": "good film", "label": "a"}, {"text": "bad film", "label": "b"}] * 4
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "x", "label": "c"}) + "\n")
    paths = f"data.train={tmp_path}/train.jsonl,data.test={tmp_path}/test.jsonl"
    error = line(f"text.py:{paths}")
    assert "test.jsonl:1" in error
    assert "'c'" in error


def test_a_missing_extra_names_the_command(line, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "pip install 'resnorm_jax[digits]'" in line("digits.py")


def test_a_foreign_directory_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    arguments = ["train.py", f"--config={CONFIGS}/digits.py:smoke", f"--workdir={tmp_path}"]
    assert train.main(arguments) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_workdir_is_asked_for(capsys):
    assert train.main(["train.py", f"--config={CONFIGS}/digits.py"]) == 2
    assert "--workdir: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "did you mean 'list'?"),
        (["evaluate"], "resnorm evaluate --help"),
        (["evaluate", "no/such/run"], "not a run directory"),
        (["predict", "no/such/run", "x.ts"], "not a run directory"),
        (["predict", "run", "x.ts", "--output=x.txt"], "write to a .csv or a .jsonl file"),
        (["list", "norm"], "invalid choice"),
    ],
)
def test_resnorm(arguments, message, capsys):
    assert resnorm(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_help_and_lists(capsys, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    assert resnorm(["--help"]) == 0
    assert resnorm(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("sandwich_ln", "scalar_gate", "rms", "listops", "lion", "japanese_vowels"):
        assert name in out
    assert train.main(["train.py", "--help"]) == 0
    assert "--workdir" in capsys.readouterr().out


def test_a_message_is_one_line_whatever_is_in_it(capsys):
    assert resnorm(["evaluate", "a\nrun\nof two lines"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a\\nrun\\nof two lines" in error
