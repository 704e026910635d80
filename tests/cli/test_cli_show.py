"""``resnorm show``: a plan in words and for programs; rows of every table; one line for a mistake."""

import json
import re

import pytest

import resnorm_jax as rn
from resnorm_jax.cli import main, show, show_rows


def shown(capsys, *words):
    assert main.main(["show", *words]) == 0
    return capsys.readouterr().out


def test_a_layer_of_mix_ln(capsys):
    seventh = shown(capsys, "mix_ln", "--depth=24", "--layer=7")
    assert "layer 7, of 24" in seventh
    assert "h = r layer(x)" in seventh
    assert "x = a x + b f" in seventh
    assert "norm_on_stream" not in seventh
    sixth = shown(capsys, "mix_ln", "--depth=24", "--layer=6")
    assert "x = layer(a x + b f)" in sixth
    assert "norm_before" not in sixth
    # A layer's own shapes: no axis of layers.
    assert re.search(r"attention/branch/query/kernel +\[64, 4, 16\] +kernel +Xavier", seventh)


def test_a_whole_plan_has_ranges(capsys):
    text = shown(capsys, "layer_norm_scaling", "--depth=16")
    assert "layers 1 to 16, of 16" in text
    assert "r = 1 to 0.25, a = 1, b = 1" in text
    said = "Layers with unroll=auto: in a loop on a CPU, unrolled on a GPU, unrolled on a TPU."
    assert text == f"{rn.plan('layer_norm_scaling', 16)}\n\n{said}\n"
    text = shown(capsys, "deepnorm", "--depth=8", "--norm=rms")
    assert "r = 1, a = 2, b = 1" in text
    assert "value, out 0.3536" in text
    assert "rms(a x + b f)" in text
    assert re.search(r"norms\n  rms  .*eps 1e-06", text)


def test_a_decoder_beside_an_encoder(capsys):
    text = shown(capsys, "deepnorm", "--depth=6", "--decoder", "--other=18", "--layer=1")
    assert "cross_attention" in text
    assert "a = 2.06," in text
    assert "attends to the memory" in text


@pytest.mark.parametrize("name", rn.arrangements.names())
def test_every_arrangement_can_be_shown(name):
    """As text with every first value, and as JSON; nothing is compiled."""
    from resnorm_jax.planning.show import describe, to_json

    plan = rn.plan(name, 5)
    text = describe(plan)
    assert plan.row.equation in text
    assert plan.row.source in text
    assert plan.stream.equation in text
    lines = re.findall(r"^  \S+ +\[[\d, ]*\] +(\S+)(.*)$", text, re.MULTILINE)
    assert lines
    assert all(first.strip() for role, first in lines if role != "state")
    for layer in (1, 5):
        assert f"layer {layer}, of 5" in describe(plan, layer)
    values = json.loads(json.dumps(to_json(plan)))
    assert [layer["layer"] for layer in values["layers"]] == [1, 2, 3, 4, 5]
    assert len(values["parameters"]) == len(lines)


def test_json_is_for_programs(capsys):
    values = json.loads(shown(capsys, "deepnorm", "--depth=8", "--json"))
    assert values["layers"][7]["sublayers"][0]["skip_scale"] == 2.0
    assert values["layers"][7]["sublayers"][1]["branches"]["feed_forward"]["gains"]["fc1"] == (
        pytest.approx(64**-0.25)
    )
    assert values["layers"][0]["sublayers"][0]["norm_on_stream"]["norm"] == "layer"


@pytest.mark.parametrize("kind", show.KINDS)
def test_every_row_of_every_table_can_be_shown(kind, capsys):
    assert set(show.KINDS) == set(show_rows.TABLES)
    for row in show_rows.TABLES[kind].rows():
        if kind == "arrangement" and row.name != "highway":  # all are shown above
            continue
        text = shown(capsys, row.name, f"--table={kind}", "--code")
        assert row.equation in text
        assert row.source in text
    if kind in ("stream", "norm"):
        assert "def " in text


def test_code_is_the_functions(capsys):
    assert "jax.nn.sigmoid(x @ p" in shown(capsys, "highway", "--layer=1", "--code")
    assert "def layer_norm" not in shown(capsys, "rms", "--table=norm")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mix_lnn"], "no row 'mix_lnn' in any table; did you mean 'mix_ln'"),
        (
            ["mix_ln", "--depth=4", "--layer=5"],
            "--layer: 5 is none of 4 layers, which count from 1",
        ),
        (["mix_ln", "--layer=0"], "--layer: 0 is none of 12 layers"),
        (["mix_ln", "--heads=5"], "--heads: 5 does not divide --width 64"),
        (["mix_ln", "--depth=0"], "--depth: 0 must be over 0"),
        (["mix_ln", "--norm=lajer"], "norm: unknown name 'lajer'; did you mean 'layer'"),
        (["rms", "--table=stream"], "stream: unknown name 'rms'"),
        (["mix_ln", "--dept=3", "--x"], "unrecognized arguments"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main.main(["show", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["--length=1344"],
            [
                "backend +cpu",
                "by lengths +chunked; not cudnn: it needs a GPU, .*",
                "under a mask +chunked",
            ],
        ),
        (
            ["--length=1344", "--backend=gpu", "--precision=bfloat16"],
            ["backend +gpu", "by lengths +cudnn, if the GPU has it", "under a mask +xla"],
        ),
        (
            ["--length=1344", "--backend=gpu"],
            ["by lengths +xla; not cudnn: it computes in bfloat16 or float16, and this is float32"],
        ),
        (["--length=8", "--heads=16", "--precision=float16", "--backend=gpu"], ["these have 4"]),
    ],
)
def test_how_attention_of_a_length_is_computed(capsys, words, lines):
    text = shown(capsys, "pre_ln", *words)
    _, _, attention = text.partition("\nattention of ")
    for line in lines:
        assert re.search(line + "\n", attention), attention
    found = json.loads(shown(capsys, "pre_ln", "--json", *words))["attention"]
    assert all(value in text for value in found.values())


def test_what_attention_asks_for_is_read_with_a_length_only(capsys):
    assert main.main(["show", "pre_ln", "--backend=gpu"]) == 2
    assert "--backend: not read without --length" in capsys.readouterr().err
    assert main.main(["show", "rms", "--length=8"]) == 2
    assert "--length: not read for a row of the table norm" in capsys.readouterr().err
