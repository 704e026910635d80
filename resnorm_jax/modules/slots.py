"""Norms in their slots: which norm stands where, and what it is told."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from resnorm_jax.arrangements import NormSlot
from resnorm_jax.modules.norm_catalog import NORMS

Normalize = Callable[[jax.Array], jax.Array]
# What norms may ask for at a call: see `resnorm_jax.modules.norm_table.CONTEXT`.
Context = Mapping[str, Any]


def build_norm(
    module: nn.Module,
    name: str,
    slot: NormSlot,
    context: Context,
    dtype: Any = None,
    *,
    slot_name: str | None = None,
    norms: Mapping[str, Any] | None = None,
) -> Normalize:
    """Make the norm of a slot inside ``module``: the scheme's, the slot's own, or the default.

    Args:
      module: it has the fields ``norm``, ``norms``, ``norm_epsilon``, ``axis_name``, ``dtype`` and
        ``param_dtype``, and becomes the parent.
      name: of the submodule.
      slot: what the arrangement says of the slot.
      context: ``mask``, ``condition`` and ``deterministic``, for norms that ask.
      dtype: of the result, in place of the module's.
      slot_name: key in ``norms``, where it is not ``name``.
      norms: slot to norm with ``"default"``, in place of the module's. A key such as
        ``"attention/norm_before"`` is that slot in the block of that name alone.
    """
    fields: Any = module
    chosen = {"default": fields.norm, **fields.norms} if norms is None else norms
    key = slot_name or name
    own = chosen.get(f"{module.name}/{key}") or chosen.get(key)
    spec = NORMS.get(slot.norm or own or chosen["default"])
    made = spec.build(
        name=name,
        epsilon=None if slot.norm else fields.norm_epsilon,
        scale_init=slot.scale_init,
        dtype=fields.dtype if dtype is None else dtype,
        param_dtype=fields.param_dtype,
        axis_name=fields.axis_name,
    )
    told = {key: context.get(key) for key in spec.context}
    if "deterministic" in told:
        told["deterministic"] = context.get("deterministic", True)
    return lambda x: made(x, **told)
