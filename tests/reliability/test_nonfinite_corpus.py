"""Each malformed input of `corpus_nonfinite` is one line and the right status."""

import re
from pathlib import Path

import pytest
from reliability.corpus_nonfinite import CASES

from resnorm_jax.cli import train

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ("model.width=8", "model.depth=1", "model.heads=2", "train.steps=1", "train.batch_size=8")


def shown(case):
    trains = case.name.startswith("data/")
    return pytest.param(case, id=case.name, marks=[pytest.mark.table] * trains)


@pytest.mark.parametrize("case", [shown(case) for case in CASES])
def test_it_is_one_line(case, tmp_path, capsys):
    if case.files is not None:
        case.files(tmp_path)
    _, *given = (
        a.replace("{d}", str(tmp_path)).replace("{configs}", str(CONFIGS)) for a in case.argv
    )
    small = [f"--config.{s}" for s in (*SMALL, "devices=1")]
    names = {a.partition("=")[0] for a in given}
    small = [s for s in small if s.partition("=")[0] not in names]
    status = train.main(["train.py", *given, *small, f"--workdir={tmp_path}/run"])
    told = capsys.readouterr().err.strip()
    assert status == case.status
    assert "\n" not in told
    assert re.search(case.says, told)
    if case.status == 2 and not case.name.startswith("data/"):
        assert not (tmp_path / "run").exists()
