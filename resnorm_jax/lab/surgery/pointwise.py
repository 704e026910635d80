"""Point-wise norms (DyT, Derf, ...) fitted to the norms whose place they take, on training rows.

For each norm with input z and output y, over all valid positions, and for each a of a grid::

    w_d, b_d = argmin sum (w_d phi(a z_d) + b_d - y_d)^2        # feature by feature, in closed form

and the a with the least remaining sum over all features is taken: alpha a, scale w, bias b, shift 0.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnorm_jax import norms
from resnorm_jax.arrangements import SLOTS
from resnorm_jax.lab.surgery.parameters import Made, copied
from resnorm_jax.modules.hooks import NORM_SUMS
from resnorm_jax.ops.norms.pointwise import POINTWISE

ALPHAS = tuple(float(a) for a in np.geomspace(1e-3, 10, 41))
LEAST = 1e-10  # variance of phi that float32 tells from none
Sums = dict[str, Any]


def function_of(norm: str) -> Callable[[jax.Array], jax.Array] | None:
    """Return phi of a norm that is ``g phi(a x + s) + b``, or None for another."""
    function = norms.get(norm).function
    name = function.keywords.get("function") if isinstance(function, partial) else None
    return POINTWISE.get(name) if name else None


def norm_sums(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Mapping[str, Any]],
    phi: Callable[[jax.Array], jax.Array],
) -> Sums:
    """Return what `fitted` reads, by norm: moments over the valid positions of all batches.

    Each norm has ``n``, the means ``y`` and ``t`` of its output and of phi, and the sums of products of
    their deviations from these, ``yy``, ``tt`` and ``ty``: sums of squares would lose their digits.

    Args:
      model: a classifier, whose norms' inputs and outputs are looked at.
      variables: of the model.
      batches: with ``x`` and, unless images, ``mask``.
      phi: of the norm to come.
    """

    @jax.jit
    def look(variables: Any, x: jax.Array, mask: jax.Array | None) -> Sums:
        with nn.intercept_methods(partial(_watch, phi, mask)):
            return model.apply(variables, x, mask, mutable=[NORM_SUMS])[1][NORM_SUMS]

    total: Sums | None = None
    for batch in batches:
        found = look(variables, batch["x"], batch.get("mask"))
        host = jax.tree.map(lambda a: np.asarray(a, np.float64), found)
        total = host if total is None else _joined(total, host)
    if total is None:
        raise ValueError("there are no batches to look at")
    return total


def fitted(sums: Sums, params: Any, like: Any) -> Made:
    """Return parameters shaped as ``like``, of a model whose norms are point-wise.

    Args:
      sums: of `norm_sums`.
      params: of the model that was looked at; all but its norms stays.
      like: of the new model.
    """
    new, left = flatten_dict(like, sep="/"), []
    out = flatten_dict(copied(params, like).params, sep="/")
    flat = flatten_dict(sums, sep="/")
    for place in sorted({path.rpartition("/")[0] for path in flat}):
        norm = {name: flat[f"{place}/{name}"] for name in ("n", "y", "yy", "t", "tt", "ty")}
        alpha, scale, bias, share = _fit(norm)
        left.append(share)
        found = {"alpha": alpha, "scale": scale, "bias": bias, "shift": np.zeros_like(alpha)}
        for name in ("alpha", "shift", "scale", "bias"):
            path = f"{place}/{name}"
            if path in new:
                value = np.asarray(found[name], np.float32)
                out[path] = jnp.asarray(value.reshape(new[path].shape))
    worst = max(float(share.max()) for share in left)
    how = (
        "every norm fitted to the one before it on training rows: "
        f"{100 * np.mean([s.mean() for s in left]):.1f} % of the outputs' variance is left over, "
        f"in the worst norm {100 * worst:.1f} %"
    )
    return Made(unflatten_dict(out, sep="/"), how)


def _joined(one: Sums, two: Sums) -> Sums:
    """Join moments of two sets of positions (Chan et al. 1979), norm by norm."""
    if "ty" not in one:
        return {name: _joined(one[name], two[name]) for name in one}
    n = one["n"] + two["n"]
    share, both = (two["n"] / n)[..., None], (one["n"] * two["n"] / n)[..., None]
    y, t = two["y"] - one["y"], two["t"] - one["t"]
    return {
        "n": n,
        "y": one["y"] + share * y,
        "t": one["t"] + share[..., None] * t,
        "yy": one["yy"] + two["yy"] + both * y * y,
        "tt": one["tt"] + two["tt"] + both[..., None] * t * t,
        "ty": one["ty"] + two["ty"] + both[..., None] * t * y[..., None, :],
    }


def _fit(sums: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return alpha ``[...]``, scale and bias ``[..., D]``, and the share of variance left ``[...]``."""
    n = sums["n"][..., None]
    mean_y, mean_t, var_y = sums["y"], sums["t"], sums["yy"] / n
    var_t, both = sums["tt"] / n[..., None], sums["ty"] / n[..., None]
    # Where phi is the same everywhere there is no slope to be found.
    slope = np.where(var_t > LEAST, both / np.maximum(var_t, LEAST), 0)
    left = (var_y[..., None, :] - slope * both).sum(-1)  # [..., A]
    best = left.argmin(-1)[..., None]
    take = best[..., None]
    scale = np.take_along_axis(slope, take, -2)[..., 0, :]
    bias = mean_y - scale * np.take_along_axis(mean_t, take, -2)[..., 0, :]
    share = np.take_along_axis(left, best, -1)[..., 0] / np.maximum(var_y.sum(-1), 1e-12)
    return np.array(ALPHAS)[best[..., 0]], scale, bias, np.maximum(share, 0)


