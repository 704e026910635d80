"""Anything at all, as a setting or as a value: a config, or one line about the field."""

import dataclasses
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnorm_jax.build import check_names
from resnorm_jax.cli.arguments import Parser
from resnorm_jax.config import Config, experiment, from_dict, override
from resnorm_jax.errors import UserError
from resnorm_jax.schema import between

PATHS = [
    f"{section.name}.{field.name}"
    for section in dataclasses.fields(Config)
    if dataclasses.is_dataclass(section.type)
    for field in dataclasses.fields(section.type)
]
PATHS += ["seed", "seeds", "devices", "data.view", "data.test_fraction", "data.seed", "data.source"]
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from([0, 1, 2**31, 2**32, 2**63, -0.0, 1e-45, 1e38, 3.5e38, 0.999999999, 1 - 1e-17]),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(alphabet=string.digits + "+-._eExXoinfa* ,", max_size=12),
    NUMBERS.map(str),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)
fuzzed = settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)


def one_line(error: UserError) -> None:
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 2000


@pytest.mark.table
@fuzzed
@given(st.sampled_from(PATHS), TEXTS)
def test_any_text_for_any_field(path, text):
    config = experiment(data={"source": "digits"})
    try:
        override(config, path, text)
        check_names(from_dict(config.to_dict()).model)
    except UserError as error:
        one_line(error)


@fuzzed
@given(st.sampled_from([*PATHS, "model", "optimizer", "train", "data"]), VALUES)
def test_any_value_for_any_field(path, value):
    values = experiment(data={"source": "digits"}).to_dict()
    *parents, leaf = path.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    inner[leaf] = value
    try:
        check_names(from_dict(values).model)
    except UserError as error:
        one_line(error)


@fuzzed
@given(st.lists(st.one_of(TEXTS, st.sampled_from(PATHS)), max_size=4).map(",".join))
def test_any_argument_of_a_config_file(argument):
    try:
        from_dict(experiment(argument, data={"source": "digits"}).to_dict())
    except UserError as error:
        one_line(error)


@fuzzed
@given(VALUES)
def test_any_value_for_a_config(values):
    with pytest.raises(UserError) as error:
        from_dict(values)
    one_line(error.value)


@fuzzed
@given(
    st.lists(st.one_of(TEXTS, st.sampled_from(["--size", "--size=", "--name", "-h="])), max_size=4)
)
def test_any_words_for_a_command(words):
    parser = Parser(prog="x", add_help=False)
    parser.add_argument("run")
    parser.add_argument("--name")
    parser.add_number("--size", int, between(1, 9))
    try:
        parser.parse_args(words)
    except UserError as error:
        one_line(error)
