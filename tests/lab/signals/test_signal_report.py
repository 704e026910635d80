"""The command, its files and its mistakes; theory's curves; the summary."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnorm_jax import arrangements
from resnorm_jax.cli import train
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.lab.signals import FEATURES, STATISTICS, Signals, summary
from resnorm_jax.lab.signals.report import layer_tables, selected, short, signal_page
from resnorm_jax.lab.signals.theory import PREDICTIONS, predictions

CONFIG = f"--config={Path(__file__).parents[3] / 'configs' / 'japanese_vowels.py'}"
TINY = f"{CONFIG}:smoke,width=8,batch_size=8,buckets=1"
LEVELS = np.arange(5)
FORWARD = [row.name for row in STATISTICS.rows() if row.needs == "forward"]


@pytest.mark.table
def test_the_command_prints_and_writes(tmp_path, capsys):
    output = tmp_path / "out"
    arguments = [TINY, "--arrangements=pre_ln,peri_ln", f"--only={','.join(FORWARD)}"]
    assert resnorm(["lab", "signal", *arguments, f"--output={output}"]) == 0
    printed = capsys.readouterr().out
    assert "cpu, " in printed.splitlines()[0]
    assert "sandwich_ln: Stream and branches" in printed
    document = json.loads((output / "signal.json").read_text())
    assert list(document["arrangements"]) == ["pre_ln", "sandwich_ln"]
    found = document["arrangements"]["pre_ln"]
    assert set(found["values"]) == set(FORWARD)
    assert len(found["values"]["stream_power"][""]) == 2
    assert document["config"]["model"]["width"] == 8
    page = (output / "signal.html").read_text()
    for name in FORWARD:
        row = STATISTICS.get(name)
        if row.axis != "none":
            assert row.how_to_read.split("'")[0] in page.replace("&#x27;", "'")
    assert "2002.04745" in page
    assert page.count("<figure>") == sum(STATISTICS.get(n).axis != "none" for n in FORWARD)
    assert "http" not in page


@pytest.mark.table
def test_a_checkpoint_is_measured(tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main(["train.py", f"{TINY},epochs=1", f"--workdir={run}"]) == 0
    capsys.readouterr()
    assert resnorm(["lab", "signal", str(run), "--only=loss", f"--output={tmp_path / 'a'}"]) == 0
    start = f"{TINY},epochs=1"
    assert resnorm(["lab", "signal", start, "--only=loss", f"--output={tmp_path / 'b'}"]) == 0
    after, before = (
        json.loads((tmp_path / name / "signal.json").read_text()) for name in ("a", "b")
    )
    assert "step 34" in after["about"]
    assert "initialization" in before["about"]
    losses = [d["arrangements"]["pre_ln"]["values"]["loss"][""] for d in (after, before)]
    assert losses[0] < losses[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TINY, "--arrangements=pre_nl"], "did you mean 'pre_ln'?"),
        ([TINY, "--only=stream_powr"], "did you mean 'stream_power'?"),
        (["--config=configs/none.py"], "no config file"),
        (["nowhere"], "not a run directory"),
        (["nowhere", "--arrangements=pre_ln"], "--arrangements: not read"),
        ([TINY, "--checkpoint=best"], "--checkpoint: not read"),
        ([TINY, "--rows=0"], "--rows: 0"),
        ([TINY, "--nothing"], "--nothing"),
        ([f"{TINY},heads=3"], "heads"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path):
    output = tmp_path / "out"
    assert resnorm(["lab", "signal", *arguments, f"--output={output}"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not output.exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    assert resnorm(["lab", "signal", TINY, f"--output={tmp_path}"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


# --- Theory ---


def curve(statistic, name, depth=4, start=2.0):
    (row,) = predictions(statistic, name)
    return row.curve(LEVELS, depth, start)


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("pre_ln", [[2, 2.5, 3, 3.5, 4], [2, 3.5, 5, 6.5, 8]]),
        ("post_ln", [[2, 1, 1, 1, 1]]),
        ("sandwich_ln", [[2, 4, 6, 8, 10]]),
        ("rezero", [[2, 2, 2, 2, 2]]),
        ("variance_preserving", [[2, 4 / 3, 6 / 5, 8 / 7, 10 / 9]]),
        ("layer_norm_scaling", [2 + np.array([0, 6, 9, 11, 12.5]) / 12,
                                2 + np.array([0, 6, 9, 11, 12.5]) / 4]),
        ("depth_scaled", [2 + 0.245 * LEVELS, 2 + 0.735 * LEVELS]),
    ],
)  # fmt: skip
def test_curves_by_hand(name, edges):
    found = curve("stream_power", name)
    assert len(found) == len(edges)
    for line, expected in zip(found, edges, strict=True):
        np.testing.assert_allclose(line, expected, rtol=1e-12)


def test_variance_preserving_is_its_recursion():
    """x <- sqrt((i - 1) / i) x + y / sqrt(i), i from 2: as the arrangement's own rules say."""
    row, power = arrangements.get("variance_preserving"), 2.0
    for sublayer in range(1, 9):
        place = arrangements.Place(layers=4, sublayer=sublayer, sublayers=8)
        power = row.skip_scale(place) ** 2 * power + row.branch_scale(place) ** 2
    np.testing.assert_allclose(curve("stream_power", "variance_preserving")[0][4], power)


