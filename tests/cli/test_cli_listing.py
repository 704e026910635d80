"""What `resnorm list norms` says of parameters: read off the modules, not written by hand."""

import flax.linen as nn
import pytest

from resnorm_jax import norms
from resnorm_jax.cli import listing, tables
from resnorm_jax.cli.tables import first_line, norm_parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer", "scale [D], bias [D]"),
        ("layer_plain", ""),
        ("rms", "scale [D]"),
        ("scale", "scale (scalar)"),
        ("dyt", "alpha (scalar), scale [D], bias [D]"),
    ],
)
def test_parameters_with_their_shapes(name, expected):
    assert norm_parameters(norms.get(name)) == expected


class Odd(nn.Module):
    """Parameters of every kind of shape."""

    epsilon: float
    dtype: object
    param_dtype: object

    @nn.compact
    def __call__(self, x, *, mask, condition, deterministic):
        width = x.shape[-1]
        self.variable("batch_stats", "mean", lambda: x.mean())
        self.param("bias", nn.initializers.zeros, (width,))
        self.param("groups", nn.initializers.zeros, (4, width // 4))
        nn.Dense(2 * width, name="adapt")(condition)
        assert deterministic is True
        return x


def test_shapes_of_any_module_and_its_state(monkeypatch):
    odd = norms.NormSpec(
        "odd", "x", "this test", module=Odd, state="mean", used_by="nobody", since="9.9.9",
        context=("mask", "condition", "deterministic"),
    )  # fmt: skip
    shapes = "adapt/bias [2 D], adapt/kernel [C, 2 D], groups [4, D / 4], bias [D]"
    assert norm_parameters(odd) == shapes
    monkeypatch.setattr(tables.norms, "rows", lambda: [odd])
    columns, (row,) = tables.TABLES["norms"]()
    named = dict(zip(columns, row, strict=True))
    assert named["parameters"] == f"{shapes}; state: mean"
    assert (named["epsilon"], named["used by"], named["since"]) == ("1e-06", "nobody", "9.9.9")
    assert "9.9.9" not in tables.markdown_table("norms", ["odd"])


def test_every_norm_of_the_table_can_be_described():
    assert all(isinstance(norm_parameters(spec), str) for spec in norms.rows())


def test_list_knows_every_table():
    assert set(listing.WHAT) == set(tables.TABLES)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'"""What it is.\n\nMore."""\n', "What it is."),
        (b"x = 1\n", ""),
        (b"def (\n", "cannot be read: SyntaxError"),
        (b"x = '\xff'\n", "cannot be read: SyntaxError"),
        (b"x = 1\0\n", "cannot be read: "),
    ],
)
def test_a_config_that_cannot_be_read_is_listed_with_why(content, expected, tmp_path):
    path = tmp_path / "c.py"
    path.write_bytes(content)
    assert first_line(path).startswith(expected)
    assert first_line(tmp_path) == "cannot be read: IsADirectoryError"
