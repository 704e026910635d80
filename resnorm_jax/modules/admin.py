"""Admin's profiling pass: skip weights from the variances of the branches, once, before training."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask

SKIP = "skip_scale"
OUT = "/branch_out"


def admin_profile(
    model: nn.Module, variables: Any, x: jax.Array, mask: jax.Array | None = None
) -> Any:
    """Return parameters with ``w_1 = 1`` and ``w_i**2 = Var(x_0) + sum over j < i of Var(f_j)``.

    One forward pass without dropout, with the weights that ``variables`` hold (1 at first), tells the
    variances: over all features of all valid positions. Run it on one batch and one device, before
    training; the weights are then learned.

    Args:
      model: a `TransformerEncoder` whose stream is ``vector_skip`` (arrangement ``admin``), or a
        classifier around one.
      variables: the model's, from ``init``.
      x: the model's input, ``[B, L, D]`` for an encoder.
      mask: ``[B, L]``, True where a position is valid.

    Returns:
      ``variables["params"]`` with other values under ``skip_scale``, and everything else as it was.

    Raises:
      ValueError: if there is no such parameter, or layers share it.

    Source: Liu et al. 2020 (arXiv 2004.08249). The official code (Transformer-Clinic,
    fairseq/modules/transformer_layer.py) sets each weight before it goes on to the next sublayer; here
    all variances are those of the pass with the weights given. Its first term too is the variance of
    the stack's input, which is 1 where that is normalized.

    >>> import jax, jax.numpy as jnp
    >>> from resnorm_jax import TransformerEncoder
    >>> encoder = TransformerEncoder(depth=2, heads=2, arrangement="admin")
    >>> x = jax.random.normal(jax.random.key(0), (2, 3, 8))
    >>> params = admin_profile(encoder, encoder.init(jax.random.key(1), x), x)
    >>> [bool(w > 0) for w in params["layers"]["attention"]["skip_scale"][:, 0]]
    [True, True]
    """
    mask = as_mask("mask", mask)
    _, named = model.apply(variables, x, mask, return_intermediates=True)
    params = variables["params"]
    stacks = params.get("encoder", params)
    blocks = [key.removesuffix(OUT) for key in named if key.endswith(OUT)]
    if not any(SKIP in stacks[name].get(b, {}) for name in _stacks(stacks) for b in blocks):
        raise ValueError(f"no parameter {SKIP}: the arrangement's stream is not vector_skip")
    variances = jnp.stack([_variances(named[b + OUT], mask) for b in blocks], 1)  # [N, sublayers]
    if len(variances) != sum(_depth(stacks[name]) for name in _stacks(stacks)):
        raise ValueError("layers share their parameters, and each would need its own skip weight")
    first = _variances(named["stream_in"][:1], mask)
    before = jnp.cumsum(jnp.concatenate([first, variances.reshape(-1)]))[:-1]
    roots = jnp.sqrt(before).at[0].set(1.0).reshape(variances.shape)
    made, start = dict(stacks), 0
    for name in _stacks(stacks):
        depth = _depth(stacks[name])
        here = roots[start : start + depth]
        start += depth
        made[name] = {
            **stacks[name],
            **{b: _filled(stacks[name][b], here[:, i]) for i, b in enumerate(blocks)},
        }
    return {**params, "encoder": made} if "encoder" in params else made


def _stacks(params: Any) -> list[str]:
    names = [name for name in params if name.startswith("layers")]
    return sorted(names, key=lambda name: int(name.partition("_")[2] or 0))


def _depth(stack: Any) -> int:
    return jax.tree.leaves(stack)[0].shape[0]


def _variances(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Variance over all features of valid positions, of each of ``x [N, B, L, D]``."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    where = None if mask is None else jnp.broadcast_to(mask[..., None], x.shape[1:])
    return jax.vmap(lambda z: jnp.var(z, where=where))(x)


def _filled(block: Any, weights: jax.Array) -> Any:
    old = block[SKIP]
    return {**block, SKIP: jnp.broadcast_to(weights[:, None], old.shape).astype(old.dtype)}
