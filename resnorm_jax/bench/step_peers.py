"""Whose training step is measured: a row each, with what it needs and how its step is made."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.cases import Model
from resnorm_jax.bench.flax_peer import flax_step, from_ours
from resnorm_jax.bench.memory import no_compilation_cache, program_cost
from resnorm_jax.bench.model import Size, flax_model, optimizer, parameter_count
from resnorm_jax.bench.norm_speed import OURS, TORCH
from resnorm_jax.bench.step_speed import FLAX, SCANNED, UNROLLED, our_state, our_step
from resnorm_jax.bench.ways import compiler_options
from resnorm_jax.training.determinism import traced_for


@dataclass(frozen=True)
class Ready:
    """A training step that runs.

    Attributes:
      update: does one more update; returns arrays that it leads to.
      parameters: how many numbers are trained.
      facts: ``compile_seconds``, ``temporary_bytes`` and ``kernels``, None where not known.
    """

    update: Callable[[], Any]
    parameters: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
      name: of the results' column.
      make: returns the step, of a model, our parameters and a batch on the host.
      ours: whether it is compared with the others.
      torch: whether it needs torch.
      slow: backends where it takes so long that it is measured only when asked for.
      unroll: where only the loop over layers is another than by default: size to layers in a step.
    """

    name: str
    make: Callable[[Model, Any, Any], Ready]
    ours: bool = False
    torch: bool = False
    slow: tuple[str, ...] = ()
    unroll: Callable[[Size], int] | None = None

    def missing(self, everything: bool = False) -> str | None:
        """Return why it is not measured here, or None; ``everything``: slow ones too."""
        if jax.default_backend() in self.slow and not everything:
            return "takes long to compile here; measured with --all"
        return torch_peer.unavailable() if self.torch else None


def _ours(unroll: Callable[[Size], int | None], model: Model, params: Any, batch: Any) -> Ready:
    step = our_step(model.size, jnp.dtype(model.dtype), unroll(model.size))
    state = our_state(jax.tree.map(jnp.copy, params))
    return _compiled(step, state, params, batch, compiler_options())


def _flax(model: Model, params: Any, batch: Any) -> Ready:
    step = flax_step(flax_model(model.size, jnp.dtype(model.dtype)), optimizer())
    theirs = from_ours(params, model.size.depth)
    return _compiled(step, (theirs, optimizer().init(theirs)), theirs, batch)


def _compiled(
    step: Callable[..., Any], state: Any, params: Any, batch: Any, options: Any = None
) -> Ready:
    """Compile a step; each update gives the state's memory up to the next."""
    on_device = jax.device_put(batch)
    with no_compilation_cache():
        begin = time.perf_counter()
        told = traced_for(options, step)
        jitted = jax.jit(told, donate_argnums=0, compiler_options=options)
        program = jitted.lower(state, on_device).compile()
        seconds = time.perf_counter() - begin

    def update() -> Any:
        nonlocal state
        state, metrics = program(state, on_device)
        return metrics

    facts = {
        "compile_seconds": seconds,
        "temporary_bytes": program_cost(program)["temporary_bytes"],
        "kernels": kernels(program.as_text() or ""),
    }
    return Ready(update, parameter_count(params), facts)


def kernels(program: str) -> dict[str, int]:
    """Return what a compiled program calls that XLA did not write, and how often it stands there."""
    return dict(Counter(re.findall(r'custom_call_target="([^"]+)"', program)))


def _torch(compiled: bool, model: Model, params: Any, batch: Any) -> Ready:
    update, count = torch_peer.step(model.size, params, batch, model.dtype, compiled)
    begin = time.perf_counter()
    float(update())
    seconds = time.perf_counter() - begin
    facts = {
        "compile_seconds": seconds if compiled else None,
        "temporary_bytes": torch_peer.peak_bytes(update),
        "kernels": None,
    }
    return Ready(update, count, facts)


def _one(size: Size) -> int:
    return 1


def _all(size: Size) -> int:
    return size.depth


PEERS = (
    Peer(OURS, partial(_ours, lambda size: None), ours=True),
    Peer(SCANNED, partial(_ours, _one), ours=True, unroll=_one),
    Peer(UNROLLED, partial(_ours, _all), ours=True, unroll=_all),
    Peer(FLAX, _flax),
    Peer(TORCH, partial(_torch, False), torch=True),
    Peer("torch compiled", partial(_torch, True), torch=True, slow=("cpu",)),
)
