"""How large a model and a run may be: ranges that configs, models made in code and commands share."""

from numbers import Integral, Real
from typing import Any

from resnorm_jax.errors import ChoiceError, UserError
from resnorm_jax.schema import SHARE, Rule, from_zero, over_zero, told

WIDEST = 2**20
SIZES: dict[str, Rule] = {
    "width": over_zero(WIDEST),
    "depth": over_zero(10_000),
    "layer_groups": over_zero(10_000),
    "heads": over_zero(2**16),
    "mlp_width": over_zero(4 * WIDEST),
    "kv_heads": over_zero(2**16),
    "head_width": over_zero(WIDEST),
    "attention_scale": over_zero(1e6),
    "window": over_zero(2**30 - 1),
    "rotary_base": over_zero(1e30),
    "relative_buckets": over_zero(2**16),
    "relative_positions": over_zero(2**24),
    "norm_epsilon": from_zero(1e6),
    "drop_path": SHARE,
}
# All other sizes are counts.
SHARES = ("norm_epsilon", "drop_path", "attention_scale", "rotary_base")
RATE = over_zero(1e30)
STEPS = over_zero(10**9)  # steps are folded into keys of 32 bits, whose upper end is for other uses


def _check_number(name: str, value: Any) -> None:
    whole = name not in SHARES
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        kind = "whole number" if whole else "number"
        raise ChoiceError(f"{name}: {told(repr(value))} is no {kind}; give one")


def check_sizes(**given: Any) -> None:
    """Check the numbers of a model; None is not checked.

    Raises:
      ChoiceError: for a number out of its range.
    """
    try:
        for name, value in given.items():
            if value is not None:
                _check_number(name, value)
                SIZES[name].check(name, value)
    except UserError as error:
        raise ChoiceError(str(error)) from None
