"""How fast the device copies memory: what a norm, which only moves it, could reach at best."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.timing import Budget, interleave, summary


def copy_speed(size: int, budget: Budget) -> dict[str, float]:
    """Copy an array by all that can; return bytes read and written a second, by who copied.

    Args:
      size: bytes of the array; more than the caches hold.
      budget: how long to measure.
    """
    samples = interleave(_copies(size // 2), budget)
    return {name: 2 * size / times["median"] for name, times in summary(samples).items()}


def _copies(count: int) -> dict[str, Callable[[], object]]:
    """Return who copies an array of ``count`` elements of bfloat16."""
    source = jnp.ones(count, jnp.bfloat16)
    copy = jax.jit(jnp.copy)
    copies: dict[str, Callable[[], object]] = {"jax": lambda: copy(source)}
    if torch_peer.unavailable() is None:
        import torch

        theirs = torch.ones(count, dtype=torch.bfloat16, device=torch_peer.device())
        target = torch.empty_like(theirs)
        copies["torch"] = lambda: target.copy_(theirs)
    return copies


def share_of_copy(moved: int, seconds: float, copy: float) -> float:
    """Return which share of the copy's bytes a second were reached, in percent.

    Args:
      moved: bytes that had to be read or written.
      seconds: that it took.
      copy: bytes a second of the copy. What fits in a cache can be faster.
    """
    return 100 * moved / seconds / copy