def test_predictions_name_what_there_is():
    for row in PREDICTIONS:
        assert row.statistic in STATISTICS.names()
        assert row.source
        assert row.setup
        for name in row.arrangements:
            assert arrangements.get(name).name == name
            assert len(predictions(row.statistic, name)) == 1


# --- Summary and tables ---


def signals():
    layer = np.array([1e-2, 1e-3, 1e-4])
    return Signals(
        {
            "stream_power": {"": np.array([1.0, 10.0, 100.0, 1000.0])},
            "branch_ratio": {"a": np.array([1.0, 1.0, 0.1]), "b": np.array([1.0, np.nan, 0.001])},
            "stream_gradient": {"x": np.array([0.0, 1.0, 1.0, 1.0])},
            "layer_gradient": {"query": layer, "value": np.array([1.0, 10.0, np.nan])},
            "jacobian_mean_square": {"mean": np.array(2.0), "standard error": np.array(0.1)},
        },
        depth=3,
        notes={},
    )


def test_summary_by_hand():
    signal = signals()
    signal.values["layer_gradient"]["value"][2] = 1e-3
    found = summary(signal)
    expected = {
        "power": 3, "growth": 3, "late_branches": -2, "gradient_slope": 40, "gradient_start": -40,
        "query_value": -1, "gradient_spread": 4, "mean_square": 2,
    }  # fmt: skip
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12)
    assert {f.needs for f in FEATURES} <= set(STATISTICS.names())


def test_the_overview_has_plain_words_in_tables_that_a_phone_can_show():
    signal = signals()
    signal.values["layer_gradient"]["value"][2] = 1e-3
    page = signal_page({"pre_ln": signal}, "title", "about")
    overview = page.partition(">Overview<")[2].partition("<details>")[0]
    headers = [h.split("<th>")[1:] for h in overview.split("</thead>")[:-1]]
    assert [len(h) for h in headers] == [4, 5, 2]
    assert all(len(h) <= 5 for h in headers)
    assert "<th>power at the end, log10</th>" in overview
    assert not any(feature.name in overview for feature in FEATURES if "_" in feature.name)
    assert "<figcaption>Gradient</figcaption>" in overview


def test_tables_show_layers_beside_levels():
    (_, header, cells), (title, groups, gradients) = layer_tables(signals())
    assert header[:2] == ["layer", "stream power"]
    assert [row[0] for row in cells] == ["0", "1", "2", "3"]
    assert [row[2] for row in cells] == ["-", "1", "1", "0.1"]
    assert (title, groups) == ("gradient of parameters", ["layer", "query", "value"])
    assert gradients == [["1", "0.01", "1"], ["2", "0.001", "10"], ["3", "0.0001", "-"]]
    assert selected(1000)[0] == 0
    assert selected(1000)[-1] == 1000
    assert len(selected(1000)) == 13
    assert short(float("nan")) == "-"
