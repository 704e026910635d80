"""Pages: escaped, whole, without anything that would be fetched."""

import base64
import re
from html.parser import HTMLParser

import pytest

from resnorm_jax.reporting import html


class Reader(HTMLParser):
    """Collects tags and text, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def drawn():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def test_a_page_is_whole_and_fetches_nothing():
    parts = [
        html.contents([("First & last", "a note")]),
        html.heading("First & last"),
        html.paragraph("x < y ", html.verdict("holds", "good")),
        html.table(["name", "value"], [["<b>", 1.23456], ["c", None]], "a caption"),
        html.figure(drawn(), "a figure", "down is less"),
        html.details("more", [html.code("resnorm lab signal")]),
    ]
    text = html.page("A <title>", parts, "under")
    reader = read(text)
    assert text.startswith("<!doctype html>")
    shown = ["A <title>", "x < y", "<b>", "1.235", "jax"]  # rounded; versions under the title
    assert [part for part in shown if part not in reader.text] == []
    links = [a[k] for _, a in reader.tags for k in ("src", "href") if k in a]
    assert [link.partition(",")[0] for link in links] == [
        "#first-last",
        "data:image/svg+xml;base64",
    ]
    assert {"id": "first-last"} in [a for tag, a in reader.tags if tag == "h2"]
    image = base64.b64decode(links[1].partition(",")[2]).decode()
    assert "<svg" in image
    assert not re.search(r"(src|href)=.?https?:", text)


def test_the_same_figure_gives_the_same_bytes():
    assert html.figure(drawn(), "c") == html.figure(drawn(), "c")


def test_numbers_stand_right_and_words_left():
    text = html.table(["a", "b", "c"], [["x", 1, True], ["y", None, False]])
    assert [("class" in a) for tag, a in read(text).tags if tag == "td"] == [False, True, False] * 2


def test_mistakes_of_the_caller():
    with pytest.raises(ValueError, match="one of"):
        html.verdict("x", "great")
    with pytest.raises(ValueError, match="1 cells under 2"):
        html.table(["a", "b"], [["x"]])


def test_a_page_is_written_whole(tmp_path):
    html.write_page(tmp_path / "a" / "page.html", html.page("T", []))
    assert read((tmp_path / "a" / "page.html").read_text()).tags[0][0] == "html"
