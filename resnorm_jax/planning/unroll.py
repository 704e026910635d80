"""How many layers stand in each step of the loop over a stack."""

from typing import Literal

import jax

from resnorm_jax.errors import ChoiceError
from resnorm_jax.sizes import SIZES

Unroll = int | Literal["auto"]
AUTO: Literal["auto"] = "auto"
BACKENDS = ("cpu", "gpu", "tpu")
# Layers of a stack up to which "auto" unrolls it. A loop fills stacked arrays with zeros, and copies
# into and out of them what the backward pass needs. On a GPU 12 layers of BERT-base's size take 1.3 to
# 1.5 times as long in a loop, and compile in 0.6 to 1.0 of the time. On a CPU the steps of
# configs/japanese_vowels.py (3 layers, width 128) take as long either way; their programs compile in
# 25 seconds as loops and in 42 unrolled: a first run is shorter by a fifth.
UNROLLED_TO = {"cpu": 1}
UNROLLED_TO_ELSEWHERE = 24


def choose_unroll(unroll: Unroll, depth: int, remat: str, backend: str | None = None) -> int:
    """Return how many layers stand in each step of the loop over a stack.

    Args:
      unroll: their number, or ``"auto"``: all of a shallow stack, up to 24 layers on a GPU or
        TPU, else 1. A stack whose backward pass computes layers again is there to save memory:
        it stays a loop.
      depth: layers of the stack.
      remat: what the backward pass computes again.
      backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``; JAX's default one if None.

    Raises:
      ChoiceError: for anything else.
    """
    if unroll == AUTO:
        most = UNROLLED_TO.get(backend or jax.default_backend(), UNROLLED_TO_ELSEWHERE)
        return depth if remat == "none" and depth <= most else 1
    if isinstance(unroll, bool) or not isinstance(unroll, int) or not SIZES["depth"].holds(unroll):
        raise ChoiceError(f"unroll: {unroll!r} is no number of layers; give one from 1, or 'auto'")
    return min(unroll, depth)


def loop_text(unroll: int, depth: int) -> str:
    """Return what is said of the loop over layers."""
    if unroll >= depth:
        return "unrolled"
    return "in a loop" + (f", {unroll} in each step" if unroll > 1 else "")


def auto_text(depth: int) -> str:
    """Return what ``"auto"`` stands for at a depth, by backend."""
    said = {name: loop_text(choose_unroll(AUTO, depth, "none", name), depth) for name in BACKENDS}
    return ", ".join(f"{text} on a {name.upper()}" for name, text in said.items())
