"""Configs by name, in any folder; commands without an install."""

import subprocess
import sys
from pathlib import Path

import pytest

import resnorm_jax as rn
from resnorm_jax.cli.errors import REQUIRED, guarded
from resnorm_jax.cli.main import main
from resnorm_jax.config_file import packaged_configs, read_config

ROOT = Path(__file__).parents[2]


def test_the_package_has_every_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert packaged_configs() == sorted(p.stem for p in (ROOT / "configs").glob("*.py"))
    assert read_config("digits:smoke,seeds=3").seeds == 3
    assert rn.load_config("japanese_vowels").data["name"] == "JapaneseVowels"


def test_a_file_is_not_hidden_by_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs" / "digits.py").read_text()
    (tmp_path / "digits.py").write_text(text.replace('"width": 64', '"width": 48'))
    assert read_config("digits.py").model.width != read_config("digits").model.width


def test_the_nearest_name_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config=digitz", "--workdir=run"]) == 2
    error = capsys.readouterr().err
    assert error == "error: --config: no config file digitz; did you mean 'digits'?\n"
    assert list(tmp_path.iterdir()) == []


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "resnorm_jax", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "train" in done.stdout


@pytest.mark.parametrize("module", ["jax", "ml_collections.config_dict"])
def test_a_missing_package_is_one_line(module, capsys):
    def command():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    assert guarded(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {module} is not installed; in a checkout run pip install")


def test_a_missing_module_of_somebody_else_keeps_its_traceback():
    def command():
        raise ModuleNotFoundError("No module named 'mine'", name="mine")

    with pytest.raises(ModuleNotFoundError):
        guarded(command)


def test_what_is_required_is_what_is_declared():
    text = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("]")[0]
    declared = {line.strip(' ",').partition(">")[0].partition("-")[0] for line in text.split("\n")}
    modules = {"yaml" if name == "pyyaml" else name for name in declared - {""}}
    assert modules <= set(REQUIRED)
