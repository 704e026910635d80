"""A residual block around any module: where norm, branch and stream meet."""

import inspect
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from resnorm_jax.arrangements import DEFAULT, Arrangement, NormSlot, Place
from resnorm_jax.arrangements import get as get_arrangement
from resnorm_jax.modules.interventions import written
from resnorm_jax.modules.norm_table import NormSpec
from resnorm_jax.modules.slots import Context, build_norm
from resnorm_jax.ops.residual import drop_path, scaled
from resnorm_jax.ops.streams import STREAMS, Carry, Scale, Site, Stream, StreamParameter

Named = dict[str, Any]


class ResidualBlock(nn.Module):
    """Any shape-keeping module, normalized and added as an arrangement says.

    ::

        h     = read_scale * norm_before( stream.read(carry) )
        y     = norm_after( branch(h) )
        carry = norm_on_stream( stream.write(carry, dropout(y)) )

    Attributes:
      branch: module called as ``branch(h, *args, **kwargs)``; it keeps the shape of ``h``.
      arrangement: name or row of `resnorm_jax.arrangements`.
      norm: name or row of `resnorm_jax.norms`.
      norm_epsilon: None for the norm's own.
      place: where the block stands, for constants that depend on depth.
      dropout: dropout of the branch's output.
      norms: slot (``norm_before``, ``norm_after``, ``norm_on_stream``) to norm, in place of ``norm``.
      axis_name: mapped axis over which the batch is spread, for norms across rows.
      dtype: dtype of the norms' results; None for that of the input.
      param_dtype: dtype of the parameters.

    A single block has no final norm: the stack that it stands in has (`TransformerEncoder`).

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> block = ResidualBlock(nn.Dense(4), arrangement="post_ln")
    >>> x = jnp.ones((2, 3, 4))
    >>> block.apply(block.init(jax.random.key(0), x), x).shape
    (2, 3, 4)
    """

    branch: nn.Module
    arrangement: str | Arrangement = DEFAULT
    norm: str | NormSpec = "layer"
    norm_epsilon: float | None = None
    place: Place = Place()
    dropout: float = 0.0
    norms: Mapping[str, Any] = field(default_factory=FrozenDict)
    axis_name: str | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __call__(
        self,
        x: jax.Array,
        *args,
        context: Context | None = None,
        deterministic: bool = True,
        **kwargs,
    ) -> jax.Array:
        """Run the block on ``x``; further arguments go to the branch.

        ``context`` holds ``mask [B, L]`` and ``condition [B, C]`` for norms and streams that ask.
        """
        row = get_arrangement(self.arrangement)
        site = site_of(row, self.place, x.shape[-1], context or {})
        carry, _ = self.update(
            x, *args, site=site, fresh=True, context=context, deterministic=deterministic, **kwargs
        )
        return STREAMS.get(row.stream).view(carry)

    @nn.compact
    def update(
        self,
        carry: Carry,
        *args,
        site: Site,
        fresh: bool = False,
        read_scale: Scale | None = None,
        drop_path_rate: Scale = 0.0,
        context: Context | None = None,
        deterministic: bool = True,
        **kwargs,
    ) -> tuple[Carry, Named]:
        """Read from, and write to, a stream.

        Args:
          carry: the stream's carry.
          *args: passed to the branch.
          site: place, scales, mask and the parameters that sublayers share.
          fresh: whether ``carry`` is an input that the stream has yet to open, for a block alone.
          read_scale: in place of the arrangement's rule at ``place``.
          drop_path_rate: probability of dropping the branch of a sample.
          context: what norms may ask for beside ``deterministic``.
          deterministic: True turns dropout off.
          **kwargs: passed to the branch.

        Returns:
          The new carry, and by name what the branch read and wrote, and what else it returned.
        """
        row = get_arrangement(self.arrangement)
        stream = STREAMS.get(row.stream)
        told = {**(context or {}), "deterministic": deterministic}
        if fresh:
            carry, site = open_stream(self, stream, carry, site, "layer", "stack")
        site = own_parameters(self, stream, site, "sublayer")
        site = own_norms(self, stream.norms, site, told)
        h = self._norm("norm_before", row.norm_before, stream.read(carry, site), told)
        h = scaled(h, row.read_scale(self.place) if read_scale is None else read_scale)
        known = inspect.signature(type(self.branch).__call__).parameters
        kwargs |= {k: v for k, v in _offers(told).items() if k in known}
        returned = self.branch(h, *args, **kwargs)
        y, *extra = returned if isinstance(returned, tuple) else (returned,)
        y = written(self, "branch_out", self._norm("norm_after", row.norm_after, y, told))
        carry = stream.write(carry, self._drop(y, drop_path_rate, deterministic), site)
        slot = row.norm_on_stream
        if slot is not None:
            # In the stream's own dtype: a carry that changed its dtype could not be scanned.
            carry = stream.on_stream(
                lambda z: build_norm(self, "norm_on_stream", slot, told, z.dtype)(z), carry
            )
        return carry, {"branch_in": h, "branch_out": y, "extra": extra}

    def _norm(self, name: str, slot: NormSlot | None, x: jax.Array, told: Context) -> jax.Array:
        return build_norm(self, name, slot, told)(x) if slot is not None else x

    def _drop(self, y: jax.Array, rate: Scale, deterministic: bool) -> jax.Array:
        y = nn.Dropout(self.dropout)(y, deterministic=deterministic)
        if deterministic or (isinstance(rate, int | float) and rate == 0):
            return y
        return drop_path(y, rate, self.make_rng("dropout"))


