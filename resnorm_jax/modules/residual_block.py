"""A residual block around any module: where norm, branch and stream meet."""

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from resnorm_jax.arguments import as_mask, check_axes, check_real
from resnorm_jax.modules.fields import (
    Context,
    NormFields,
    Numerics,
    apply_norm,
    make_norm,
    norm_and_stream,
)
from resnorm_jax.modules.hooks import BRANCH_OUT, hooked
from resnorm_jax.modules.streams import open_stream, own_norms, own_parameters
from resnorm_jax.ops.residual import drop_path, scaled
from resnorm_jax.planning import SublayerNumbers, SublayerPlan
from resnorm_jax.planning.resolve import plan_block, sublayer_numbers
from resnorm_jax.schemes import ARRANGEMENTS, DEFAULT
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Carry, Scale, Site

Named = dict[str, Any]


def run_block(
    module: "PlannedBlock | ResidualBlock",
    plan: SublayerPlan,
    carry: Carry,
    call: Callable[[jax.Array], Any],
    *,
    numbers: SublayerNumbers,
    site: Site,
    context: Context,
    drop_path_rate: Scale = 0.0,
) -> tuple[Carry, Named]:
    """Read from, and write to, a stream, inside a module's compact call.

    Args:
      module: whose compact call is running; it becomes the parent of the norms.
      plan: of the block.
      carry: the stream's carry.
      call: the branch; it returns ``y``, or a tuple of ``y`` and what else there is.
      numbers: the scales of this sublayer.
      site: place, scales, mask and the parameters that sublayers share.
      context: what norms may ask for; ``deterministic`` turns dropout off.
      drop_path_rate: probability of dropping the branch of a sample.

    Returns:
      The new carry, and by name what the branch read and wrote, and what else it returned.
    """
    stream, numerics = plan.stream, module.numerics
    site = own_parameters(module, stream, site, numerics, "sublayer")
    site = own_norms(plan.stream_norms, site, numerics, context)
    if stream.reads:
        h = apply_norm(plan.norm_before, stream.read(carry, site), numerics, context)
    else:
        h, carry = norm_and_stream(plan.norm_before, carry, numerics, context)
    h = scaled(h, numbers.read_scale)
    returned = call(h)
    y, *extra = returned if isinstance(returned, tuple) else (returned,)
    y = hooked(module, BRANCH_OUT, apply_norm(plan.norm_after, y, numerics, context))
    carry = stream.write(carry, _drop(module, y, drop_path_rate, context), site)
    norm = plan.norm_on_stream
    if norm is not None:
        # In the stream's own dtype: a carry that changed its dtype could not be scanned.
        carry = stream.on_stream(lambda z: make_norm(norm, numerics, context, z.dtype)(z), carry)
    return carry, {"branch_in": h, "branch_out": y, "extra": extra}


def _drop(
    module: "PlannedBlock | ResidualBlock", y: jax.Array, rate: Scale, context: Context
) -> jax.Array:
    deterministic = context["deterministic"]
    y = nn.Dropout(module.dropout)(y, deterministic=deterministic)
    if deterministic or (isinstance(rate, int | float) and rate == 0):
        return y
    return drop_path(y, rate, module.make_rng("dropout"))


class PlannedBlock(nn.Module):
    """A residual block of a planned layer.

    Attributes:
      branch: module called as ``branch(h, **arguments)``; it keeps the shape of ``h``.
      plan: of the block.
      numerics: dtypes and axis.
      dropout: dropout of the branch's output.
    """

    branch: nn.Module
    plan: SublayerPlan
    numerics: Numerics
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, carry: Carry, arguments: dict[str, Any], **given: Any
    ) -> tuple[Carry, Named]:
        """Run the block; see `run_block`."""
        return run_block(self, self.plan, carry, partial(self.branch, **arguments), **given)


class ResidualBlock(NormFields):
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
    _: KW_ONLY
    place: Place = Place()
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *args,
        context: Context | None = None,
        deterministic: bool = True,
        **kwargs,
    ) -> jax.Array:
        """Run the block on ``x [..., D]``; further arguments go to the branch.

        A branch is told ``deterministic`` and ``context`` where its call names them; one that takes any
        keyword argument is told ``deterministic``.

        Args:
          x: what the branch reads and adds to.
          *args: go to the branch.
          context: ``mask [B, L]`` and ``condition [B, C]`` for norms and streams that ask.
          deterministic: True turns dropout off.
          **kwargs: go to the branch.

        Raises:
          TypeError: if ``x`` is complex, or the mask one of numbers.
          ValueError: if the branch changes the shape.
        """
        check_real("x", x)
        check_axes(x=(x, "... D"))
        told = {**(context or {}), "deterministic": deterministic}
        if told.get("mask") is not None:
            told["mask"] = as_mask("context['mask']", told["mask"])
        place = self.place
        row = ARRANGEMENTS.get(self.arrangement).in_layer(place)
        plan = plan_block(row, place, self.slot_norms, self.norm_epsilon)
        numbers = sublayer_numbers(row, place)
        site = site_of(plan, place, numbers, x.shape[-1], told)
        carry, site = open_stream(self, plan.stream, x, site, self.numerics, "layer", "stack")
        offers = {"deterministic": deterministic, "context": told}
        kwargs |= {name: value for name, value in offers.items() if takes(self.branch, name)}

        def call(h: jax.Array) -> Any:
            return self.branch(h, *args, **kwargs)

        carry, _ = run_block(self, plan, carry, call, numbers=numbers, site=site, context=told)
        return plan.stream.view(carry)


def takes(branch: Any, name: str) -> bool:
    """Return whether a branch is to be told something by keyword.

    One that takes any keyword argument is told ``deterministic``; `flax.linen.Sequential`, which hands
    these on to its first layer, is told what that layer is.
    """
    if isinstance(branch, nn.Sequential):
        return bool(branch.layers) and takes(branch.layers[0], name)
    call = type(branch).__call__ if isinstance(branch, nn.Module) else branch
    try:
        parameters = inspect.signature(call).parameters
    except ValueError:  # of a function that is not written in Python
        return False
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return name in parameters or (any_keyword and name == "deterministic")


def site_of(
    plan: SublayerPlan, place: Place, numbers: SublayerNumbers, width: int, context: Context
) -> Site:
    """Return the site of a block at a place."""
    return Site(
        width=width,
        layers=place.layers,
        sublayers=place.sublayers,
        layer=place.layer,
        sublayer=numbers.sublayer,
        position=plan.position,
        last=plan.last,
        skip_scale=numbers.skip_scale,
        branch_scale=numbers.branch_scale,
        mask=context.get("mask"),
        condition=context.get("condition"),
    )
