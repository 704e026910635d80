"""Configs: settings by path and by short name, and one line for every mistake."""

import dataclasses
import math

import jax
import pytest

from resnorm_jax.config import (
    Config,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    experiment,
    from_dict,
    override,
)
from resnorm_jax.data import SOURCES
from resnorm_jax.errors import UserError
from resnorm_jax.schema import POSITIVE, checked, kinds, number, option, told


def make(argument="", **sections):
    sections = {"data": {"source": "digits"}, **sections}
    return experiment(
        argument, presets={"smoke": {"model.width": 16, "train.epochs": 1}}, **sections
    )


def test_defaults_presets_and_settings():
    config = from_dict(make("smoke,arrangement=post_ln,model.depth=6,seeds=5,b1=0.8").to_dict())
    assert isinstance(config, Config)
    assert (config.model.width, config.train.epochs) == (16, 1)
    assert (config.model.arrangement, config.model.depth) == ("post_ln", 6)
    assert (config.seeds, config.optimizer.b1) == (5, 0.8)
    assert config.model.mlp_width is None
    assert config.data == {"source": "digits", "view": "rows", "test_fraction": 0.2, "seed": 0}


def test_the_shallowest_short_name_wins():
    assert make("seed=3").seed == 3
    assert make("data.seed=3").data.seed == 3


def test_override_keeps_types():
    config = make()
    override(config, "model.mlp_width", "32")
    override(config, "model.dropout", "0")
    override(config, "train.scale", "false")
    override(config, "optimizer.clip", "none")
    assert config.optimizer.clip is None
    with pytest.raises(UserError, match=r"model.depth: 'none' is not a whole number"):
        override(config, "model.depth", "none")
    assert (config.model.mlp_width, config.model.dropout, config.train.scale) == (32, 0.0, False)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("smoek", r"unknown value 'smoek'; did you mean 'smoke'\?"),
        ("arangement=post_ln", r"unknown setting 'arangement'; did you mean 'arrangement'\?"),
        ("depth=six", r"config.model.depth: 'six' is not a whole number"),
        ("learning_rate=fast", r"config.optimizer.learning_rate: 'fast' is not a number"),
        ("scale=yes", r"train.scale: unknown value 'yes'"),
    ],
)
def test_mistakes_in_the_argument(argument, message):
    with pytest.raises(UserError, match=message):
        make(argument)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.heads", 5, r"heads: 5 does not divide model.width 64; try heads=4"),
        ("model.depth", 0, r"config.model.depth: 0 must be over 0"),
        ("model.dropout", 1.0, r"config.model.dropout: 1.0 must lie in \[0, 1\)"),
        ("train.accumulate", 5, r"accumulate: 5 does not divide train.batch_size 32"),
        ("train.precision", "float8", r"config.train.precision: unknown value 'float8'"),
        ("optimizer.weight_decay", -1.0, r"weight_decay: -1.0 must not be negative"),
        ("model.width", "wide", r"config.model.width: 'wide' is not a whole number"),
        ("model.width", True, r"config.model.width: True is not a whole number"),
        ("model.dpeth", 3, r"config.model.dpeth: unknown key; did you mean 'depth'\?"),
        ("data.viwe", "rows", r"data.viwe: unknown option .*did you mean 'view'\?"),
        ("data.source", "digit", r"data.source: unknown value 'digit'; did you mean 'digits'\?"),
    ],
)
def test_mistakes_in_values(path, value, message):
    values = make().to_dict()
    section, leaf = path.split(".")
    values[section][leaf] = value
    with pytest.raises(UserError, match=message):
        from_dict(values)


def test_an_unknown_section_or_key_in_a_config_file():
    with pytest.raises(UserError, match=r"unknown key 'modle'; did you mean 'model'\?"):
        experiment(data={"source": "digits"}, modle={})
    with pytest.raises(UserError, match=r"unknown key 'widht'; did you mean 'width'\?"):
        experiment(data={"source": "digits"}, model={"widht": 3})
    with pytest.raises(
        UserError, match=r"config.model.dpeth: unknown field; did you mean 'model.depth'"
    ):
        override(make(), "model.dpeth", "3")


SECTIONS = (ModelConfig, OptimizerConfig, TrainConfig, *(s.options for s in SOURCES.values()))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_says_what_it_is_and_its_default_obeys_it(section):
    defaults = dataclasses.asdict(section())
    assert checked(section, defaults, "") == defaults
    for field in dataclasses.fields(section):
        assert field.metadata["help"], field.name


def test_what_a_field_declares_is_checked():
    @dataclasses.dataclass(frozen=True)
    class Section:
        size: int | None = option(None, "any", POSITIVE)
        mode: str = option("a", "one of two", choices=("a", "b"))
        share: float = 0.5  # a field may declare nothing

    assert checked(Section, {"size": None, "share": 1}, "") == {"size": None, "share": 1.0}
    for values, message in (
        ({"size": 0}, "x.size: 0 must be over 0"),
        ({"mode": "c"}, "x.mode: unknown value 'c'; choose one of: a, b"),
        ({"mode": None}, "x.mode: None is not a string"),
        ({"sise": 1}, "x.sise: unknown key; did you mean 'size'?"),
    ):
        with pytest.raises(UserError) as error:
            checked(Section, values, "x.")
        assert str(error.value) == message


def test_every_field_is_read():
    """A field that no code reads is a promise not kept: look for each name outside config.py."""
    from pathlib import Path

    import resnorm_jax

    package = Path(resnorm_jax.__file__).parent
    code = "".join(
        p.read_text()
        for p in package.rglob("*.py")
        if p.name != "config.py" and "bench" not in p.parts
    )
    for section, section_name in (
        *((f.type, f.name) for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)),
    ):
        for field in dataclasses.fields(section):
            read = f".{field.name}" in code or f'"{field.name}"' in code
            assert read, f"{section_name}.{field.name}"


