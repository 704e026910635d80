"""ListOps as the Long Range Arena generates it, with a verified cache on disk.

The released LRA split was cut from a Python set, whose order depends on the interpreter's hash
seed; it cannot be made again. This source draws from the same distribution, drops duplicates in the
order of generation, and is the same on every machine for the same options.
"""

import itertools
import random
from dataclasses import dataclass

import numpy as np

from resnorm_jax.data.bar import progress
from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.listops_cache import cached
from resnorm_jax.data.listops_grammar import FIRST_OPERATOR, ROOT_GUESS, VOCABULARY, draw
from resnorm_jax.data.source import Source
from resnorm_jax.errors import UserError
from resnorm_jax.schema import SEED, between, option

PATIENCE = 300_000
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ListOpsOptions:
    """Options of the ``listops`` source; the defaults are those of the Long Range Arena."""

    min_length: int = option(500, "sequences are longer than this (strictly)", between(0, 10**6))
    max_length: int = option(2000, "sequences are shorter than this (strictly)", between(2, 10**6))
    max_depth: int = option(10, "levels of the tree; 1 means a lone digit", between(1, 100))
    max_args: int = option(10, "most arguments of an operator", between(2, 1000))
    train: int = option(96_000, "rows to learn from", between(1, 10**8))
    valid: int = option(2_000, "rows for model selection", between(0, 10**8))
    test: int = option(2_000, "rows to score on", between(1, 10**8))
    seed: int = option(0, "of the generator", SEED)
    cache: str = option("", "folder for the generated file; the user's cache folder if empty")


def _draw_distinct(options: ListOpsOptions, total: int) -> dict[bytes, int]:
    limits = (options.min_length, options.max_length, options.max_depth, options.max_args)
    rand, rows, idle = random.Random(options.seed).random, dict[bytes, int](), 0
    with progress("generating ListOps", total) as bar:
        while len(rows) < total and idle < PATIENCE:
            tree, before = draw(rand, *limits), len(rows)
            if tree is not None:
                rows[tree[0]] = tree[1]
            idle = 0 if len(rows) > before else idle + 1
            if not idle and len(rows) % 256 == 0:
                bar.update(len(rows))
    return rows


def generate(options: ListOpsOptions) -> Arrays:
    """Generate the rows of all splits, train first, then valid, then test.

    Returns:
      ``tokens`` (uint8, rows one after the other), ``lengths [N]`` int32, ``labels [N]`` uint8.

    Raises:
      UserError: the options allow too few different sequences.
    """
    total = options.train + options.valid + options.test
    rows = _draw_distinct(options, total)
    if len(rows) < total:
        raise UserError(
            f"data.min_length: found only {len(rows)} of {total} different sequences of length "
            f"{options.min_length}-{options.max_length} with max_depth {options.max_depth} and "
            f"max_args {options.max_args}; widen the lengths, deepen the trees, or take fewer rows"
        )
    return {
        "tokens": np.frombuffer(b"".join(rows), np.uint8),
        "lengths": np.array([len(row) for row in rows], np.int32),
        "labels": np.array(list(rows.values()), np.uint8),
    }


def unpack(arrays: Arrays) -> Examples:
    """Return the rows padded with zeros: ``x [N, L]`` uint8."""
    lengths = arrays["lengths"]
    x = np.zeros((len(lengths), int(lengths.max())), np.uint8)
    x[np.arange(x.shape[1]) < lengths[:, None]] = arrays["tokens"]
    return Examples(x, lengths, arrays["labels"].astype(np.int32))


def root_rule(train: Examples, test: Examples) -> float:
    """Return the test accuracy of a rule that looks at the first token only.

    MIN gives 0, MAX 9, MED 4, SM the most frequent class of the SM-rooted training rows (a lone
    digit gives itself).
    """
    guess = np.concatenate([[0], np.arange(10), np.zeros(5, int)])
    for name, label in ROOT_GUESS.items():
        guess[VOCABULARY.index(name)] = label
    summed = VOCABULARY.index("[SM")
    assert summed == FIRST_OPERATOR + 3
    guess[summed] = np.bincount(train.y[train.x[:, 0] == summed], minlength=10).argmax()
    return float(np.mean(guess[test.x[:, 0]] == test.y))


def load_listops(options: ListOpsOptions) -> Dataset:
    """Load the generated rows, from the cache where it holds them.

    Raises:
      UserError: the options contradict each other or allow too few different sequences.
    """
    between(options.min_length + 2, 10**6).check("data.max_length", options.max_length)
    rows = options.train + options.valid + options.test
    every = unpack(cached(options, rows, lambda: generate(options)))
    edges = np.cumsum([0, options.train, options.valid, options.test])
    train, valid, test = (every.take(np.arange(a, b)) for a, b in itertools.pairwise(edges))
    return Dataset(
        name="ListOps",
        kind="tokens",
        train=train,
        valid=valid if len(valid) else None,
        test=test,
        classes=tuple("0123456789"),
        vocabulary=VOCABULARY,
        rules={"root operator": root_rule(train, test)},
    )


SOURCE = Source(
    "listops",
    "ListOps expressions, generated as in the Long Range Arena",
    ListOpsOptions,
    load_listops,
    None,
    "Tay et al. 2020, arXiv:2011.04006 (github.com/google-research/long-range-arena); "
    "Nangia and Bowman 2018, arXiv:1804.06028",
)
