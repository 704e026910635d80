"""The statistics, one row each: what it is, its unit, its shape, where it comes from."""

from dataclasses import dataclass
from typing import Literal

from resnorm_jax.registry import Registry

Pass = Literal["forward", "gradient", "update", "jacobian"]
# Axes: L levels of the stream (0 before the first layer, l after layer l), N layers, or none.
Axis = Literal["level", "layer", "rank", "none"]


@dataclass(frozen=True)
class Statistic:
    """A row.

    Attributes:
      name: in code and in JSON.
      label: in tables and on axes.
      unit: of its values.
      axis: what its values run over: levels of the stream ``[N + 1]``, layers ``[N]``, rank of a
        singular value, or nothing.
      lines: what its several lines are, if it has several.
      definition: equation and what is averaged.
      how_to_read: for people who have not seen it before.
      source: where it was used first, or best.
      needs: the pass through the model that it needs.
      log: whether it spans orders of magnitude.
    """

    name: str
    label: str
    unit: str
    axis: Axis
    lines: str
    definition: str
    how_to_read: str
    source: str
    needs: Pass
    log: bool = False
    aliases: tuple[str, ...] = ()


STATISTICS = Registry(
    "statistic",
    (
        Statistic(
            "stream_power", "stream power", "mean square a feature", "level", "",
            "mean x^2 of the stream over valid positions and features",
            "Flat is calm. A straight rise means that each layer adds as much as the one before, so "
            "that late layers change the stream ever less; a fall means that the signal dies.",
            "Xiong et al. 2020 (arXiv 2002.04745), lemma 2", "forward", True,
        ),
        Statistic(
            "branch_ratio", "branch / stream", "ratio of root mean squares", "layer", "sublayer",
            "rms of a branch's output, its own norm included and scales and gates of the residual "
            "left out, over rms of the stream that it is added to",
            "How much a sublayer says beside what is there already. Near 0 at depth: those layers do "
            "little (the curse of depth). Far above 1: each layer overwrites the stream.",
            "Liu et al. 2020 (arXiv 2004.08249), section 4", "forward", True,
        ),
        Statistic(
            "token_cosine", "token cosine", "mean cosine", "level", "",
            "cosine between two positions of one example, mean over pairs of valid positions, then "
            "over examples",
            "At 1 all positions carry the same vector: rank collapse, and attention cannot tell them "
            "apart, so that queries and keys get no gradient.",
            "Dong et al. 2021 (arXiv 2103.03404); Noci et al. 2022 (arXiv 2206.03126)", "forward",
        ),
        Statistic(
            "example_cosine", "example cosine", "mean cosine", "none", "",
            "cosine between the pooled outputs of two examples, mean over pairs",
            "At 1 the head sees the same vector for every example: the model cannot tell the inputs "
            "apart before it has learned to.",
            "as token_cosine, between examples", "forward",
        ),
        Statistic(
            "attention_entropy", "attention entropy", "share of log n", "layer", "sublayer",
            "entropy of the attention weights over log n, n the valid keys; mean over heads and valid "
            "queries",
            "1: every query looks at all keys alike. Near 0: each looks at one key only, where the "
            "softmax passes no gradient (entropy collapse).",
            "Zhai et al. 2023 (arXiv 2303.06296), section 3", "forward",
        ),
        Statistic(
            "stream_gradient", "gradient of the stream", "norm", "level", "array of the stream",
            "Euclidean norm of the gradient of the mean loss with respect to the stream",
            "What early layers hear of the loss, against late ones. Flat is best; a steep line over "
            "many layers is a vanishing or an exploding gradient.",
            "Xiong et al. 2020 (arXiv 2002.04745), section 3", "gradient", True,
        ),
        Statistic(
            "layer_gradient", "gradient of parameters", "norm", "layer", "group",
            "Euclidean norm of the gradient of the mean loss, by layer and group of parameters",
            "Which weights are told to move. Queries and keys far under values: attention does not "
            "learn. A slope over depth: no single learning rate suits all layers.",
            "Noci et al. 2022 (arXiv 2206.03126), theorem 3.2", "gradient", True,
        ),
        Statistic(
            "outer_gradient", "gradient outside of the layers", "norm", "none", "group",
            "as layer_gradient, for embedding, head and what all layers share",
            "Beside those of the layers: an embedding without gradient sits before a stack that "
            "passes none.",
            "as layer_gradient", "gradient",
        ),
        Statistic(
            "loss", "loss", "nats", "none", "",
            "mean cross-entropy of the batch",
            "At initialization near log K, K classes; far above it the head is too loud.",
            "as trained", "gradient",
        ),
        Statistic(
            "jacobian_singular_values", "singular values", "factor", "rank", "",
            "of the Jacobian of the stack's output with respect to its input, over valid positions, "
            "largest first: all of them where the matrix is small, else the largest",
            "By how much the stack stretches directions of its input. All at 1: dynamical isometry. A "
            "steep fall: only a few directions get through. Below a millionth of the largest they are "
            "rounding: a norm takes its direction away from every position.",
            "Saxe et al. 2013 (arXiv 1312.6120); Bachlechner et al. 2020 (arXiv 2003.04887)",
            "jacobian", True,
        ),
        Statistic(
            "jacobian_mean_square", "mean squared singular value", "factor^2", "none",
            "mean and its standard error",
            "|J|_F^2 / n, n the valid entries: exact where the matrix is small, else from random "
            "signs (Hutchinson), with standard error",
            "1: on average a small change of the input is as large in the output.",
            "Pennington et al. 2017 (arXiv 1711.04735)", "jacobian", True,
        ),
        Statistic(
            "layer_update", "relative update", "ratio of norms", "layer", "group",
            "|step| / |parameters| of the first step of the config's optimizer at its peak learning "
            "rate, by layer and group; none where parameters are 0",
            "About 1e-3 is usual. A group far above the others is what diverges first; one far under "
            "does not train.",
            "You et al. 2017 (arXiv 1708.03888), section 4", "update", True,
        ),
        Statistic(
            "outer_update", "relative update outside of the layers", "ratio of norms", "none", "group",
            "as layer_update, for embedding, head and what all layers share",
            "Beside those of the layers.", "as layer_update", "update",
        ),
        Statistic(
            "stream_change", "change of the stream by one step", "root mean square", "level", "",
            "rms of the difference of the stream before and after one optimizer step on this batch",
            "How far one step moves what each layer says. It should not grow with depth out of "
            "proportion to the stream: that growth is what warm-up is there to tame.",
            "Wang et al. 2022 (arXiv 2203.00555), section 4", "update", True,
        ),
        Statistic(
            "logits_change", "change of the logits by one step", "root mean square", "none", "",
            "rms of the difference of the logits before and after one optimizer step on this batch",
            "Above about 1 a single step decides the class anew: lower the learning rate or warm up.",
            "Wang et al. 2022 (arXiv 2203.00555), eq. 3", "update",
        ),
    ),
)  # fmt: skip
