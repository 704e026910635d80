"""What the compiled programs say of themselves, free of noise, and how long compiling takes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from resnorm_jax.bench.model import Size, initial_parameters, our_model, random_batch
from resnorm_jax.bench.norm_speed import OURS, jax_norms, random_case, with_gradients
from resnorm_jax.bench.step_speed import FLAX, SCANNED, jax_steps, our_state, our_step


def program_cost(compiled: Any) -> dict[str, float | None]:
    """Return bytes accessed, operations and temporary bytes; None where the backend does not say."""
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    memory = compiled.memory_analysis()
    return {
        "bytes_accessed": cost.get("bytes accessed"),
        "flops": cost.get("flops"),
        "temporary_bytes": None if memory is None else float(memory.temp_size_in_bytes),
    }


def norm_cost(kind: str, shape: Sequence[int], dtype_name: str) -> dict[str, Any]:
    """Return the costs of a norm's forward and backward pass, by peer."""
    dtype = jnp.dtype(dtype_name)
    case = random_case(kind, shape, dtype)
    programs = {
        name: program_cost(jax.jit(with_gradients(norm)).lower(*case).compile())
        for name, norm in jax_norms(kind, dtype).items()
    }
    return {"norm": kind, "shape": list(shape), **_compared(programs, [OURS])}


def step_cost(size: Size, dtype_name: str) -> dict[str, Any]:
    """Return the costs of a training step, by peer."""
    batch = random_batch(size)
    steps = jax_steps(size, jnp.dtype(dtype_name), initial_parameters(size))
    programs = {
        name: program_cost(jax.jit(step, donate_argnums=0).lower(state, batch).compile())
        for name, (step, state) in steps.items()
    }
    # XLA counts the body of a loop once, however often it runs: not to be compared.
    programs[SCANNED] |= {"bytes_accessed": None, "flops": None}
    ours = [name for name in programs if name != FLAX]
    return {"size": asdict(size), **_compared(programs, ours)}


def compile_times(
    size: Size, dtype_name: str, depths: Sequence[int], repeats: int = 3
) -> dict[str, Any]:
    """Trace and compile the scanned training step at several depths; return the shortest seconds.

    Returns:
      ``rows`` with depth, ``trace`` and ``compile`` seconds and their sum ``total``; and ``ratio``,
      the total at the last depth over that at the first.
    """
    best: dict[int, dict[str, float]] = {}
    with no_compilation_cache():
        for _ in range(repeats):
            for depth in depths:
                seconds = _compile_seconds(replace(size, depth=depth), dtype_name)
                if depth not in best or seconds["total"] < best[depth]["total"]:
                    best[depth] = seconds
    return {
        "rows": [{"depth": depth, **best[depth]} for depth in depths],
        "ratio": best[depths[-1]]["total"] / best[depths[0]]["total"],
        "repeats": repeats,
    }


def _compile_seconds(size: Size, dtype_name: str) -> dict[str, float]:
    """Compile the step once, from a new function, for the shapes of its arguments alone."""
    batch = random_batch(size)
    model = our_model(size)

    def first_state() -> Any:
        variables = model.init(jax.random.key(0), batch["x"][:1], batch["mask"][:1])
        return our_state(variables["params"])

    state = jax.eval_shape(first_state)
    step = our_step(size, jnp.dtype(dtype_name), 1)
    start = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
    traced = time.perf_counter()
    lowered.compile()
    end = time.perf_counter()
    return {"trace": traced - start, "compile": end - traced, "total": end - start}


def _compared(programs: dict[str, dict[str, float | None]], ours: list[str]) -> dict[str, Any]:
    return {
        "programs": programs,
        "ratios": [
            {
                "ours": own,
                "peer": peer,
                **{
                    key: _divided(value, programs[peer][key])
                    for key, value in programs[own].items()
                },
            }
            for own in ours
            for peer in programs
            if peer not in ours
        ],
    }


def _divided(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


@contextmanager
def no_compilation_cache() -> Iterator[None]:
    """Compile anew, whatever lies in the cache on the disk."""
    option = "jax_enable_compilation_cache"
    before = getattr(jax.config, option)
    jax.config.update(option, False)
    reset_cache()  # jax asks only once whether there is one
    try:
        yield
    finally:
        jax.config.update(option, before)
        reset_cache()