@pytest.mark.parametrize("section", [Config, *SECTIONS], ids=lambda section: section.__name__)
def test_every_number_has_a_finite_range_of_two_sides(section):
    for name, (kind, _) in kinds(section).items():
        field = next(f for f in dataclasses.fields(section) if f.name == name)
        if kind not in (int, float):
            continue
        rule = field.metadata["rule"]
        assert -math.inf < rule.low < rule.high < math.inf, name
        for wrong in (rule.low - 1, 2 * rule.high + 1, math.nan, math.inf, -math.inf, 10**400):
            with pytest.raises(UserError, match=r"^x: .* (?:must|is )"):
                rule.check("x", wrong)


@pytest.mark.parametrize("value", [1e39, 1e-60, 1e-39, math.inf, math.nan, 10**400], ids=told)
def test_a_number_that_float32_does_not_have_is_refused(value):
    values = make().to_dict()
    values["optimizer"]["learning_rate"] = value
    with pytest.raises(UserError, match=r"config.optimizer.learning_rate: .*(range|float32)"):
        from_dict(values)


def test_a_share_that_float32_rounds_to_one_is_refused():
    with pytest.raises(UserError, match=r"model.dropout: 0.9999999999 is 1.0 in float32"):
        from_dict(make(model={"dropout": 0.9999999999}).to_dict())


def test_two_seeds_are_never_one_run():
    key = [jax.random.key_data(jax.random.key(seed)).tolist() for seed in (0, 2**32 - 1)]
    assert key[0] != key[1]
    values = make(seed=2**32 - 1).to_dict()
    from_dict(values)
    with pytest.raises(UserError, match=r"seed \+ config.seeds - 1: 4294967296 is out of range"):
        from_dict({**values, "seeds": 2})
    with pytest.raises(UserError, match=r"config.seed: 4294967296 is out of range"):
        from_dict({**values, "seed": 2**32})


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("1_000", int, "write 1000"),
        (" 5 ", int, "write 5"),
        ("0x10", int, "write 16"),
        ("１", int, "write 1"),
        ("1e3", int, "write 1000"),
        ("6.0", int, "write 6"),
        ("1_0.5", float, "write 10.5"),
        ("0x10", float, "write 16.0"),
        ("True", int, ""),
        ("", int, ""),
        ("9" * 5000, int, ""),
        ("infinity", float, "write inf"),
    ],
)
def test_a_number_is_written_plainly(text, kind, hint):
    with pytest.raises(UserError, match=f"is not a (whole )?number(; {hint})?$") as error:
        number(text, kind)
    assert hint in str(error.value)
    assert len(str(error.value)) < 200


def test_numbers_written_plainly_are_read():
    assert [number(t, int) for t in ("7", "-7", "+7", "007")] == [7, -7, 7, 7]
    assert [number(t, float) for t in ("7", "1e-3", ".5", "5.", "-1.5E+2")] == [
        7,
        1e-3,
        0.5,
        5,
        -150,
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("depth=3,depth=4", "model.depth is given twice, '3' and '4'"),
        ("depth=3,model.depth=4", "model.depth is given twice"),
        ("depth=3,smoke,width=9", None),
        ("width=9,smoke", "'smoke' comes after model.width=9, which it sets too"),
        ("smoke,depth=2,depth=2", None),
        ("smoke,seeds=2,smoke", "preset 'smoke' is given twice; keep one"),
    ],
)
def test_settings_that_contradict_each_other(argument, message):
    if message is None:
        make(argument)
        return
    with pytest.raises(UserError, match=message):
        make(argument)


def test_sections_and_presets_that_are_none():
    with pytest.raises(UserError, match=r"config.model: 5 is no section; give its fields by name"):
        make(model=5)
    with pytest.raises(UserError, match=r"config.model: \[\] is no section"):
        from_dict({**make().to_dict(), "model": []})
    with pytest.raises(UserError, match=r"config.data: a section, which has no value; set a field"):
        override(make(), "data", "digits")
    with pytest.raises(UserError, match=r"preset 'p': model.widht: unknown field; did you mean"):
        experiment("p", presets={"p": {"model.widht": 3}}, data={"source": "digits"})


def test_a_whole_number_in_a_config_file_may_be_set_to_another_later():
    config = make(model={"dropout": 0})
    override(config, "model.dropout", "0.5")
    assert config.model.dropout == 0.5


def test_unroll_is_a_number_or_auto():
    assert from_dict(make().to_dict()).model.unroll == "auto"
    config = make("unroll=4")
    assert from_dict(config.to_dict()).model.unroll == 4
    for text, value in (("auto", "auto"), ("2", 2)):
        override(config, "model.unroll", text)
        assert from_dict(config.to_dict()).model.unroll == value
    assert from_dict(make(model={"unroll": 3}).to_dict()).model.unroll == 3
    said = r"config.model.unroll: 'full' is not a whole number or 'auto'"
    for fails in (
        lambda: override(config, "model.unroll", "full"),
        lambda: make(model={"unroll": "full"}),
    ):
        with pytest.raises(UserError, match=said):
            fails()
    for wrong in (0, -1, 10**9, True, 1.5, None, "3"):
        with pytest.raises(UserError, match=r"config.model.unroll: "):
            make(model={"unroll": wrong})


def test_a_preset_may_have_the_name_of_a_field():
    presets = {"seeds": {"seeds": 2}}
    assert experiment("seeds", presets=presets, data={"source": "digits"}).seeds == 2
