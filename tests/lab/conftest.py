"""A tiny trained run that the lab's commands read."""

from pathlib import Path

import pytest

from resnorm_jax.cli import train

CONFIG = Path(__file__).parents[2] / "configs" / "digits.py"
TINY = "width=8,depth=3,heads=2,epochs=2,batch_size=64,validation=0.2,dropout=0.0"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Run directory of a digits model of three layers, two epochs."""
    workdir = tmp_path_factory.mktemp("tiny") / "run"
    arguments = ["train.py", f"--config={CONFIG}:{TINY}", f"--workdir={workdir}"]
    assert train.main(arguments) == 0
    return workdir
