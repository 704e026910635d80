"""The page of one explained prediction."""

from collections.abc import Mapping
from typing import Any

from resnorm_jax.lab.explain.figures import draw_input, draw_parts, draw_places
from resnorm_jax.reporting import html

MOST = 10  # classes and positions in tables
ROLL_OUT = (
    "Attention of all layers is multiplied, each half attention (the mean over heads), half identity "
    "for the skip. The dashed line, or an even color, is what a model would give that looks at all "
    "positions alike. Roll-out says where information could come from; it leaves out what norms, "
    "values and feed-forward networks do with it, and the half for the skip is a convention, not this "
    "model's scale."
)
PARTS = (
    "Each bar is what one branch, by what it wrote into the stream, adds to the logit of the predicted "
    "class; to the left it speaks against it. The grey bar is what is there without the parts. Only "
    "the way through the stream to the head is counted: a branch that matters because later branches "
    "read it has a small bar here, and its worth shows in theirs."
)
STRIDE = (
    "A token stands for {kernel} steps, and the next begins {stride} steps later. Attention is between "
    "tokens; the share of each is spread evenly over the steps that it sees. Positions of the stream, "
    "further down, are tokens."
)
PLACES = (
    "The same contributions, by the position at which they were written. A position late in the model "
    "holds what attention brought there, so it need not stand for that position of the input."
)


def page(found: Mapping[str, Any]) -> html.Html:
    """Return the page of an explanation."""
    told = found["prediction"]
    known = f", labelled {told['label']}" if told["label"] is not None else ""
    title = f"Row {found['row']}: {told['class']} ({100 * told['probability']:.1f} %){known}"
    best = sorted(told["probabilities"].items(), key=lambda pair: -pair[1])[:MOST]
    rows = [[name, 100 * p, told["logits"][name]] for name, p in best]
    parts = [
        html.heading("Prediction"),
        html.table(["class", "probability (%)", "logit"], rows),
        *_positions(found),
        *_parts(found),
    ]
    return html.page(title, parts, found["run"])


def _positions(found: Mapping[str, Any]) -> list[html.Html]:
    parts = [
        html.heading("Which positions: attention roll-out"),
        html.paragraph(
            f"{found['attentions']} attentions; pooling {found['pooling']}: {found['pooling_rule']}. "
            f"Source: {found['roll_out_source']}."
        ),
    ]
    if found["class_token_share"] is not None:
        share = f"{100 * found['class_token_share']:.1f} %"
        parts.append(html.paragraph(f"The class token itself holds {share}; the rest is below."))
    if found["stride"] > 1:
        parts.append(html.paragraph(STRIDE.format(**found)))
    drawn = draw_input(found)
    if drawn is not None:
        parts.append(html.figure(drawn, "Input, and the share of each position", ROLL_OUT))
    elif found["kind"] == "tokens":
        parts += [strip(found["positions"], found["shares"]), html.paragraph(ROLL_OUT)]
    order = sorted(range(len(found["shares"])), key=lambda i: -found["shares"][i])[:MOST]
    rows = [[found["positions"][i], i + 1, 100 * float(found["shares"][i])] for i in order]
    caption = "Positions with the largest share"
    return [*parts, html.table(["input", "position", "share (%)"], rows, caption)]


def strip(labels: Any, shares: Any) -> html.Html:
    """Return tokens on grounds as dark as their share; the largest is darkest."""
    top = max(map(float, shares)) or 1.0
    spans = [
        f'<span title="{100 * float(share):.2f} %" '
        f'style="background: rgba(230, 126, 34, {float(share) / top:.3f})">{html.escape(label)}</span>'
        for label, share in zip(labels, shares, strict=True)
    ]
    return html.Html(f"<p>{' '.join(spans)}</p>")


def _parts(found: Mapping[str, Any]) -> list[html.Html]:
    attribution = found["attribution"]
    text = attribution["about"]
    parts = [
        html.heading("Which layers: parts of the logit"),
        html.paragraph(f"{text[0].upper()}{text[1:]}. Source: {attribution['source']}."),
        html.paragraph(*_check(attribution)),
    ]
    for drawn, caption, how in (
        (draw_parts(attribution, found["prediction"]["class"]), "Parts of the logit", PARTS),
        (draw_places(found), "Parts of the logit by position", PLACES),
    ):
        if drawn is not None:
            parts.append(html.figure(drawn, caption, how))
    rows = [
        [p["layer"] or "", p["branch"], p["contribution"], 100 * p["share"]]
        for p in attribution["parts"]
    ]
    header = ["layer", "branch", "contribution (logit)", "share of all sizes (%)"]
    return [*parts, html.details("All parts as numbers", [html.table(header, rows)])]


def _check(attribution: Mapping[str, Any]) -> list[str]:
    total = attribution["logit"] - attribution["start"] - attribution["residual"]
    kind = "good" if attribution["complete"] else "bad"
    mark = html.verdict("complete" if attribution["complete"] else "not complete", kind)
    return [
        f"Logit {attribution['logit']:.4f} = {attribution['start']:.4f} "
        f"({attribution['starts_from']}) + {total:.4f} (sum of parts) + "
        f"{attribution['residual']:.2e} (left over) ",
        mark,
    ]
