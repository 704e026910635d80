"""What several families read alike from their config.json, and write back."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnorm_jax.data.names import shown
from resnorm_jax.errors import UserError
from resnorm_jax.planning.by_layer import BASE, cycled, pattern_text
from resnorm_jax.planning.form import ALL, ATTENTION_ROLES, FEED_FORWARD_ROLES, NONE

Values = Mapping[str, Any]
FULL, SLIDING = "full_attention", "sliding_attention"


def need(config: Values, family: str, **wanted: tuple[Any, tuple[Any, ...]]) -> None:
    """Check fields that have one meaning here.

    Args:
      config: theirs.
      family: for the message.
      **wanted: field to its value where config.json has none, and the values that are read.

    Raises:
      UserError: naming the field and its value.
    """
    for name, (default, values) in wanted.items():
        value = config.get(name, default)
        if value not in values:
            raise UserError(
                f"config.json: {name} is {shown(value)}; of {family!r} models only those with "
                f"{' or '.join(map(shown, values))} are read"
            )


def biases(attention: Any, feed_forward: Any) -> str:
    """Return ``use_bias`` of two switches of theirs."""
    roles = (*(ATTENTION_ROLES if attention else ()), *(FEED_FORWARD_ROLES if feed_forward else ()))
    return {0: NONE, 6: ALL}.get(len(roles), "+".join(roles))


def windows(types: Sequence[str], window: int | None) -> str:
    """Return the pattern of windows of their layers' types."""
    return pattern_text([window if kind == SLIDING else ALL for kind in types])


def types_of(model: Values) -> tuple[list[str], int | None]:
    """Return their layers' types of a model of ours, and its one window; None without.

    Raises:
      UserError: where layers have different windows.
    """
    reach = cycled("window", model["window"], model["depth"], str)
    found = sorted(set(reach) - {ALL})
    if len(found) > 1:
        raise UserError(f"config.model.window: {model['window']!r}: these models have one window")
    types = [FULL if seen == ALL else SLIDING for seen in reach]
    return types, int(found[0]) if found else None


def rotary_base(config: Values, kind: str = "", default: float = BASE, old: str = "") -> float:
    """Return the base of the rotation of a layer's type, in the new words or the old ones.

    Args:
      config: theirs.
      kind: of the layers; "" where all are alike.
      default: where config.json has none.
      old: the field's name in older files.

    Raises:
      UserError: for frequencies that are scaled.
    """
    said = config.get("rope_parameters") or {}
    said = said.get(kind) or (said if "rope_theta" in said else {}) if kind else said
    scaled = config.get("rope_scaling")
    if said.get("rope_type", "default") != "default" or scaled:
        raise UserError(
            f"config.json: rope {shown(scaled or said)}: scaled frequencies are not read here; take a "
            "checkpoint without"
        )
    before: Any = config.get(old or "rope_theta", default)
    return float(said.get("rope_theta", before))


def bases(types: Sequence[str], full: float, sliding: float) -> str:
    """Return the pattern of rotary bases of their layers' types."""
    return pattern_text([f"{sliding if kind == SLIDING else full:.17g}" for kind in types])


def rotations(model: Values, types: Sequence[str]) -> dict[str, Any]:
    """Return ``rope_parameters`` of a model of ours, by its layers' types.

    Raises:
      UserError: where layers of one type have different bases.
    """
    given = cycled("rotary_base", model["rotary_base"] or BASE, model["depth"], float)
    out: dict[str, Any] = {}
    for kind, base in zip(types, given, strict=True):
        if out.setdefault(kind, {"rope_type": "default", "rope_theta": base})["rope_theta"] != base:
            raise UserError(
                f"config.model.rotary_base: {model['rotary_base']!r}: these models have one base for "
                "layers with a window and one for those without"
            )
    return out
