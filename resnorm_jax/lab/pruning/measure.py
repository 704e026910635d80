"""Accuracy of a trained model against the share of it that is kept."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from resnorm_jax.build import build_model
from resnorm_jax.data import Dataset, Examples
from resnorm_jax.lab.pruning.layers import Order, kept_counts, layer_sizes, size_of
from resnorm_jax.lab.pruning.weights import int8_rounded, kernels, magnitude_pruned
from resnorm_jax.modules.hooks import layer_switch
from resnorm_jax.reporting.metrics import score
from resnorm_jax.training.saved_run import Trained

Point = dict[str, Any]
Measured = dict[str, Any]
FLOAT_BITS, INT8_BITS = 32, 8


@dataclass
class Subject:
    """What is compressed, and the rows that it is scored on.

    Attributes:
      trained: the model.
      choosing: rows that choices are made on, never the test rows.
      test: rows that each compressed model is scored on, once.
      told: given the number of scorings done, and the rows of this one.
    """

    trained: Trained
    choosing: Examples
    test: Examples
    told: Callable[[int, int], None] = lambda done, rows: None
    done: int = 0

    @property
    def depth(self) -> int:
        """Layers of the model."""
        return self.trained.config.model.depth

    @cached_property
    def size(self) -> int:
        """Parameters of the model."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.trained.params))

    @cached_property
    def weights(self) -> int:
        """Kernel weights of the model."""
        return sum(w.size for w in kernels(self.trained.params).values())

    @cached_property
    def without(self) -> Callable[[frozenset[int]], dict[str, Any]]:
        """From the set of removed layers (from 0) to the variables of the model without them."""
        model = build_model(self.trained.config, self.trained.meta)
        x = self.test.x[:1]
        x = x.astype(np.int32) if np.issubdtype(x.dtype, np.integer) else x
        switch = layer_switch(model, self.trained.variables, x)
        return lambda gone: switch([layer not in gone for layer in range(self.depth)])

    def scores(self, variables: dict[str, Any], rows: Examples) -> dict[str, float]:
        """Return accuracy and log loss of the model with these variables."""
        found = score(
            replace(self.trained, variables=variables).log_probs(rows),
            rows.y,
            self.trained.meta["classes"],
        )
        self.done += 1
        self.told(self.done, len(rows))
        return {name: float(found[name]) for name in ("accuracy", "log_loss")}

    def with_params(self, params: Any) -> dict[str, Any]:
        """Return the variables with other parameters."""
        return {**self.trained.variables, "params": params}


def choosing_rows(dataset: Dataset, limit: int, seed: int) -> tuple[str, Examples]:
    """Return validation rows where there are any, else training rows; ``limit`` of them by seed."""
    name, rows = ("training", dataset.train)
    if dataset.valid is not None:
        name, rows = "validation", dataset.valid
    if len(rows) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))
        rows = rows.take(chosen)
    return name, rows


def one_layer_removed(subject: Subject) -> list[Point]:
    """Score the model without each single layer, on both kinds of rows."""
    points = []
    for layer in range(subject.depth):
        variables = subject.without(frozenset([layer]))
        chosen = subject.scores(variables, subject.choosing)
        points.append(
            {
                "layer": layer + 1,
                **subject.scores(variables, subject.test),
                **{f"choosing_{name}": value for name, value in chosen.items()},
            }
        )
    return points


def layers_removed(subject: Subject, shares: list[float], order: Order) -> Measured:
    """Score the model with a share of its layers, ``c_l = c_(l-1)`` for each that is removed."""

    def loss(gone: frozenset[int]) -> float:
        return subject.scores(subject.without(gone), subject.choosing)["log_loss"]

    sizes, points = layer_sizes(subject.trained.params), []
    chosen = order.choose(loss, subject.depth)
    for kept in kept_counts(shares, subject.depth):
        gone = chosen[: subject.depth - kept]
        left = 1 - size_of(gone, sizes, subject.depth) / subject.size
        points.append(
            {
                "keep": kept / subject.depth,
                "size_kept": left,
                "removed": [layer + 1 for layer in gone],
                **subject.scores(subject.without(frozenset(gone)), subject.test),
            }
        )
    return {"order": order.name, "points": points, "one_removed": one_layer_removed(subject)}


def weights_zeroed(subject: Subject, shares: list[float], order: Order) -> Measured:
    """Score the model with a share of its kernel weights, the largest; the rest are 0."""
    total, points = subject.weights, []
    for share in shares:
        params = magnitude_pruned(subject.trained.params, share)
        left = 1 - (total - round(share * total)) / subject.size
        scores = subject.scores(subject.with_params(params), subject.test)
        points.append({"keep": share, "size_kept": left, **scores})
    return {"points": points}


def weights_rounded(subject: Subject, shares: list[float], order: Order) -> Measured:
    """Score the model with its kernel weights rounded to int8; the size counts bits."""
    params, moved = int8_rounded(subject.trained.params)
    saved = subject.weights * (FLOAT_BITS - INT8_BITS) - moved["scales"] * FLOAT_BITS
    left = 1 - saved / (subject.size * FLOAT_BITS)
    scores = subject.scores(subject.with_params(params), subject.test)
    return {"points": [{"keep": INT8_BITS / FLOAT_BITS, "size_kept": left, **scores}], **moved}


@dataclass(frozen=True)
class Method:
    """A row: a way to compress.

    Attributes:
      name: on the command line.
      about: one line for people.
      kept: what ``keep`` is a share of.
      source: of the method, and where we differ.
      measure: ``(subject, shares, order)`` to ``points``, and what else it found.
      evaluations: ``(depth, shares, order)`` to how often the model is scored.
    """

    name: str
    about: str
    kept: str
    source: str
    measure: Callable[[Subject, list[float], Order], Measured]
    evaluations: Callable[[int, list[float], Order], int]


METHODS = (
    Method(
        "layers",
        "whole layers removed: the stream passes them by unchanged",
        "layers",
        "our definition: c_l = c_(l-1), constants as trained; nothing is trained again",
        layers_removed,
        lambda depth, shares, order: (
            order.losses(depth) + len(kept_counts(shares, depth)) + 2 * depth
        ),
    ),
    Method(
        "magnitude",
        "the smallest kernel weights of the whole model set to 0",
        "kernel weights",
        "Han et al. 2015 (arXiv 1506.02626); one threshold for all layers, not trained again",
        weights_zeroed,
        lambda depth, shares, order: len(shares),
    ),
    Method(
        "int8",
        "kernels rounded to 8 bits, symmetric, a scale for each output channel",
        "bits of a kernel weight",
        "Krishnamoorthi 2018 (arXiv 1806.08342), weights only; activations stay float32",
        weights_rounded,
        lambda depth, shares, order: 1,
    ),
)


@dataclass
class Plan:
    """What to measure.

    Attributes:
      methods: rows of `METHODS`.
      shares: to keep, from 0 to 1.
      order: how layers are chosen.
    """

    methods: list[Method]
    shares: list[float]
    order: Order

    def evaluations(self, depth: int) -> int:
        """Return how often a model of this depth will be scored."""
        return 1 + sum(m.evaluations(depth, self.shares, self.order) for m in self.methods)


def compress(subject: Subject, plan: Plan) -> dict[str, Any]:
    """Return the scores of the whole model, and of each method's compressed ones."""
    return {
        "parameters": subject.size,
        "kernel_weights": subject.weights,
        "whole": subject.scores(subject.trained.variables, subject.test),
        "methods": {m.name: m.measure(subject, plan.shares, plan.order) for m in plan.methods},
    }
