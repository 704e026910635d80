"""The report's sections, one row each: what is run, drawn and told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resnorm_jax.lab.article import depth, figures, listings, outlook, speed, tasks
from resnorm_jax.lab.article.settings import Settings

Found = dict[str, Any]
SUBJECTS = {  # of the article's sections, by the first digit of their number
    "2": "残差连接 residual connections",
    "3": "层归一化 layer normalization",
    "4": "数学模型 mathematical model",
    "5": "代码实例 code",
    "6": "应用场景 applications",
    "7": "常见问题 FAQ",
    "8": "未来发展 outlook",
}


def subject(section: str) -> str:
    """Return a section's number with its subject, in the article's language and in English."""
    return f"{section} {SUBJECTS[section[0]]}" if section else ""


@dataclass(frozen=True)
class Drawing:
    """A figure: what draws it, its caption, and how to read it."""

    draw: Callable[[Found], Any]
    caption: str
    how: str


@dataclass(frozen=True)
class Part:
    """An experiment: its key, title, what runs it (given settings and what was found) and figures."""

    key: str
    title: str
    run: Callable[[Settings, dict[str, Found]], Found]
    drawings: tuple[Drawing, ...] = ()


def _majority(found: Found, group: str) -> float:
    return found["majority"][group] if "majority" in found else found["numbers"]["majority"]


PARTS = (
    Part("worked", "The worked example", lambda s, found: listings.worked(s)),
    Part(
        "listing",
        "L4 trained by its recipe",
        lambda s, found: listings.listing(s),
        (
            Drawing(
                figures.listing,
                "Loss and accuracy of L4 on JapaneseVowels, a line a seed.",
                "Left falls, right rises. The dashed line is what always saying the commonest class "
                "would give: a score is worth something only above it.",
            ),
        ),
    ),
    Part(
        "seeds",
        "L6 over many seeds",
        lambda s, found: listings.many_seeds(s),
        (
            Drawing(
                figures.seeds,
                "Loss on one random batch: measured bands and the article's ten numbers.",
                "The dark band holds 95 % of the seeds at each step, the light one all. Red points "
                "outside the bands are losses that this set-up does not give.",
            ),
        ),
    ),
    Part(
        "depth",
        "Depth and stability",
        lambda s, found: depth.depth_claims(s),
        (
            Drawing(
                figures.gradients,
                "Gradient norm of each block's input at the start, in units of the last block's.",
                "Read from right to left, as gradients travel. A straight slope is a factor per "
                "layer: down to the left vanishes, up to the left explodes. Level is good.",
            ),
            Drawing(
                figures.depth_scores,
                "Accuracy after training at the best rate, and share of runs that diverge.",
                "Left: a line that falls to the dashed one no longer trains at that depth. Right: low "
                "is stable.",
            ),
        ),
    ),
    Part(
        "speed",
        "Speed and covariate shift",
        lambda s, found: speed.speed_claims(s),
        (
            Drawing(
                figures.speed,
                "Training loss, each network at the rate that suits it best.",
                "Where a line meets the dashed one is what is counted. Bands hold all seeds.",
            ),
            Drawing(
                figures.drift,
                "Drift of the inputs of branches over training, a point a seed.",
                "Lower is less shift. If shift were what slows training, the detached norm, which "
                "shifts as little, would train as fast as the norm.",
            ),
        ),
    ),
    Part(
        "kinds",
        "Any kind of layer",
        lambda s, found: tasks.kinds_claim(s),
        (
            Drawing(
                figures.bars("kind", _majority),
                "Four kinds of layer in the flow chart's four networks.",
                "Compare colors within a group. Dashed: the majority class.",
            ),
        ),
    ),
    Part(
        "data",
        "Text, images, speech",
        lambda s, found: tasks.data_claim(s),
        (
            Drawing(
                figures.bars("data", _majority),
                "Small classifiers of three kinds of data, with skip and norm and with neither.",
                "Compare colors within a group. Dashed: the majority class.",
            ),
        ),
    ),
    Part(
        "sequence",
        "Sequence to sequence",
        lambda s, found: tasks.sequence_claim(s),
        (
            Drawing(
                figures.bars("task", lambda found, group: found["chance"]),
                "Symbols rightly reversed by an encoder and a decoder.",
                "Dashed: guessing.",
            ),
        ),
    ),
    Part(
        "outlook",
        "Compression and interpretability",
        lambda s, found: outlook.outlook_claim(s, found["listing"]["params"]),
        (
            Drawing(
                figures.compression,
                "Accuracy of L4 when weights are pruned by magnitude or rounded.",
                "Flat, then a fall: the flat part is what can be saved for nothing.",
            ),
            Drawing(
                figures.attention,
                "Attention of each layer for the first test row, mean over heads.",
                "Each line is a position and sums to 1; dark is where it looks. The share in the title "
                "is the length of the layer's change of the stream over the sum of all.",
            ),
        ),
    ),
)
