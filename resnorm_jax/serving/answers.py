"""From log-probabilities to what a server says: JSON for programs, a page for people."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.reporting import html
from resnorm_jax.reporting.html import Html, escape
from resnorm_jax.serving.questions import suffixes

STYLE = """
form { display: grid; gap: .8rem; max-width: 48rem; margin-top: 1rem; }
label { display: grid; gap: .2rem; }
textarea, input, button { font: inherit; box-sizing: border-box; max-width: 100%; }
textarea { width: 100%; padding: .4rem; }
button { justify-self: start; padding: .3rem 1.4rem; }
.error { border-left: 4px solid #c0392b; background: #c0392b22; padding: .5rem .8rem; }
.answer { border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem; }
.answer { margin: .8rem 0; max-width: 48rem; }
.answer h3 { margin: 0 0 .4rem; font-size: 1rem; }
.answer, .error { overflow-wrap: anywhere; }
.bar { display: grid; grid-template-columns: minmax(8rem, 30%) 1fr 4rem; }
.bar { gap: .6rem; align-items: center; }
.bar span + progress ~ span { text-align: right; font-variant-numeric: tabular-nums; }
progress { width: 100%; height: 1rem; accent-color: #2a7d46; }
.many { grid-template-columns: minmax(8rem, 30%) 1fr 3.6rem 4.6rem; gap: .4rem; }
.many progress { accent-color: #888; } .said progress { accent-color: #2a7d46; }
.said span:first-child { font-weight: bold; } .many span:last-child { color: #777; }
"""
SHOWN = 200  # characters of a text above its bars
EXAMPLES = {
    "features": "[[0.1, 0.2], [0.3, 0.4]]: one list a step, one number a channel",
    "tokens": "[3, 17, 5]: ids of tokens",
    "images": "[[[0.1], [0.2]], ...]: rows of pixels, one number a channel",
}


def answers(
    log_probs: np.ndarray,
    classes: Sequence[str],
    top: int,
    labels: Sequence[tuple[str, ...]] | None = None,
    thresholds: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Return ``class``, ``probability`` and the ``top`` classes of each row, most probable first.

    With ``labels``, of each row, these are in place of ``class`` and ``probability``, and each class
    has its threshold, of ``thresholds [K]``.
    """
    found = []
    for number, p in enumerate(np.exp(log_probs.astype(np.float64))):
        order = np.argsort(-p, kind="stable")[:top]
        told = [{"class": classes[i], "probability": round(float(p[i]), 6)} for i in order]
        if thresholds is not None:
            for i, one in zip(order, told, strict=True):
                one["threshold"] = round(float(thresholds[i]), 6)
        head: dict[str, Any] = told[0] if labels is None else {"labels": list(labels[number])}
        found.append({**head, "top": told})
    return found


def form(meta: Mapping[str, Any], text: str = "", top: int = 0, pair: str = "") -> Html:
    """Return the form: a text, a pair or numbers, or a file, and how many classes to show."""
    classes = len(meta["classes"])
    what, name, hint = (
        ("Text", "text", "one text")
        if meta["encoding"]
        else ("Numbers of one row, as JSON", "numbers", EXAMPLES[meta["kind"]])
    )
    files, second = ", ".join(suffixes(meta)), ""
    shown = "Labels" if meta.get("task") == "multi_label" else "Classes"
    if meta["encoding"].get("pair_column"):
        second = (
            '<label>Second text <textarea name="pair" rows="5" '
            'placeholder="the other text of the pair">'
            f"\n{escape(pair)}</textarea></label>"
        )
    return Html(
        '<form method="post" action="/" enctype="multipart/form-data">'
        f'<label>{escape(what)} <textarea name="{name}" rows="5" placeholder="{escape(hint)}">'
        f"\n{escape(text)}</textarea></label>{second}"
        f'<label>or a file of rows ({files}) <input type="file" name="file" accept="{files}">'
        "</label>"
        f'<label>{shown} to show <input type="number" name="top" min="1" max="{classes}" '
        f'value="{top or min(5, classes)}"></label>'
        '<button type="submit">Predict</button></form>'
    )


def bars(title: str, row: Mapping[str, Any]) -> Html:
    """Return the classes of a row, each with a bar as long as its probability.

    Of a row with any number of labels each bar has its threshold beside it, and those that are said
    stand out.
    """
    lines = "".join(_bar(one, row.get("labels")) for one in row["top"])
    said = ", ".join(row["labels"]) or "none" if "labels" in row else ""
    labels = f"<p>Labels: <strong>{escape(said)}</strong></p>" if said else ""
    return Html(f'<div class="answer"><h3>{escape(title)}</h3>{labels}{lines}</div>')


def _bar(one: Mapping[str, Any], labels: Sequence[str] | None) -> str:
    name, kind, least = escape(one["class"]), "bar", ""
    if labels is not None:
        kind = "bar many said" if one["class"] in labels else "bar many"
        least = f"<span>\u2265 {100 * one['threshold']:.1f} %</span>"
    return (
        f'<div class="{kind}"><span>{name}</span>'
        f'<progress max="1" value="{one["probability"]}" aria-label="{name}"></progress>'
        f"<span>{100 * one['probability']:.1f} %</span>{least}</div>"
    )


def page(meta: Mapping[str, Any], note: str, parts: Sequence[str], shown: Html) -> Html:
    """Return the whole page.

    Args:
      meta: of the run.
      note: on the probabilities.
      parts: what is between the form and the note: answers, or an error.
      shown: the form.
    """
    rows = '[["text", "second text"], ...]' if meta["encoding"].get("pair_column") else "[...]"
    api = (
        f'POST /predict takes {{"rows": {rows}, "top": 3}} as JSON and gives the same; GET /health.'
    )
    style = Html(f"<style>{STYLE}</style>")
    below = [html.paragraph(line) for line in (*_labels(meta), note, api)]
    return html.page(str(meta["name"]), [style, shown, *parts, *below])


def _labels(meta: Mapping[str, Any]) -> list[str]:
    if meta.get("task") != "multi_label":
        return []
    return ["A row has each label whose probability is at least the one beside its bar (\u2265)."]


def error(line: str) -> Html:
    """Return what is said of a mistake."""
    return Html(f'<p class="error" role="alert">{escape(line)}</p>')


def _hash(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


# A page loads nothing and runs nothing: its own two styles are known by their digests.
_STYLES = " ".join(f"'sha256-{_hash(style)}'" for style in (html.STYLE, STYLE))
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {_STYLES}; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def short(text: str) -> str:
    """Return the beginning of a text, on one line."""
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
