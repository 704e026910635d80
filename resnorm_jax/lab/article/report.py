"""The article's report: run every part, judge every claim, write a page and the numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnorm_jax.lab.article.claims import CLAIMS, Claim
from resnorm_jax.lab.article.sections import PARTS, Part, subject
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.reporting import html
from resnorm_jax.reporting.files import write_json

Found = dict[str, Any]
TITLE = "The article, reproduced"
DIFFERENCES = (
    "Two layer norms: the formula (A3) divides by sqrt(var + eps), the listing (A4) by the unbiased "
    "deviation + eps; A4 is A3 times sqrt((N - 1) / N), 0.894 for five features, 0.999 for 512.",
    "A8, section 4.2: (X - mu) / sqrt(var + eps) * (W X + b) is a misprint of '* W + b' and is not "
    "built.",
    "L3 has no activation between its linear layers, though the text says ReLU: as printed by "
    "default, activation='relu' for the text's.",
    "L5 cannot run as printed: (32, 100) is added to (32, 512), and a batch is read as one sequence. "
    "Here the skip is projected and rows stay apart.",
)


def run(settings: Settings, told: Callable[[int, str], None] = lambda n, title: None) -> Found:
    """Run all parts in order; return what each found, by key."""
    found: dict[str, Found] = {}
    for n, part in enumerate(PARTS):
        told(n, part.title)
        found[part.key] = part.run(settings, found)
    told(len(PARTS), "done")
    return found


def judged(found: dict[str, Found]) -> list[dict[str, Any]]:
    """Return a row for each claim: what it is, how and by what rule it was judged, and how."""
    rows = []
    for claim in CLAIMS:
        numbers = found[claim.part]["numbers"]
        verdict, kind = claim.rule.verdict(numbers)
        used = [check.number for check in (*claim.rule.holds, *claim.rule.within)]
        rows.append(
            {
                "id": claim.id, "claim": claim.text, "section": subject(claim.section),
                "how": claim.how, "rule": str(claim.rule), "source": claim.source,
                "verdict": verdict, "kind": kind,
                "measured": {name: numbers[name] for name in dict.fromkeys(used)},
            }
        )  # fmt: skip
    return rows


def write(folder: Path, found: dict[str, Found], about: dict[str, Any]) -> list[dict[str, Any]]:
    """Write ``report.html`` and ``report.json`` under ``folder``; return the judged claims."""
    rows = judged(found)
    results = {key: {k: v for k, v in each.items() if k != "params"} for key, each in found.items()}
    write_json(folder / "report.json", {**about, "claims": rows, "results": results})
    html.write_page(folder / "report.html", page(found, rows))
    return rows


def page(found: dict[str, Found], rows: list[dict[str, Any]]) -> html.Html:
    """Return the whole page."""
    summary = [
        [row["id"], row["claim"], row["section"], html.verdict(row["verdict"], row["kind"])]
        for row in rows
    ]
    parts = [
        html.paragraph(
            "Every number and claim of the article, measured with this library. A verdict comes "
            "from a rule that stands beside its claim. Rules of C1 to C8 were written before their "
            "full runs, those of L4 and L6 after theirs."
        ),
        html.table(["", "claim", "section of the article", "verdict"], summary),
        html.heading("What the article prints and what is right"),
        html.table(["difference"], [[text] for text in DIFFERENCES]),
    ]
    for part in PARTS:
        own = [(c, r) for c, r in zip(CLAIMS, rows, strict=True) if c.part == part.key]
        parts += section(part, found[part.key], own)
    return html.page(TITLE, parts, "Residual connections and layer normalization, measured")


def section(
    part: Part, found: Found, claims: list[tuple[Claim, dict[str, Any]]]
) -> list[html.Html]:
    """Return a part's heading, claims with their rules, figures and numbers."""
    parts = [html.heading(part.title)]
    for claim, row in claims:
        parts += [
            html.heading(f"{claim.id}  {row['section']}", 3),
            html.paragraph(claim.text, " ", html.verdict(row["verdict"], row["kind"])),
            html.paragraph("Measured: ", claim.how, " Source: ", claim.source, "."),
            html.details(
                "rule and numbers",
                [html.paragraph(row["rule"]), html.table(["number", "measured"],
                 [[name, float(value)] for name, value in row["measured"].items()])],
            ),
        ]  # fmt: skip
    for drawing in part.drawings:
        parts.append(html.figure(drawing.draw(found), drawing.caption, drawing.how))
    if part.key == "worked":
        cells = [[r["name"], _numbers(r["article"]), _numbers(r["right"])] for r in found["rows"]]
        parts.append(html.table(["quantity", "as printed", "right"], cells))
    numbers = [[name, value] for name, value in found["numbers"].items()]
    parts.append(html.details("all numbers", [html.table(["number", "measured"], numbers)]))
    return parts


def _numbers(values: Any) -> str:
    if values is None:
        return "-"
    many = values if isinstance(values, (list, tuple)) else [values]
    return ", ".join(f"{value:.5g}" for value in many)