def _offers(told: Context) -> dict[str, Any]:
    """What a branch is given if its call has a parameter of that name."""
    return {"deterministic": told["deterministic"], "context": told}


def site_of(row: Arrangement, place: Place, width: int, context: Context) -> Site:
    """Return the site of a place, with the row's scales there."""
    per_layer = max(1, place.sublayers // place.layers)
    position = (place.sublayer - 1) % per_layer
    return Site(
        width=width,
        layers=place.layers,
        sublayers=place.sublayers,
        layer=place.layer - 1,
        sublayer=place.sublayer - 1,
        position=position,
        last=position == per_layer - 1,
        skip_scale=row.skip_scale(place),
        branch_scale=row.branch_scale(place),
        mask=context.get("mask"),
        condition=context.get("condition"),
    )


def open_stream(
    module: nn.Module, stream: Stream, x: jax.Array, site: Site, *scopes: str
) -> tuple[Carry, Site]:
    """Open a stream whose parameters of some scopes, and whose clock, ``module`` holds."""
    site = replace(site, step=schedule_step(module, stream))
    site = own_parameters(module, stream, site, *scopes)
    return stream.open(x, site), site


def own_parameters(module: nn.Module, stream: Stream, site: Site, *scopes: str) -> Site:
    """Create the stream's parameters of some scopes in ``module``; return the site with them."""
    made = {
        p.name: declare(module, p, site)
        for p in stream.parameters
        if p.scope in scopes and p.name not in site.parameters
    }
    return replace(site, parameters={**site.parameters, **made})


def own_norms(
    module: nn.Module,
    slots: Mapping[str, NormSlot],
    site: Site,
    told: Context,
    *,
    on_stream: bool = True,
    norms: Mapping[str, Any] | None = None,
) -> Site:
    """Make a stream's own norms in ``module``; return the site that applies them by name.

    ``on_stream`` keeps the stream's dtype, else the module's is taken; ``norms`` as in `build_norm`.
    """
    made: dict[str, Any] = {}

    def norm(name: str, z: jax.Array) -> jax.Array:
        if name not in slots:
            return z
        if name not in made:
            dtype = z.dtype if on_stream else None
            made[name] = build_norm(module, name, slots[name], told, dtype, norms=norms)
        return made[name](z)

    return replace(site, norm=norm) if slots else site


def declare(module: nn.Module, parameter: StreamParameter, site: Site) -> jax.Array:
    """Create a stream's parameter in ``module``."""
    fields: Any = module
    dtype = fields.param_dtype
    return module.param(parameter.name, lambda key: parameter.create(key, dtype, site))


def schedule_step(module: nn.Module, stream: Stream) -> float | jax.Array:
    """Return the updates done, for streams that change over training; without a trainer, infinity.

    A trainer keeps it in the collection ``schedule``: see `resnorm_jax.training.step`.
    """
    if not stream.scheduled:
        return 0.0
    if module.has_variable("schedule", "step") or module.is_initializing():
        return module.variable("schedule", "step", lambda: jnp.zeros((), jnp.float32)).value
    return jnp.inf
