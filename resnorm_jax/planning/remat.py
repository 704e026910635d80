"""What the backward pass computes again."""

from collections.abc import Callable
from typing import Any

import jax

from resnorm_jax.errors import ChoiceError, nearest

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def check_remat(remat: str, every: int) -> None:
    """Raise ChoiceError for a policy that is not known, or blocks of layers without one."""
    if remat not in REMAT:
        raise ChoiceError(f"remat: unknown value {remat!r}; {nearest(remat, REMAT)}")
    if every > 1 and remat == "none":
        raise ChoiceError("remat_every: not read without remat; give remat='full'")


def check_blocks(count: int, every: int) -> None:
    """Raise ChoiceError if ``count`` like layers cannot be cut into blocks of ``every``."""
    if count % every:
        near = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: abs(n - every))
        raise ChoiceError(f"remat_every: {every} does not divide {count} layers; try {near}")
