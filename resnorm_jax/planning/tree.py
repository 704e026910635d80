"""What a plan is made of: frozen records, with every name resolved to its row.

A plan holds what layers *are* (forms: norms, branches, streams) apart from the *numbers* that differ
between like layers (scales, gains, drop rates), so that like layers run one compiled body over their
numbers. Layers and sublayers are counted from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import jax

from resnorm_jax.norms.table import NormSpec
from resnorm_jax.ops.activations import GELU, Activation
from resnorm_jax.planning.form import (
    ATTENTION_ROLES,
    FEED_FORWARD_ROLES,
    PLAIN_FORM,
    AttentionForm,
    biased_roles,
)
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.query_key import NONE, QueryKey
from resnorm_jax.schemes.spec import Arrangement, Distribution
from resnorm_jax.schemes.stream import ADD, Scale, Stream

Gains = Mapping[str, Scale]
Count = int | jax.Array


@dataclass(frozen=True)
class PlannedNorm:
    """A norm where it stands.

    Attributes:
      name: of its module, hence of its place in the parameter tree.
      spec: row of the norms' table.
      epsilon: None for the norm's own.
      scale_init: first value of its scale where the arrangement fixes one, else None.
    """

    name: str
    spec: NormSpec
    epsilon: float | None = None
    scale_init: float | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """An attention, and what an arrangement puts inside it.

    Attributes:
      name: of the sublayer.
      cross: whether it attends to another sequence.
      distribution: of its kernels at first, with Xavier's variance.
      input_norm: norm of its own input in a group of several, or None.
      query_key: what is done to queries and keys.
      query_norm: norm of the queries, for rows of ``query_key`` that take one.
      key_norm: likewise of the keys.
      value_norm: norm of the values, head by head, or None.
      heads_norm: norm of the joined heads before the output projection, or None.
      head_scale: whether each head has a learned factor before that norm.
      value_residual: share of the first layer's values in the values, or None.
      shaped: whether it is ``a I + b softmax - g C``.
    """

    roles: ClassVar[tuple[str, ...]] = ATTENTION_ROLES

    name: str = "attention"
    cross: bool = False
    distribution: Distribution = "uniform"
    input_norm: PlannedNorm | None = None
    query_key: QueryKey = NONE
    query_norm: PlannedNorm | None = None
    key_norm: PlannedNorm | None = None
    value_norm: PlannedNorm | None = None
    heads_norm: PlannedNorm | None = None
    head_scale: bool = False
    value_residual: float | None = None
    shaped: bool = False


@dataclass(frozen=True, kw_only=True)
class FeedForwardPlan:
    """A feed-forward network, and what an arrangement puts inside it.

    Attributes:
      name: of the sublayer.
      distribution: of its kernels at first, with Xavier's variance.
      input_norm: norm of its own input in a group of several, or None.
      mlp_norm: norm before the last projection, or None.
      mlp_scale: whether the first projections have learned factors of nGPT's kind.
    """

    roles: ClassVar[tuple[str, ...]] = FEED_FORWARD_ROLES

    name: str = "feed_forward"
    distribution: Distribution = "uniform"
    input_norm: PlannedNorm | None = None
    mlp_norm: PlannedNorm | None = None
    mlp_scale: bool = False


BranchPlan = AttentionPlan | FeedForwardPlan


@dataclass(frozen=True, kw_only=True)
class SublayerPlan:
    """A residual block: where norm, branch and stream meet.

    Attributes:
      name: of the block: its only branch's, or ``parallel``.
      position: among the blocks of its layer.
      last: whether it is the last of its layer.
      stream: how it is read and written.
      branches: what runs inside, all on the same input; empty where the block is given its branch.
      norm_before: norm of the branch's input, or None.
      norm_after: norm of the branch's output, or None.
      norm_on_stream: norm of the sum, on the stream, or None.
      stream_norms: norms that the stream itself asks for, in reading and writing.
    """

    name: str = ""
    position: int = 1
    last: bool = True
    stream: Stream = ADD
    branches: tuple[BranchPlan, ...] = ()
    norm_before: PlannedNorm | None = None
    norm_after: PlannedNorm | None = None
    norm_on_stream: PlannedNorm | None = None
    stream_norms: tuple[PlannedNorm, ...] = ()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SublayerNumbers:
    """What may differ between the same sublayers of like layers.

    Attributes:
      sublayer: s, among the sublayers of the whole stack.
      read_scale: factor on the branch's input.
      skip_scale: factor on the stream.
      branch_scale: factor on the branch's output.
      gains: for each branch, role to the factor on the deviation of its kernels at first.
    """

    sublayer: Count
    read_scale: Scale = 1.0
    skip_scale: Scale = 1.0
    branch_scale: Scale = 1.0
    gains: tuple[Gains, ...] = ()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerNumbers:
    """What may differ between like layers.

    Attributes:
      layer: l.
      drop_path: probability of dropping a branch of a sample.
      sublayers: numbers of each sublayer.
      window: how many positions a query of self-attention sees to either side; None for all.
      rotary_base: of rotary positions; None without them.
    """

    layer: Count
    drop_path: Scale
    sublayers: tuple[SublayerNumbers, ...]
    window: Count | None = None
    rotary_base: Scale | None = None


@dataclass(frozen=True)
class LayerPlan:
    """One layer: its place, what it is, and its numbers."""

    place: Place
    sublayers: tuple[SublayerPlan, ...]
    numbers: LayerNumbers


@dataclass(frozen=True)
class Segment:
    """Layers that differ in nothing but numbers, one after the other.

    Attributes:
      name: of the module that holds their parameters, stacked.
      layers: the layers.
      repeats: how many in a row share their parameters.
    """

    name: str
    layers: tuple[LayerPlan, ...]
    repeats: int = 1

    @property
    def sets(self) -> int:
        """How many layers have parameters of their own."""
        return len(self.layers) // self.repeats

    @property
    def sublayers(self) -> tuple[SublayerPlan, ...]:
        """What each of its layers is made of."""
        return self.layers[0].sublayers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A stack of layers, resolved: everything that decides what it computes, but for its weights.

    Attributes:
      row: the arrangement, with what the model sets beside its name.
      depth: N.
      segments: the layers, in runs of like ones.
      embedding_norm: norm of the stack's input, or None.
      final_norm: norm of the stack's output, or None.
      closing_norms: norms that the stream itself asks for when it is closed.
      width: D, of the stream.
      heads: H.
      mlp_width: width inside the feed-forward networks.
      activation: of the feed-forward networks.
      biases: the roles whose projections have a bias.
      form: how the heads of self-attentions are made.
      relative_norm: norm of the table of relative positions, or None.
    """

    row: Arrangement
    depth: int
    segments: tuple[Segment, ...]
    embedding_norm: PlannedNorm | None = None
    final_norm: PlannedNorm | None = None
    closing_norms: tuple[PlannedNorm, ...] = ()
    width: int = 64
    heads: int = 4
    mlp_width: int = 256
    activation: Activation = GELU
    biases: frozenset[str] = biased_roles(True)
    form: AttentionForm = PLAIN_FORM
    relative_norm: PlannedNorm | None = None

    @property
    def stream(self) -> Stream:
        """The residual scheme."""
        return self.row.stream

    @cached_property
    def layers(self) -> tuple[LayerPlan, ...]:
        """All layers, from the first to the last."""
        return tuple(layer for segment in self.segments for layer in segment.layers)

    @property
    def windowed(self) -> bool:
        """Whether a query sees only near keys, in any layer."""
        return self.layers[0].numbers.window is not None

    @property
    def sublayers(self) -> int:
        """How many sublayers the whole stack has."""
        return self.segments[-1].layers[-1].place.sublayers

    @property
    def embedding_gain(self) -> float:
        """The factor on the deviation of token embeddings at first."""
        return self.row.init.embedding(self.layers[0].place)

    def __str__(self) -> str:
        """Return the plan in words."""
        from resnorm_jax.planning.show import describe

        return describe(self)

    def layer(self, number: int) -> LayerPlan:
        """Return layer ``number``, counted from 1.

        Raises:
          IndexError: if there is no such layer.
        """
        if not 1 <= number <= self.depth:
            raise IndexError(f"layer {number} of a stack of {self.depth}; layers count from 1")
        return self.layers[number - 1]
