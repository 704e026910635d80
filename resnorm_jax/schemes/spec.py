"""What an arrangement is made of: data, beside the pure functions of its stream.

::

    h     = read_scale * norm_before( stream.read(carry) )
    y     = norm_after( branch(h) )
    carry = norm_on_stream( stream.write(carry, y) )     # write: skip_scale * x + branch_scale * y
    out   = stream.close(carry)                          # with the final norm
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from resnorm_jax.schemes.place import DepthRule, Place, one
from resnorm_jax.schemes.slots import NORM, NormSlot
from resnorm_jax.schemes.stream import ADD, Stream

Distribution = Literal["uniform", "normal"]
ROLES = ("query", "key", "value", "out", "fc1", "fc2")
Kind = Literal["attention", "cross_attention", "feed_forward"]


@dataclass(frozen=True)
class Branch:
    """What runs in a sublayer.

    Attributes:
      kind: what it is.
      number: where a layer has several of a kind: 0 for the first, 1 for the second.
    """

    kind: Kind
    number: int = 0

    @property
    def name(self) -> str:
        """Name of its module: the kind, with the number of all but the first."""
        return f"{self.kind}_{self.number}" if self.number else self.kind


ATTENTION, FEED_FORWARD = Branch("attention"), Branch("feed_forward")
# Sublayers that read the same stream and are added together.
Group = tuple[Branch, ...]
# A layer: groups of sublayers, one after the other.
Order = tuple[Group, ...]
ORDER: Order = ((ATTENTION,), (FEED_FORWARD,))


@dataclass(frozen=True)
class Init:
    """Initialization of the branch kernels, apart from the forward pass.

    Attributes:
      distribution: ``"uniform"`` or ``"normal"``, with Xavier's variance ``2 / (fan_in + fan_out)``.
      gains: role (one of `ROLES`) to depth rule: the factor on the standard deviation. Roles that
        are not named keep gain 1.
      embedding: the standard deviation of token embeddings, which are normal.
    """

    distribution: Distribution = "uniform"
    gains: Mapping[str, DepthRule] = field(default_factory=dict, hash=False)
    embedding: DepthRule = one

    def __post_init__(self) -> None:
        unknown = set(self.gains) - set(ROLES)
        if unknown:
            raise ValueError(f"init gains name unknown roles {sorted(unknown)}; roles: {ROLES}")


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What a scheme puts inside the branches.

    Attributes:
      query_key: what is done to queries and keys: a row of `resnorm_jax.schemes.query_key`.
      query_key_norm: the norm of that row, where it takes one.
      value_norm: norm of the values, head by head, or None.
      heads_norm: norm of the joined heads before the output projection, or None.
      head_scale: whether each head has a learned factor, 1 at first, before that norm.
      mlp_norm: norm before the last projection of the feed-forward network, or None.
      mlp_scale: whether its first projections have learned factors, 1 at first: ``sqrt(D) u`` of
        fc1's output before the activation, ``v`` of the gate's (arXiv 2410.01131, eq. 20-21).
      parallel_norm: norm of each branch's input in a group of several, or None.
      value_residual: share r of the first layer's values in all others', which are
        ``(1 - r) V_l + r V_1``, or None.
      shaped: whether self-attention is ``a I + b softmax - g C``, C attending to all keys alike;
        a, b and g are learned by head, 1 at first.
    """

    query_key: str = "none"
    query_key_norm: NormSlot = NORM
    value_norm: NormSlot | None = None
    heads_norm: NormSlot | None = None
    head_scale: bool = False
    mlp_norm: NormSlot | None = None
    mlp_scale: bool = False
    parallel_norm: NormSlot | None = None
    value_residual: float | None = None
    shaped: bool = False


Changes = Mapping[str, Any]


def _same(place: Place) -> Changes:
    return {}


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How a stack of sublayers normalizes and adds: one row of its family's table.

    Attributes:
      name: lower_snake, the same in code, configs, command line, results and plots.
      equation: one line from which the row can be written: x the stream, f the sublayer, LN the
        norm that the model chooses (each a norm of its own), N layers, l the layer and s the
        sublayer from 1, D the width, H heads of K features, [D] one number a feature.
      source: paper (arXiv number), equation, and the official code where there is one.
      used_by: models that use it.
      embedding_norm: norm of the embedded input, or None.
      norm_before: norm of the branch's input, or None.
      norm_after: norm of the branch's output, or None.
      norm_on_stream: norm of the sum, on the stream, or None.
      final_norm: norm after the last layer, or None.
      stream: the residual scheme: how the stream is opened, read, written and closed.
      read_scale: factor on the branch's input, after its norm.
      skip_scale: factor on the stream when a branch is added.
      branch_scale: factor on the branch when it is added.
      init: initialization of the branches.
      inside: what stands inside the branches.
      order: the sublayers of a layer.
      by_sublayer: sublayer to fields of this row that differ there.
      by_layer: function of the place to fields of this row that differ in that layer.
      deep: whether its source trains a thousand layers with it.
      usual: whether it is measured where nobody says which: controls, and what many models use.
      aliases: other names of the same thing.
    """

    name: str
    equation: str
    source: str
    used_by: str = ""
    embedding_norm: NormSlot | None = None
    norm_before: NormSlot | None = None
    norm_after: NormSlot | None = None
    norm_on_stream: NormSlot | None = None
    final_norm: NormSlot | None = None
    stream: Stream = ADD
    read_scale: DepthRule = one
    skip_scale: DepthRule = one
    branch_scale: DepthRule = one
    init: Init = field(default_factory=Init)
    inside: Inside = field(default_factory=Inside)
    order: Order = ORDER
    by_sublayer: Mapping[Branch, Changes] = field(default_factory=dict, hash=False)
    by_layer: Callable[[Place], Changes] = _same
    deep: bool = False
    usual: bool = False
    aliases: tuple[str, ...] = ()

    def in_layer(self, place: Place) -> "Arrangement":
        """Return the row as it is in one layer."""
        if self.by_layer is _same:
            return self
        return replace(self, by_layer=_same, **self.by_layer(place))

    def at(self, group: Group) -> "Arrangement":
        """Return the row as it is at one group of sublayers, which has changes if it is but one."""
        changes = self.by_sublayer.get(group[0]) if len(group) == 1 else None
        return replace(self, by_sublayer={}, **changes) if changes else self

    def __post_init__(self) -> None:
        branches = [*self.by_sublayer, *(branch for group in self.order for branch in group)]
        for branch in branches:
            if not isinstance(branch, Branch):
                raise TypeError(
                    f"arrangement {self.name!r}: {branch!r} in order or by_sublayer is not a Branch, "
                    "such as ATTENTION, FEED_FORWARD or Branch('feed_forward', 1)"
                )
