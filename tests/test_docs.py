"""The API reference, `python -m pdoc --math` (see .github/CONTRIBUTING.md): equations that render."""

import re
import tomllib
from pathlib import Path

import pytest

import resnorm_jax as rn

ROOT = Path(__file__).parents[1]
WITH_EQUATION = (
    rn.layer_norm, rn.rms_norm, rn.std_layer_norm, rn.add_layer_norm, rn.add_rms_norm,
    rn.norms.scale_norm, rn.norms.l2_norm, rn.residual, rn.drop_path, rn.masked_attention,
)  # fmt: skip


@pytest.mark.parametrize("function", WITH_EQUATION, ids=lambda function: function.__name__)
def test_the_equation_of_a_public_function_is_valid(function):
    pytest.importorskip("matplotlib")
    from matplotlib.mathtext import MathTextParser

    (equation,) = re.findall(r"\$\$ (.*?) \$\$", function.__doc__, re.DOTALL)
    MathTextParser("path").parse(f"${' '.join(equation.split())}$")  # raises where it is not


def test_every_public_name_says_what_it_is():
    names = [name for name in rn.__all__ if not name.startswith("__")]
    assert [name for name in names if not (getattr(rn, name).__doc__ or "").strip()] == []


def test_the_command_is_the_one_that_is_told():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    (command,) = re.findall(r"^pip install .*pdoc.*$", guide, re.MULTILINE)
    assert 'pip install -e ".[docs]"' in command
    assert "docs" in extras["optional-dependencies"]
    assert command.partition(" && ")[2] in (ROOT / ".github/workflows/nightly.yml").read_text()
