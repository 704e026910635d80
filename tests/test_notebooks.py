"""The notebooks' code runs, in order, in a namespace of its own; they are committed without outputs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import resnorm_jax

FILES = sorted((Path(resnorm_jax.__file__).parent / "notebooks").glob("*.ipynb"))


def cells(path, kind):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a notebook's cells; return its variables and what it printed."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg", force=True)
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda: None)
    yield lambda path: (_run(path), capsys.readouterr().out)
    pyplot.close("all")


def _run(path):
    space: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells(path, "code"), start=1):
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), space)
    return space


def test_there_are_notebooks_without_outputs():
    assert [path.name for path in FILES] == ["swap_the_norm.ipynb"]
    for path in FILES:
        code = cells(path, "code")
        assert all(not c["outputs"] and c["execution_count"] is None for c in code)
        assert not re.search(r"/(home|tmp|root|Users)/", path.read_text())


@pytest.mark.table
def test_the_norm_is_swapped_and_the_gradient_watched(run):
    space, printed = run(FILES[0])
    np.testing.assert_allclose(space["after"], space["before"], rtol=1e-4, atol=1e-5)
    flax, ours, *_ = space["found"].values()
    np.testing.assert_allclose(ours, flax, rtol=1e-3)
    slopes = {name: norms[-1] / norms[0] for name, norms in space["found"].items()}
    assert max(slopes, key=slopes.get) == "Post-LN, ours"  # its first layers hear least of the loss
    assert len(space["axes"].lines) == len(space["found"]) == 5
    assert "mean  10000: flax off by" in printed
