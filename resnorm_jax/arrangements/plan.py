"""From a row and a depth to segments: runs of layers that are alike, each compiled once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

from resnorm_jax.arrangements.depth_rules import Place
from resnorm_jax.arrangements.spec import Arrangement
from resnorm_jax.errors import UserError, nearest

# Where a norm may stand. The first five are slots of the stack, the others stand inside branches.
SLOTS = (
    "embedding_norm", "norm_before", "norm_after", "norm_on_stream", "final_norm",
    "query_key_norm", "value_norm", "heads_norm", "mlp_norm", "parallel_norm",
)  # fmt: skip
# A norm by name or row; one for each layer; or a function of the place.
Norm = Any
Norms = Mapping[str, Norm]


@dataclass(frozen=True)
class Segment:
    """Layers that differ in nothing but numbers.

    Attributes:
      places: of each layer; its sublayers count from ``place.sublayer``.
      arrangement: the row as it is in these layers.
      norms: slot to the norm that stands there in these layers.
    """

    places: tuple[Place, ...]
    arrangement: Arrangement
    norms: Norms


def plan_layers(
    arrangement: Arrangement,
    depth: int,
    norms: Norms,
    stack: Place | None = None,
    cross_attention: bool = False,
) -> tuple[Segment, ...]:
    """Split ``depth`` layers into segments.

    Args:
      arrangement: the row.
      depth: N.
      norms: slot to norm, with ``"default"`` for all slots not named: each a name, a row, a sequence
        of N of them, a text such as ``"layer*2+rms"`` (two layers, then the rest), or a function of
        the place.
      stack: a place whose ``stack`` and ``other`` say what stands beside; None for a stack alone.
      cross_attention: whether cross-attention follows each group with self-attention.

    Raises:
      UserError: for a sequence of another length.
    """
    base = replace(stack or Place(), layers=depth)
    rows = [arrangement.in_layer(replace(base, layer=n + 1)) for n in range(depth)]
    if cross_attention:
        rows = [with_cross_attention(row) for row in rows]
    ends = list(accumulate(len(row.order) for row in rows))
    places = [
        replace(base, layer=n + 1, sublayer=end - len(row.order) + 1, sublayers=ends[-1])
        for n, (row, end) in enumerate(zip(rows, ends, strict=True))
    ]
    chosen = {slot: spread(norm, places, slot) for slot, norm in norms.items()}
    layers = [
        (place, row, {slot: by_layer[n] for slot, by_layer in chosen.items()})
        for n, (place, row) in enumerate(zip(places, rows, strict=True))
    ]
    runs = groupby(layers, key=lambda layer: layer[1:])
    return tuple(Segment(tuple(layer[0] for layer in run), *alike) for alike, run in runs)


def with_cross_attention(row: Arrangement) -> Arrangement:
    """Return the row with cross-attention after each group that has self-attention."""
    order: list[tuple[str, ...]] = []
    for group in row.order:
        order.append(group)
        if any(name.startswith("attention") for name in group):
            order.append(("cross_attention",))
    return replace(row, order=tuple(order))


def spread(norm: Norm, places: Sequence[Place], slot: str) -> list[Any]:
    """Return the norm of each layer."""
    depth = len(places)
    if isinstance(norm, str):
        norm = _parse(norm, depth, slot)
    if isinstance(norm, Callable) and not hasattr(norm, "name"):  # type: ignore[arg-type]
        return [norm(place) for place in places]
    if not isinstance(norm, list | tuple):
        return [norm] * depth
    if len(norm) != depth:
        raise UserError(
            f"config.model.{_field(slot)}: {len(norm)} norms for {depth} layers; give one a layer"
        )
    return list(norm)


def _parse(text: str, depth: int, slot: str) -> Any:
    """Read ``"layer*2+rms"``; the part without a number takes the layers that are left."""
    if "*" not in text and "+" not in text:
        return text
    parts = []
    for part in text.split("+"):
        name, _, count = part.strip().partition("*")
        if count and not count.isdecimal():
            raise UserError(f"config.model.{_field(slot)}: {count!r} in {text!r} is not a number")
        parts.append((name, int(count) if count else None))
    fixed = sum(count or 0 for _, count in parts)
    if [count for _, count in parts].count(None) > 1 or fixed > depth:
        raise UserError(
            f"config.model.{_field(slot)}: {text!r} does not fit {depth} layers; numbers may add up "
            "to at most the depth, and one part may have none"
        )
    return [name for name, count in parts for _ in range(depth - fixed if count is None else count)]


def _field(slot: str) -> str:
    return "norm" if slot == "default" else slot


def check_slots(norms: Norms) -> None:
    """Raise UserError for a slot that is not known; ``"attention/norm_before"`` names a block's."""
    for slot in norms:
        _, _, last = slot.rpartition("/")
        if last not in (*SLOTS, "default"):
            raise UserError(f"norms: unknown slot {slot!r}; {nearest(last, SLOTS)}")
