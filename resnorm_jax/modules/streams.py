"""What a stream needs from Flax: its parameters, its norms and its clock."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.modules.fields import Context, Normalize, Numerics, make_norm
from resnorm_jax.planning import PlannedNorm
from resnorm_jax.schemes.stream import Carry, Site, Stream, StreamParameter


def open_stream(
    module: nn.Module, stream: Stream, x: jax.Array, site: Site, numerics: Numerics, *scopes: str
) -> tuple[Carry, Site]:
    """Open a stream whose parameters of some scopes, and whose clock, ``module`` holds."""
    site = replace(site, step=schedule_step(module, stream))
    site = own_parameters(module, stream, site, numerics, *scopes)
    return stream.open(x, site), site


def own_parameters(
    module: nn.Module, stream: Stream, site: Site, numerics: Numerics, *scopes: str
) -> Site:
    """Create the stream's parameters of some scopes in ``module``; return the site with them."""

    def declare(parameter: StreamParameter) -> jax.Array:
        return module.param(
            parameter.name, lambda key: parameter.create(key, numerics.param_dtype, site)
        )

    made = {
        p.name: declare(p)
        for p in stream.parameters
        if p.scope in scopes and p.name not in site.parameters
    }
    return replace(site, parameters={**site.parameters, **made})


def own_norms(
    norms: Iterable[PlannedNorm],
    site: Site,
    numerics: Numerics,
    context: Context,
    *,
    on_stream: bool = True,
) -> Site:
    """Return the site that applies a stream's own norms by name, each made where it is first used.

    ``on_stream`` keeps the stream's dtype, else that of ``numerics`` is taken.
    """
    planned = {norm.name: norm for norm in norms}
    made: dict[str, Normalize] = {}

    def norm(name: str, z: jax.Array) -> jax.Array:
        if name not in planned:
            return z
        if name not in made:
            dtype: Any = z.dtype if on_stream else None
            made[name] = make_norm(planned[name], numerics, context, dtype)
        return made[name](z)

    return replace(site, norm=norm) if planned else site


def schedule_step(module: nn.Module, stream: Stream) -> float | jax.Array:
    """Return the updates done, for streams that change over training; without a trainer, infinity.

    A trainer keeps it in the collection ``schedule``: see `resnorm_jax.training.step`.
    """
    if not stream.scheduled:
        return 0.0
    if module.has_variable("schedule", "step") or module.is_initializing():
        return module.variable("schedule", "step", lambda: jnp.zeros((), jnp.float32)).value
    return jnp.inf
