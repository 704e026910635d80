"""The README's rows of a reader's own: short, outside the package, and trained by name."""

import ast
import json
import re
from pathlib import Path

import pytest
from tiers import every

from resnorm_jax import arrangements, norms, streams
from resnorm_jax.cli import train

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "resnorm_jax" / folder / "README.md" for folder in ("norms", "schemes")]
BLOCKS = [
    block
    for path in READMES
    for block in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
]
ROWS = {
    "norm": ("peak", norms.get.__self__),
    "arrangement": ("half_pre_ln", arrangements.get.__self__),
    "stream": ("fading", streams.get.__self__),
}
CONFIG = """

def get_config(argument=""):
    from resnorm_jax.config import experiment

    return experiment(
        argument,
        data={"source": "digits", "view": "rows"},
        model={"width": 8, "depth": 2, "heads": 2},
        train={"batch_size": 64, "epochs": 1, "scale": False},
    )
"""


@pytest.fixture
def block(request):
    """The block of a README that registers a row, and the tables as they were afterwards."""
    name, registry = ROWS[request.param]
    kept = dict(registry._rows)
    (text,) = [text for text in BLOCKS if f'name="{name}"' in text]
    yield request.param, name, text
    registry._rows = kept


@pytest.mark.parametrize("block", every(ROWS), indirect=True)
def test_a_row_of_a_readers_own_trains_by_name(block, tmp_path):
    menu, name, text = block
    making = [node for node in ast.parse(text).body if name in ast.unparse(node)]
    row = next(node for node in making if isinstance(node, ast.Assign))
    assert row.end_lineno - row.lineno + 1 <= 15
    config = tmp_path / "mine.py"
    config.write_text(text + CONFIG)
    run = tmp_path / "run"
    assert train.main(["train.py", f"--config={config}:{menu}={name}", f"--workdir={run}"]) == 0
    assert json.loads((run / "config.json").read_text())["config"]["model"][menu] == name
    assert json.loads((run / "report.json").read_text())["accuracy"] > 0