def _watch(phi: Any, mask: Any, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """The interceptor: note sums of a slot's norm, of what it is given and what it returns."""
    out = call(*args, **kwargs)
    y = out[0] if isinstance(out, tuple) else out  # some return the stream beside the norm
    module = context.module
    x: Any = args[0] if args else None
    if context.method_name != "__call__" or module.name not in SLOTS or np.ndim(x) != 3:
        return out
    weight = jnp.ones(x.shape[:-1]) if mask is None else token_weight(mask, x)
    for name, value in _summed(phi, x, y, weight).items():
        module.sow(NORM_SUMS, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)
    return out


def token_weight(mask: jax.Array, x: jax.Array) -> jax.Array:
    """Return 1 at valid positions of ``x [B, T, D]``, else 0, of a mask of positions or rows."""
    if mask.shape[1] == 1:  # of whole rows
        return jnp.broadcast_to(mask, x.shape[:2]).astype(jnp.float32)
    tokens = mask[:, :: max(1, -(-mask.shape[1] // x.shape[1]))].astype(jnp.float32)
    extra = x.shape[1] - tokens.shape[1]  # a class token stands first
    return jnp.pad(tokens, ((0, 0), (extra, 0)), constant_values=1)


def _summed(phi: Any, x: jax.Array, y: jax.Array, weight: jax.Array) -> Sums:
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)

    n = weight.sum()

    def over(values: jax.Array) -> jax.Array:
        # What stands at positions that are not valid may be anything.
        kept = jnp.where(weight[..., None] > 0, values, 0)
        return jnp.sum(kept, axis=(0, 1))

    mean = over(y) / n
    y = y - mean

    def at(alpha: jax.Array) -> tuple[jax.Array, ...]:
        t = phi(alpha * x)
        middle = over(t) / n
        t = t - middle
        return middle, over(t * t), over(t * y)

    t, tt, ty = jax.lax.map(at, jnp.asarray(ALPHAS))
    return {"n": n, "y": mean, "yy": over(y * y), "t": t, "tt": tt, "ty": ty}
