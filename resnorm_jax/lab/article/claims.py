"""The article's claims, one row each: how it is measured, and the rule for its verdict.

Rules of C1 to C8 were written down before their full runs; those of L4 and L6 after theirs.
"""

from dataclasses import dataclass

from resnorm_jax.lab.article.verdicts import Check, Rule


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
      id: as in the project's specification of the article.
      text: what the article says.
      section: its number in the article, or "".
      part: key of the experiment that measures it.
      how: how it is measured.
      rule: when it holds.
      source: where the method, or the counter-evidence, comes from.
    """

    id: str
    text: str
    section: str
    part: str
    how: str
    rule: Rule
    source: str


CLAIMS = (
    Claim(
        "EX",
        "The worked example: X = [1, 2, 3, 4, 5], centred [-2, 0, 0, 1, 2], H = [1, 2, 3, 5, 7].",
        "3.3",
        "worked",
        "The same formulas in this library; the article's numbers beside them.",
        Rule((Check("numbers_wrong_in_the_article", "<=", 0),)),
        "Ba et al. 2016 (arXiv 1607.06450), eq. 3",
    ),
    Claim(
        "L4",
        "The listing learns: Adam 1e-3, batch 32, ten epochs; the article prints 90.2 % for data "
        "that it does not name, so the two accuracies cannot be compared.",
        "5.2",
        "listing",
        "L4 as printed, between a linear layer and the mean over positions, on JapaneseVowels.",
        Rule((Check("gain_over_majority", ">=", 0.5),)),
        "Kudo et al. 1999 (data); majority class as the trivial baseline",
    ),
    Claim(
        "L6",
        "Ten losses from 2.7324 to 0.6885 on one random batch.",
        "5.2",
        "seeds",
        "L5, corrected, from many seeds on as many random batches, in both readings of a batch.",
        Rule(
            (Check("best_inside_95", ">=", 1.0),),
            (Check("best_inside_range", ">=", 1.0),),
            "the range of all seeds",
        ),
        "quantiles over seeds",
    ),
    Claim(
        "C1",
        "Residual connections prevent vanishing and exploding gradients in deep networks.",
        "2.1",
        "depth",
        "Gradient norm of every block's input at the start, from two initializations; then training "
        "on digits at every depth with the best of several learning rates.",
        Rule(
            (
                Check("skip_only_off", "<=", 1.05),
                Check("skip_and_norm_off", "<=", 1.05),
                Check("gain_in_accuracy", ">=", 0.3),
            ),
            (
                Check("skip_and_norm_off", "<=", 1.05),
                Check("gain_in_accuracy", ">=", 0.3),
            ),
            "networks whose skips go with a norm",
        ),
        "He et al. 2015 (arXiv 1512.03385); Xiong et al. 2020 (arXiv 2002.04745)",
    ),
    Claim(
        "C2",
        "Layer normalization speeds up convergence.",
        "3.1",
        "speed",
        "Steps to a training loss of 0.5 on digits, learning rate tuned for each network on other "
        "seeds; ratio of medians, norm off over norm on, 95 % interval by bootstrap.",
        Rule(
            (
                Check("steps_with_skip_low", ">", 1.0),
                Check("steps_without_skip_low", ">", 1.0),
            ),
            (Check("steps_with_skip_low", ">", 1.0),),
            "networks with skips",
        ),
        "Ba et al. 2016 (arXiv 1607.06450)",
    ),
    Claim(
        "C3",
        "Layer normalization reduces internal covariate shift.",
        "3.1",
        "speed",
        "Drift of mean and variance of every branch's input between looks, over training; ratio of "
        "norm on to norm off.",
        Rule(
            tuple(
                Check(f"drift_{which}_{pair}_high", "<", 1.0)
                for which in ("mean", "variance")
                for pair in ("with_skip", "without_skip")
            ),
            (
                Check("drift_variance_with_skip_high", "<", 1.0),
                Check("drift_variance_without_skip_high", "<", 1.0),
            ),
            "the variance, not the mean",
        ),
        "against it: Santurkar et al. 2018 (arXiv 1805.11604); Xu et al. 2019 (arXiv 1911.07013)",
    ),
    Claim(
        "C4",
        "Together they make training stable.",
        "3.1",
        "depth",
        "Share of seeds x learning rates x depths whose loss ends not finite, or no lower than it "
        "began; Wilson's 95 % intervals.",
        Rule(
            (Check("both_below_others", ">", 0.0),),
            (Check("both_below_neither", ">", 0.0),),
            "against neither, not against each alone",
        ),
        "Wilson 1927, doi 10.1080/01621459.1927.10502953",
    ),
    Claim(
        "C5",
        "Both work in any kind of network.",
        "7 (Q7)",
        "kinds",
        "The same blocks around a multilayer perceptron, a 1-d convolution, a recurrent cell and "
        "self-attention, on rows of digits; accuracy over the majority's by 0.1, and gain over "
        "neither.",
        Rule(
            (Check("share_that_trains", ">=", 1.0), Check("least_gain", ">=", 0.0)),
            (Check("share_that_trains", ">=", 1.0), Check("mean_gain", ">", 0.0)),
            "all train with both, but not every kind gains",
        ),
        "the article's question 7",
    ),
    Claim(
        "C6",
        "They serve text, images and speech.",
        "6",
        "data",
        "A small classifier each of ListOps expressions, digits and JapaneseVowels; accuracy over "
        "the majority's by 0.1, and gain over neither.",
        Rule(
            (Check("share_that_trains", ">=", 1.0), Check("least_gain", ">=", 0.0)),
            (Check("share_that_trains", ">=", 0.6),),
            "some kinds of data",
        ),
        "Nangia and Bowman 2018 (arXiv 1804.06028); UCI digits; Kudo et al. 1999",
    ),
    Claim(
        "C7",
        "Sequence-to-sequence models benefit too.",
        "6.4",
        "sequence",
        "An encoder and a decoder with causal and cross-attention learn to reverse a sequence; "
        "accuracy of symbols on sequences not trained on, both against neither.",
        Rule((Check("share_that_trains", ">=", 1.0), Check("least_gain", ">=", 0.1))),
        "Vaswani et al. 2017 (arXiv 1706.03762), section 3.1",
    ),
    Claim(
        "C8",
        "What comes next: compression and interpretability.",
        "8.1",
        "outlook",
        "L4 as trained: weights rounded to 8 bits, and the smallest 60 % set to zero; accuracy lost. "
        "Attention and each layer's share of what is written, for one test row.",
        Rule(
            (Check("lost_by_int8", "<=", 0.01), Check("lost_by_60_percent_pruned", "<=", 0.01)),
            (Check("lost_by_int8", "<=", 0.01),),
            "rounding, not pruning",
        ),
        "Han et al. 2015 (arXiv 1506.02626); Jacob et al. 2017 (arXiv 1712.05877)",
    ),
)
