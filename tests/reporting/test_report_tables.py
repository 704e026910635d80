import io

import numpy as np
import pytest
from rich.console import Console

from resnorm_jax.reporting.metrics import HEADLINES, score
from resnorm_jax.reporting.tables import (
    header_line,
    model_summary,
    parameter_groups,
    per_class_table,
    result_table,
    runtime_line,
)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


def text_of(console):
    return console.file.getvalue()


def cells(console, first):
    """The cells of the row that starts with this text."""
    line = next(x for x in text_of(console).splitlines() if x.strip("│┃ ").startswith(first))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_header_line():
    devices = [f"TFRT_CPU_{i}" for i in range(8)]
    versions = {"jax": "0.10.2", "flax": "0.12.8", "resnorm_jax": "0.1.0"}
    assert header_line("cpu", devices, versions) == (
        "cpu, 8 devices (TFRT_CPU), jax 0.10.2, flax 0.12.8, resnorm_jax 0.1.0"
    )
    assert (
        header_line("gpu", ["NVIDIA H100 80GB HBM3"], {}) == "gpu, 1 device (NVIDIA H100 80GB HBM3)"
    )
    assert header_line("gpu", ["A", "B", "A"], {}) == "gpu, 3 devices (A, B)"


def test_runtime_line_names_jax():
    import jax

    assert f"jax {jax.__version__}, flax " in runtime_line()
    assert runtime_line().startswith(jax.default_backend())


PARAMS = {
    "params": {
        "layers": {
            "attention": {"kernel": np.zeros((6, 8, 8)), "bias": np.zeros((6, 8))},
            "norm": {"scale": np.zeros((6, 8))},
        },
        "head": {"kernel": np.zeros((8, 8)), "bias": np.zeros(8)},
        "scale": np.zeros(()),
    }
}


def test_parameter_groups_use_two_path_elements():
    assert parameter_groups(PARAMS) == {
        "head/bias": [(8,)],
        "head/kernel": [(8, 8)],
        "layers/attention": [(6, 8), (6, 8, 8)],
        "layers/norm": [(6, 8)],
        "scale": [()],
    }


def test_square_layer_with_a_bias_is_not_called_stacked(console):
    model_summary({"a": {"dense": {"kernel": np.zeros((8, 8)), "bias": np.zeros(8)}}}, console)
    assert cells(console, "a/dense") == ["a/dense", "2", "8, 8x8", "72"]


def test_model_summary_counts(console):
    assert model_summary(PARAMS, console) == 6 * 64 + 48 + 48 + 64 + 8 + 1
    assert cells(console, "layers/attention") == [
        *("layers/attention", "2", "6x8, 6x8x8 (6 stacked layers)", "432"),
    ]
    assert cells(console, "head/kernel") == ["head/kernel", "1", "8x8", "64"]
    assert cells(console, "total") == ["total", "6", "", "553"]


def seed_score(seed, value):
    return {"seed": seed, **dict.fromkeys(HEADLINES, value)}


def test_result_table(console):
    report = {
        "title": "Vowels [test]",
        "seeds": [seed_score(0, 0.5), seed_score(1, 0.75), seed_score(2, None) | {"accuracy": 1.0}],
        "baselines": {"majority class": 0.125, "root [operator]": 0.36},
        "files": {"report": "runs/" + "x" * 120 + "/report.json", "curves": "runs/curves.png"},
    }
    result_table(report, console)
    assert "Vowels [test]" in text_of(console)
    assert cells(console, "seed 1") == ["seed 1", *["0.7500"] * 4]
    assert cells(console, "seed 2") == ["seed 2", "1.0000", "-", "-", "-"]
    assert cells(console, "mean") == ["mean", "0.7500", "-", "-", "-"]
    assert cells(console, "± sd") == ["± sd", "0.2500", "-", "-", "-"]
    assert cells(console, "majority class") == ["majority class", "0.1250", "", "", ""]
    assert cells(console, "root [operator]")[1] == "0.3600"
    assert f"report  {report['files']['report']}\n" in text_of(console)


def test_one_seed_has_no_spread_and_a_given_summary_is_shown(console):
    result_table({"seeds": [seed_score(0, 0.5)]}, console)
    assert "mean" not in text_of(console)
    summary = {name: {"mean": 0.1, "sd": 0.2} for name in HEADLINES}
    result_table({"seeds": [seed_score(0, 1.0), seed_score(1, 1.0)], "summary": summary}, console)
    assert cells(console, "mean")[1] == "0.1000"
    assert cells(console, "± sd")[1] == "0.2000"


def test_tables_fit_80_columns_and_ascii():
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=80)
    result_table(
        {
            "seeds": [seed_score(0, 0.5), seed_score(1, 0.5)],
            "baselines": {"an operator at the root of the tree": 0.1},
        },
        console,
    )
    console.file.flush()
    text = raw.getvalue().decode("ascii")
    assert "+/- sd" in text
    assert max(map(len, text.splitlines())) <= 80


def test_per_class_table(console):
    log_probs = np.log([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    per_class_table(score(log_probs, np.array([0, 1, 1]), ["no", "[yes]"]), console)
    assert cells(console, "no") == ["no", "0.5000", "1.0000", "0.6667", "1"]
    assert cells(console, "[yes]") == ["[yes]", "1.0000", "0.5000", "0.6667", "2"]
    assert cells(console, "macro F1") == ["macro F1", "", "", "0.6667", "3"]
