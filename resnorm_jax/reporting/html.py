"""A page that holds all it shows: text, tables and figures in one HTML file, no network needed.

Every function takes plain text, which is escaped, or `Html`, which is not, and returns `Html`.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from resnorm_jax.reporting.files import write_bytes
from resnorm_jax.reporting.tables import runtime_line

KINDS = ("good", "fair", "bad", "none")
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; margin-bottom: .2rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p, li { max-width: 48rem; }
.subtitle, figcaption { color: #777; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0 1rem; font-size: .92rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
.how { border-left: 3px solid var(--line); padding-left: .8rem; max-width: 48rem; }
.verdict { padding: .05rem .5rem; border-radius: 1rem; font-size: .85rem; white-space: nowrap; }
.good { background: #2a7d4633; } .fair { background: #b8860b33; } .bad { background: #c0392b33; }
.none { background: #8883; }
pre { background: var(--soft); padding: .6rem .8rem; overflow-x: auto; border-radius: 4px; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
details { margin: .8rem 0; } summary { cursor: pointer; }
td small { display: block; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; } table { font-size: .8rem; } th, td { padding: .2rem; }
  th.number { white-space: normal; }
}
"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: Any) -> Html:
    """Return ``text`` as HTML; what is `Html` already stays."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def page(title: str, parts: Iterable[str], subtitle: str = "") -> Html:
    """Return a whole document.

    Args:
      title: of the window and the first heading.
      parts: what stands in it, in order.
      subtitle: one line under the title; the backend and versions stand there too.
    """
    name = escape(title)
    lines = [line for line in (subtitle, runtime_line()) if line]
    under = "".join(f'<div class="subtitle">{escape(line)}</div>' for line in lines)
    body = "\n".join(escape(part) for part in parts)
    return Html(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{name}</h1>\n{under}\n{body}\n</body>\n</html>\n"
    )


def anchor(text: str) -> str:
    """Return the name by which a heading can be linked to: letters and digits of any script."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def heading(text: str, level: int = 2) -> Html:
    """Return a heading that `contents` can link to."""
    return Html(f'<h{level} id="{anchor(text)}">{escape(text)}</h{level}>')


def contents(headings: Iterable[tuple[str, str]]) -> Html:
    """Return links to headings: pairs of a heading's text and a note beside the link."""
    items = "".join(
        f'<li><a href="#{anchor(text)}">{escape(text)}</a> {escape(note)}</li>'
        for text, note in headings
    )
    return Html(f"<ul>{items}</ul>")


def paragraph(*parts: Any) -> Html:
    """Return a paragraph."""
    return Html(f"<p>{''.join(escape(part) for part in parts)}</p>")


def code(text: str) -> Html:
    """Return a block of code or a command."""
    return Html(f"<pre><code>{escape(text)}</code></pre>")


def verdict(text: str, kind: str) -> Html:
    """Return a short judgement on a colored ground; ``kind`` is one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: one of {KINDS}")
    return Html(f'<span class="verdict {kind}">{escape(text)}</span>')


def details(summary: str, parts: Iterable[str]) -> Html:
    """Return parts that are shown when the summary is clicked."""
    inner = "\n".join(escape(part) for part in parts)
    return Html(f"<details><summary>{escape(summary)}</summary>\n{inner}\n</details>")


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str = "") -> Html:
    """Return a table; a column whose cells are all numbers is aligned to the right.

    Args:
      header: names of the columns.
      rows: cells: text, `Html`, numbers (four digits are shown), or None, shown as a dash.
      caption: above the table, as wide as the page.
    """
    body = [list(row) for row in rows]
    for row in body:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under {len(header)} columns: {row}")
    right = [
        bool(body) and all(row[i] is None or _is_number(row[i]) for row in body)
        for i in range(len(header))
    ]
    top = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    head = _row("th", header, right)
    lines = "\n".join(_row("td", [_cell(cell) for cell in row], right) for row in body)
    return Html(
        f'<figure class="table">{top}<div class="scroll"><table>\n<thead>{head}</thead>\n'
        f"<tbody>{lines}</tbody></table></div></figure>"
    )


def figure(drawn: Any, caption: str, how_to_read: str = "") -> Html:
    """Return a figure with its caption.

    Args:
      drawn: a ``matplotlib.figure.Figure``.
      caption: what it shows; also what a reader who cannot see it is told.
      how_to_read: how to read it, for people who have not seen one before.
    """
    from matplotlib import rc_context  # it made the figure, so it is there

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "resnorm_jax"}):  # else the same figure has other names
        drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    how = f'<p class="how">{escape(how_to_read)}</p>' if how_to_read else ""
    return Html(
        f'<figure><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption>{how}</figure>"
    )


def write_page(path: str | Path, text: Html) -> None:
    """Write a page, whole or not at all."""
    write_bytes(path, text.encode())


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell(cell: Any) -> Any:
    if cell is None:
        return "-"
    if isinstance(cell, str) and cell.isidentifier():  # a name may go on in a second line
        return Html(cell.replace("_", "_<wbr>"))
    return f"{cell:.4g}" if isinstance(cell, float) else cell


def _row(tag: str, cells: Sequence[Any], right: Sequence[bool]) -> str:
    classes = [' class="number"' if number else "" for number in right]
    inner = "".join(
        f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(classes, cells, strict=True)
    )
    return f"<tr>{inner}</tr>"
