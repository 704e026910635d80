"""The networks that claims are measured on: the flow chart's four, around any kind of layer."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.article import SWITCHES, ReluLayer, Switch, SwitchNetwork
from resnorm_jax.article.linear import uniform
from resnorm_jax.lab.problems import Problem, Rows
from resnorm_jax.lab.trainer import cross_entropy, rows_of_step
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.modules.classifier import SequenceClassifier
from resnorm_jax.modules.encoder import TransformerEncoder
from resnorm_jax.modules.front_ends import FeatureEmbedding, PatchEmbedding, TokenEmbedding
from resnorm_jax.norms.layer import LayerNorm
from resnorm_jax.ops.residual import residual

Model = Callable[[Any], Any]  # from a variant to a module
STARTS = {  # how weights start: the kindest for a chain without skips, and PyTorch's default
    "He et al. 2015": lambda width: nn.initializers.he_normal(),
    "PyTorch's default": lambda width: uniform(width**-0.5),
}
# The flow chart's four ways, by the arrangements of this library that are the same.
ARRANGEMENTS = {"neither": "none", "skip and norm": "pre_ln"}


class TracedSwitch(NamedTuple):
    """An `article.Switch` whose settings are arrays, so that all four share one compiled program."""

    skip: jax.Array
    norm: jax.Array

    def read(self, x: jax.Array, normalize: Callable) -> jax.Array:
        """``LN(x)`` or ``x``; the norm that is off sees zeros, so that no NaN of it comes back."""
        return jnp.where(self.norm, normalize(jnp.where(self.norm, x, 0)), x)

    def write(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """``x + y`` or ``y``."""
        return jnp.where(self.skip, residual(x, y), y)


def all_switches() -> TracedSwitch:
    """Return the flow chart's four ways, one a slice, in the order of `article.SWITCHES`."""
    skips, norms = ([getattr(s, name) for s in SWITCHES] for name in ("skip", "norm"))
    return TracedSwitch(jnp.array(skips), jnp.array(norms))


class Recurrent(nn.Module):
    """A gated recurrent unit over the sequence."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``x [B, L, D]`` to the same shape."""
        cell: Any = nn.RNN(nn.GRUCell(self.width), name="cell")
        return cell(x)


KINDS: dict[str, Callable[[int], Callable[..., nn.Module]]] = {
    "multilayer perceptron": lambda width: partial(ReluLayer, width),
    "1-d convolution": lambda width: partial(nn.Conv, width, (3,)),
    "recurrent cell (GRU)": lambda width: partial(Recurrent, width),
    "self-attention": lambda width: partial(MultiHeadAttention, 2),
}


class SwitchClassifier(nn.Module):
    """A linear layer, the switch network, the mean over positions, a linear layer."""

    classes: int
    width: int
    depth: int
    switch: Switch | TracedSwitch
    branch: Callable[..., nn.Module]
    normalize: Callable[..., Any] = LayerNorm

    def setup(self) -> None:
        """Make the parts."""
        self.embed = nn.Dense(self.width)
        self.body = SwitchNetwork(self.depth, self.switch, self.branch, self.normalize)
        self.head = nn.Dense(self.classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``x [B, C]`` or ``[B, L, C]`` to logits."""
        return self._logits(self.body(self.embed(x)))

    def reads(self, x: jax.Array) -> jax.Array:
        """What each branch is given, ``[depth, B, ..., width]``."""
        return self.body.trace(self.embed(x))[1][1]

    def _logits(self, h: jax.Array) -> jax.Array:
        return self.head(h if h.ndim == 2 else h.mean(1))


FRONT_ENDS: dict[str, Callable[[int, Problem], nn.Module]] = {
    "features": lambda width, problem: FeatureEmbedding(width),
    "images": lambda width, problem: PatchEmbedding(width, 2),
    "tokens": lambda width, problem: TokenEmbedding(width, problem.vocabulary),
}


def encoder_classifier(problem: Problem, width: int, depth: int, arrangement: str) -> nn.Module:
    """Return this library's classifier of sequences, small."""
    return SequenceClassifier(
        classes=problem.classes,
        front_end=FRONT_ENDS[problem.kind](width, problem),
        encoder=TransformerEncoder(depth=depth, heads=2, arrangement=arrangement),
        max_length=64,
    )


def loss_of(model: Model, rows: Rows, batch: int, masked: bool = False):
    """Return the loss of a step: cross-entropy on the step's batch."""

    def loss(params: Any, root: jax.Array, step: jax.Array, variant: Any) -> jax.Array:
        some = rows.take(rows_of_step(root, step, len(rows.y), batch))
        return cross_entropy(model(variant).apply(params, *given(some, masked)), some.y)

    return loss


def init_of(model: Model, rows: Rows, masked: bool = False):
    """Return the function from a key and a variant to the model's parameters."""
    some = given(rows.take(slice(0, 2)), masked)
    return lambda key, variant: model(variant).init(key, *some)


def scores_of(model: Model, train: Rows, test: Rows, masked: bool = False, rows: int = 256):
    """Return the function from parameters to training loss (on a part) and test accuracy."""
    some = train.take(slice(0, rows))

    def scores(params: Any, variant: Any) -> tuple[jax.Array, jax.Array]:
        apply = lambda part: model(variant).apply(params, *given(part, masked))  # noqa: E731
        return cross_entropy(apply(some), some.y), (apply(test).argmax(-1) == test.y).mean()

    return scores


def given(rows: Rows, masked: bool) -> tuple[Any, ...]:
    """Return what a model is called with."""
    return (rows.x, rows.mask) if masked else (rows.x,)
