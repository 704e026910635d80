"""The table of sources and the checks of options."""

from dataclasses import dataclass

import numpy as np
import pytest

from resnorm_jax.data import SOURCES, Dataset, Examples, Source, load_dataset, register_source
from resnorm_jax.data.sources import check_plain
from resnorm_jax.errors import UserError


@dataclass(frozen=True)
class ToyOptions:
    rows: int = 4
    scale: float = 1.0
    flip: bool = False
    name: str = "toy"


def load_toy(options: ToyOptions) -> Dataset:
    y = np.arange(options.rows, dtype=np.int32) % 2
    part = Examples(
        np.full((options.rows, 3, 1), options.scale, np.float32), np.full(options.rows, 3), y
    )
    return Dataset(options.name, "features", part, part, ("a", "b")[: 1 + int(y.max())])


@pytest.fixture
def toy():
    register_source(Source("toy", "for tests", ToyOptions, load_toy))
    yield
    del SOURCES["toy"]


def test_builtin_table_is_complete():
    assert list(SOURCES)[:6] == ["series", "digits", "listops", "arrays", "text", "sample_text"]
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.summary
        assert source.options()  # every option has a default
        check_plain(source)
    assert "smoke" in SOURCES["sample_text"].summary


def test_registered_source_loads_with_checked_options(toy):
    data = load_dataset("toy", {"rows": 6, "scale": 2})
    assert len(data.train) == 6
    assert data.train.x[0, 0, 0] == 2.0
    options = {"rows": 6, "scale": 2.0, "flip": False, "name": "toy"}
    assert data.source == {"name": "toy", "options": options}
    assert isinstance(data.source["options"]["scale"], float)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("serie", {}, "data.source: unknown value 'serie'; did you mean 'series'?"),
        (
            "toy",
            {"row": 3},
            "data.row: unknown option of source 'toy'; did you mean 'rows'?",
        ),
        ("toy", {"rows": 3.0}, "data.rows: 3.0 is float, expected int; give a int"),
        ("toy", {"rows": True}, "data.rows: True is bool, expected int; give a int"),
        ("toy", {"rows": "3"}, "data.rows: '3' is str, expected int; give a int"),
        ("toy", {"flip": 1}, "data.flip: 1 is int, expected bool; give a bool"),
        ("toy", {"scale": None}, "data.scale: None is NoneType, expected float; give a float"),
        ("toy", {"name": 3}, "data.name: 3 is int, expected str; give a str"),
        (
            "toy",
            {"rows": 1},
            "data.source: the training rows of 'toy' have one class, 'a'; "
            "give rows of at least two",
        ),
    ],
)
def test_bad_options(toy, source, options, message):
    with pytest.raises(UserError) as error:
        load_dataset(source, options)
    assert str(error.value) == message


def test_registering_twice_or_with_odd_types_is_refused(toy):
    with pytest.raises(ValueError, match="already registered"):
        register_source(Source("toy", "again", ToyOptions, load_toy))

    @dataclass(frozen=True)
    class Odd:
        rows: list[int]

    with pytest.raises(ValueError, match="not a plain type"):
        register_source(Source("odd", "", Odd, load_toy))
