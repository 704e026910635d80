"""The page of a compressed run: how much of it can go before it is noticed."""

from collections.abc import Mapping
from typing import Any

from resnorm_jax.lab.pruning.figures import draw_shares
from resnorm_jax.lab.pruning.measure import METHODS
from resnorm_jax.reporting import html

HOW_TO_READ = (
    "Each point is the same trained model, made smaller and scored once on the test rows; nothing is "
    "trained again. To the right all of it is kept. A method that stays flat further to the left can "
    "take away more. The dashed line is what guessing the commonest class scores: a point near it has "
    "lost what was learned."
)
LAYER_HOW = (
    "Each row is the whole model without one layer. A layer whose absence costs little accuracy and "
    "little log loss does what others do too, or little; the layers removed above were chosen by the "
    "log loss on the {choosing} rows, never by the test rows."
)


def page(report: Mapping[str, Any]) -> html.Html:
    """Return the page of a report of ``resnorm lab prune``."""
    parts = [
        html.paragraph(
            f"Whole model: accuracy {percent(report['whole']['accuracy'])}, log loss "
            f"{report['whole']['log_loss']:.4f} on {report['test_rows']} test rows, "
            f"{report['parameters']:,} parameters, {report['kernel_weights']:,} of them kernel "
            f"weights. Majority class: {percent(report['majority'])}. Layers are chosen on "
            f"{report['choosing_rows']} {report['choosing']} rows."
        ),
        html.heading("Accuracy against share kept"),
    ]
    drawn = draw_shares(curves(report), report["majority"], report["title"])
    if drawn is not None:
        caption = "Accuracy on test rows against the share of the model's size that is kept"
        parts.append(html.figure(drawn, caption, HOW_TO_READ))
    for method in METHODS:
        if method.name in report["methods"]:
            parts += _method(method, report)
    return html.page(f"Compression of {report['title']}", parts, report["run"])


def curves(report: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Return each method's points: share of the size kept, accuracy."""
    return {
        name: [(p["size_kept"], p["accuracy"]) for p in found["points"]]
        for name, found in report["methods"].items()
    }


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.2f} %"


def _method(method: Any, report: Mapping[str, Any]) -> list[html.Html]:
    found = report["methods"][method.name]
    layered = any("removed" in p for p in found["points"])
    header = [f"{method.kept} kept (%)", "size kept (%)", "accuracy (%)", "log loss"]
    rows = [
        [100 * p["keep"], 100 * p["size_kept"], 100 * p["accuracy"], p["log_loss"]]
        + ([", ".join(map(str, p["removed"])) or "none"] if layered else [])
        for p in found["points"]
    ]
    parts = [
        html.heading(method.name),
        html.paragraph(f"{method.about[0].upper()}{method.about[1:]}. Source: {method.source}."),
        html.table(header + ["layers removed, in this order"] * layered, rows),
    ]
    if "rms_error" in found:
        parts.append(
            html.paragraph(
                f"Root mean square error of a weight: {percent(found['rms_error'])} of the weights' "
                f"root mean square; largest error {found['largest_step']:.3f} of a level. The size "
                "counts 8 bits a kernel weight, 32 for each scale and each other parameter."
            )
        )
    return parts + (_one_removed(found, report) if "one_removed" in found else [])


def _one_removed(found: Mapping[str, Any], report: Mapping[str, Any]) -> list[html.Html]:
    whole = report["whole"]
    rows = [
        [
            p["layer"], 100 * p["accuracy"], 100 * (p["accuracy"] - whole["accuracy"]),
            p["log_loss"], p["choosing_log_loss"],
        ]
        for p in found["one_removed"]
    ]  # fmt: skip
    header = [
        "layer removed", "accuracy (%)", "change (points)", "log loss",
        f"log loss, {report['choosing']} rows",
    ]  # fmt: skip
    how = LAYER_HOW.format(choosing=report["choosing"])
    return [html.heading("One layer removed", 3), html.table(header, rows), html.paragraph(how)]
