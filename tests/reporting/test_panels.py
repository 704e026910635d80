"""Lines on a page: each is seen, and the figure is narrow enough for a phone."""

import numpy as np
import pytest

from resnorm_jax.reporting.panels import WIDTH, Line, draw_panels, looks

pytest.importorskip("matplotlib")
X = np.arange(5)


def test_twelve_lines_in_one_place_differ_in_width_or_dashes_and_thin_ones_are_above():
    styles = list(looks([f"line {i}" for i in range(12)]).values())
    assert len({(s["linewidth"], s["linestyle"]) for s in styles}) == 12
    by_height = sorted(styles, key=lambda s: s["zorder"])
    widths = [s["linewidth"] for s in by_height]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("count", [1, 10, 20, 65])
def test_every_line_has_a_color_or_a_mark_of_its_own(count):
    styles = looks([f"line {i}" for i in range(count)]).values()
    assert len({(tuple(s["color"]), s["marker"]) for s in styles}) == count


def test_panels_share_one_legend_and_predictions_are_dotted():
    lines = [Line("a", X, X + 1.0), Line("b", X, X + 1.0), Line("a", X, X + 2.0, predicted=True)]
    figure = draw_panels({"one": lines, "two": lines, "three": lines}, x_label="x", y_label="y")
    assert figure.get_size_inches()[0] == WIDTH <= 6
    first = figure.axes[0]
    assert [line.get_linestyle() for line in first.lines] == ["-", "-", ":"]
    assert first.lines[0].get_linewidth() > first.lines[1].get_linewidth()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a", "b", "theory"]
    assert all(float(tick).is_integer() for tick in figure.axes[2].get_xticks())
