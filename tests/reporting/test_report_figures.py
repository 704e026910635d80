import sys

import numpy as np
import pytest

from resnorm_jax.reporting import figures


@pytest.fixture
def drawn(monkeypatch):
    """Keep the figure that was saved, to look into."""
    pytest.importorskip("matplotlib")
    kept, save = [], figures.save_figure
    monkeypatch.setattr(figures, "save_figure", lambda f, p: (kept.append(f), save(f, p)))
    return kept


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def curve_rows(seeds):
    rows = [
        {"seed": s, "step": t, "split": p, "loss": 1 / t + s, "accuracy": t / 100}
        for s in range(seeds)
        for t in range(40, 0, -10)  # out of order: must be sorted
        for p in ("train", "valid", "test")
    ]
    return [*rows, {"seed": 0, "step": 50, "split": "train", "loss": None}]


@pytest.mark.parametrize("seeds", [1, 12])
def test_curves(tmp_path, drawn, seeds):
    path = tmp_path / "curves.png"
    assert figures.draw_curves(curve_rows(seeds), path, "a run of $\\x$ [x]")
    assert is_png(path)
    loss, accuracy = drawn[0].axes
    solid = [line for line in loss.lines if line.get_linestyle() == "-"]
    dashed = [line for line in loss.lines if line.get_linestyle() == "--"]
    assert (len(solid), len(dashed)) == (seeds, seeds)
    np.testing.assert_allclose(solid[0].get_xdata(), [10, 20, 30, 40, 50])
    np.testing.assert_allclose(solid[0].get_ydata(), [0.1, 0.05, 1 / 30, 0.025, np.nan])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [10, 20, 30, 40])
    assert loss.get_xlabel() == "training step (optimizer updates)"
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == (
        *("cross-entropy loss (nats)", "accuracy (%)"),
    )
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    shown = ["seed 0"] if seeds == 1 else ["seed 0", "seed 11"]
    assert names == [*shown, "training", "validation"]


def test_curves_without_validation_or_rows(tmp_path, drawn):
    rows = [r for r in curve_rows(1) if r["split"] == "train" and r["step"] == 10]
    assert figures.draw_curves(rows, tmp_path / "a.png", "one point")
    assert drawn[0].axes[0].lines[0].get_marker() == "o"
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["seed 0", "training"]
    assert figures.draw_curves([], tmp_path / "b.png", "nothing yet")


def test_a_loss_that_falls_far_has_a_logarithmic_axis_and_scores_are_marked(tmp_path, drawn):
    rows = [
        {"seed": s, "step": t, "split": "train", "loss": 2.0 / t, "accuracy": 1.0}
        for s in (0, 1)
        for t in (1, 10, 100)
    ]
    scores = [{"seed": s, "step": 100, "accuracy": 0.9 + 0.05 * s, "log_loss": 0.3} for s in (0, 1)]
    assert figures.draw_curves(rows, tmp_path / "a.png", "far", scores, "valid")
    loss, accuracy = drawn[0].axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    for axes, values in ((loss, (0.3, 0.3)), (accuracy, (90, 95))):
        stars = [line for line in axes.lines if line.get_marker() == "*"]
        assert [line.get_xdata() for line in stars] == [[100], [100]]
        np.testing.assert_allclose([line.get_ydata()[0] for line in stars], values)
        assert stars[0].get_color() == axes.lines[0].get_color() != stars[1].get_color()
    assert [text.get_text() for text in accuracy.texts] == ["valid: 92.50 % (mean)"]
    assert drawn[0].legends[0].get_texts()[-1].get_text() == "valid score"

    near = [{**row, "loss": 2.0 - row["step"] / 100} for row in rows]
    assert figures.draw_curves(near, tmp_path / "b.png", "near")
    assert drawn[1].axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("size", [2, 21])
def test_confusion(tmp_path, drawn, size):
    matrix = np.diag(np.arange(size) * 10)  # class 0 has no examples
    path = tmp_path / "confusion.png"
    names = [f"a $\\x$ class name, number {i}" for i in range(size)]
    assert figures.draw_confusion(matrix.tolist(), names, path, "test $\\x$")
    assert is_png(path)
    axes = drawn[0].axes[0]
    shares = axes.images[0].get_array()
    assert shares.mask[0].all()
    np.testing.assert_allclose(np.diag(shares)[1:].filled(-1), 1.0)
    counts = [text.get_text() for text in axes.texts]
    assert counts == (["0", "0", "0", "10"] if size == 2 else [])
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert len(set(labels)) == size
    assert labels[1] == "a $\\x$ cl...umber 1"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_pyplot_is_left_alone(tmp_path, drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert figures.draw_curves(curve_rows(1), tmp_path / "a.png", "t")
    assert figures.draw_confusion([[1]], ["only"], tmp_path / "b.png", "t")


def test_missing_matplotlib_is_noted_once(tmp_path, monkeypatch, capsys):
    figures._note.cache_clear()
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = tmp_path / "curves.png"
    assert not figures.draw_curves(curve_rows(1), path, "t")
    assert not figures.draw_curves(curve_rows(1), path, "t")
    assert capsys.readouterr().out == "curves.png not drawn: pip install 'resnorm_jax[plots]'\n"
    assert not figures.draw_confusion([[1]], ["a"], tmp_path / "confusion.png", "t")
    assert not path.exists()
