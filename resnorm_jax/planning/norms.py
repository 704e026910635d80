"""Which norm stands in which slot, in each layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resnorm_jax.errors import ChoiceError, nearest
from resnorm_jax.norms.rows import NORMS
from resnorm_jax.planning.tree import PlannedNorm
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.slots import SLOTS, NormSlot

# In the place of a norm: none stands there.
NO_NORM = "none"
# A norm by name or row; one for each layer; or a function of the place.
Norm = Any
Norms = Mapping[str, Norm]
DEFAULT = "default"


@dataclass(frozen=True)
class SlotNorms:
    """The norms of one layer by slot: a scheme's, the slot's own, or the default.

    Attributes:
      norms: slot to norm, with ``"default"`` for all slots not named; ``"attention/norm_before"`` is
        that slot of the sublayer of that name alone.
      epsilon: None for each norm's own.
      read: keys of ``norms`` that a slot has read; noted here.
      block: the sublayer that asks.
    """

    norms: Norms
    epsilon: float | None = None
    read: set[str] = field(default_factory=set, compare=False)
    block: str = ""

    def within(self, block: str) -> "SlotNorms":
        """Return the norms as a sublayer sees them."""
        return replace(self, block=block)

    def at(self, key: str, slot: NormSlot | None, name: str = "") -> PlannedNorm | None:
        """Return the norm of a slot as the module ``name``, or None where no norm stands.

        None stands where the slot is not there, and where the model's choice is ``"none"``.
        """
        if slot is None:
            return None
        keys = (f"{self.block}/{key}", key, DEFAULT)
        own = next(k for k in keys if k in self.norms)
        if slot.norm is None:
            self.read.add(own)
        if slot.norm is None and self.norms[own] == NO_NORM:
            return None
        spec = find(_field(own), slot.norm or self.norms[own])
        epsilon = None if slot.norm else self.epsilon
        spec.check(epsilon, slot.scale_init)
        return PlannedNorm(name or key, spec, epsilon, slot.scale_init)

    def own(self, name: str, slot: NormSlot) -> PlannedNorm:
        """Return a norm that a stream asks for, by the stream's own name for it."""
        planned = self.at(name, slot)
        if planned is None:
            raise ChoiceError(f"{name}: {NO_NORM!r}: the stream needs a norm there; name one")
        return planned


def find(field: str, name: Any) -> Any:
    """Return a row of the norms' table; its error names the field."""
    try:
        return NORMS.get(name)
    except ValueError as error:
        raise ChoiceError(f"{field}: {str(error).partition(': ')[2]}") from None


def by_depth(norms: Norms, places: Sequence[Place]) -> list[dict[str, Any]]:
    """Return, for each layer, slot to norm.

    Raises:
      ChoiceError: for a norm by layer that does not fit the depth, or a name that is not known.
    """
    check_slots(norms)
    spread = {slot: _spread(norm, places, _field(slot)) for slot, norm in norms.items()}
    for slot, each in spread.items():
        for name in dict.fromkeys(n for n in each if isinstance(n, str) and n != NO_NORM):
            find(_field(slot), name)
    return [{slot: each[n] for slot, each in spread.items()} for n in range(len(places))]


def check_slots(norms: Norms) -> None:
    """Raise ChoiceError for a slot that is not known."""
    for slot in norms:
        last = slot.rpartition("/")[2]
        if last not in (*SLOTS, DEFAULT):
            raise ChoiceError(f"norms: unknown slot {slot!r}; {nearest(last, SLOTS)}")


def _spread(norm: Norm, places: Sequence[Place], field: str) -> list[Any]:
    """Return the norm of each layer."""
    depth = len(places)
    if isinstance(norm, str):
        norm = _parse(norm, depth, field)
    if isinstance(norm, Callable) and not hasattr(norm, "name"):  # type: ignore[arg-type]
        return [norm(place) for place in places]
    if not isinstance(norm, list | tuple):
        return [norm] * depth
    if len(norm) != depth:
        raise ChoiceError(f"{field}: {len(norm)} norms for {depth} layers; give one a layer")
    return list(norm)


def _parse(text: str, depth: int, field: str) -> Any:
    """Read ``"layer*2+rms"``; the part without a number takes the layers that are left."""
    if "*" not in text and "+" not in text:
        return text
    parts = []
    for part in text.split("+"):
        name, star, count = part.strip().partition("*")
        if star and not (count.isascii() and count.isdecimal() and 0 < len(count) < 10):
            raise ChoiceError(f"{field}: {count!r} in {text!r} is not a number of layers")
        if star and not int(count):
            raise ChoiceError(f"{field}: {part.strip()!r} in {text!r} is no layer; leave it out")
        parts.append((name, int(count) if star else None))
    fixed = sum(count or 0 for _, count in parts)
    if [count for _, count in parts].count(None) > 1 or fixed > depth:
        raise ChoiceError(
            f"{field}: {text!r} does not fit {depth} layers; numbers may add up to at most the depth, "
            "and one part may have none"
        )
    return [name for name, count in parts for _ in range(depth - fixed if count is None else count)]


def _field(slot: str) -> str:
    return "norm" if slot == DEFAULT else slot
