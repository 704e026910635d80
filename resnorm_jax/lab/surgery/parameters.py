"""Parameters of a changed model, made of a trained one's: converted, or copied where they fit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnorm_jax.errors import UserError
from resnorm_jax.interop.post_rms import post_rms_params, scale_spread
from resnorm_jax.interop.post_rms_exact import wide_post_rms_params
from resnorm_jax.interop.pre_rms import centre, pre_rms_params
from resnorm_jax.modules.pooling import POOLING
from resnorm_jax.training.parts import layer_numbers

RELATIVES = {"layer": "rms", "layer_no_bias": "rms", "layer_zero_centred": "rms_zero_centred"}
LINEAR = (
    "mean",
    "cls",
    "distilled",
    "first",
    "last",
    "patches",
)  # poolings that a linear map can be moved through
_STACK = re.compile(r"(^|.*/)layers(?:_\d+)?/")


@dataclass(frozen=True)
class Made:
    """A changed model's parameters.

    Attributes:
      params: all of them.
      how: in words, how they came about.
      fresh: share of them that is at its initial value.
      random: whether any of them depend on the seed.
    """

    params: Any
    how: str
    fresh: float = 0.0
    random: bool = False


def copied(old: Any, new: Any) -> Made:
    """Return parameters ``new`` with what fits of ``old`` in their place.

    What fits has the same path and shape; in stacks it goes layer by layer, counted through all
    segments, so that other segments change nothing.
    """
    rows = _rows(old)
    numbers, flat = layer_numbers(new), flatten_dict(new, sep="/")
    out, fresh, total = {}, 0, 0
    for path, leaf in flat.items():
        array, number = np.array(leaf), numbers[path]
        for place in np.ndindex(number.shape):
            found = rows.get((_inside(path), int(number[place]) if number.ndim else None))
            fits = found is not None and found.shape == array[place].shape
            total += array[place].size
            fresh += 0 if fits else array[place].size
            if fits:
                array[place] = found
        out[path] = jnp.asarray(array)
    share = fresh / total
    how = f"parameters of the same place and shape are copied, {100 * share:.2f} % are fresh"
    return Made(unflatten_dict(out, sep="/"), how, share, random=fresh > 0)


def to_rms(
    params: Mapping[str, Any], pooling: str, positions: str, shared: bool = False
) -> Made | None:
    """Return a classifier's parameters with RMS norms in place of layer norms, or None.

    None where no conversion is known: the arrangement is neither Pre-LN nor Post-LN, or the front end
    is no sum of learned tables and projections.

    Args:
      params: of a `SequenceClassifier` whose norms are all layer norms.
      pooling: of it.
      positions: of it; those without parameters cannot be centred.
      shared: whether layers share parameters: what a Post-LN layer reads then differs, while what is
        moved into it cannot.
    """
    encoder = params["encoder"]
    if shared and "final_norm" not in encoder:
        return None
    try:
        if "final_norm" in encoder:
            new, bias = pre_rms_params(encoder)
            how = "exact for Pre-LN (Jiang et al. 2023)"
        else:
            new, bias = post_rms_params(encoder)
            spread = scale_spread(encoder)
            how = (
                "biases and the branches' means are moved; the mean of the scaled stream cannot be "
                f"(scales differ by up to {100 * spread:.1f} % of their mean)"
            )
    except ValueError:
        return None
    front, heads = _ends(params)
    centred = "final_norm" in encoder or "embedding_norm" in encoder
    if not set(front) <= {"front_end", "positions", "cls", "distillation"} or _has_norm(front):
        return None
    if centred:
        front = jax.tree.map(centre, front)
        if positions == "sinusoidal":
            how += "; but sinusoidal positions keep their mean"
    else:
        how += "; the embedding begins without a norm and keeps its mean"
    next_one = next((n for n in ("head_hidden", "head_norm", "head") if n in heads), "")
    head = _head(heads.get(next_one, {}), bias, pooling)
    if head is None:
        return None
    return Made({**front, **heads, "encoder": new, next_one: head}, how)


def to_wide_rms(params: Mapping[str, Any], pooling: Any, positions: str, activation: Any) -> Made:
    """Return a Post-LN classifier's parameters with RMS norms and wider layers: exact.

    Args:
      params: of a `SequenceClassifier` whose norms are all layer norms.
      pooling: of it: one that a linear map can be moved through.
      positions: of it.
      activation: function of the feed-forward layers.

    Raises:
      UserError: for another model.
    """
    front, heads = _ends(params)
    name = next((n for n in ("head_hidden", "head") if n in heads), "")
    plain = set(front) <= {"front_end", "positions", "cls", "distillation"} and not _has_norm(front)
    if not plain or "head_norm" in heads or pooling not in LINEAR or positions == "sinusoidal":
        raise UserError(
            f"--widen: a model with pooling {pooling}, positions {positions} and the parts "
            f"{', '.join(sorted(params))} is not one that it can change; leave it out"
        )
    try:
        encoder, into, last = wide_post_rms_params(params["encoder"], activation)
    except ValueError as error:
        raise UserError(f"--widen: {error}; leave it out") from None

    def fold(leaf: Any) -> jax.Array:
        return jnp.asarray(np.float64(leaf) @ into, jnp.float32)

    kernel, bias = (np.float64(heads[name][part]) for part in ("kernel", "bias"))
    head = {
        "kernel": jnp.float32(last.read @ kernel),
        "bias": jnp.float32(bias + last.bias @ kernel),
    }
    how = "exact: axes of its own for each norm, and 2 (width - 1) more hidden units in each layer"
    front = jax.tree.map(fold, front)
    return Made({**front, **heads, "encoder": jax.tree.map(jnp.asarray, encoder), name: head}, how)


def _ends(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what stands before the encoder, and after it."""
    heads = {name: tree for name, tree in params.items() if name.startswith("head")}
    return {n: tree for n, tree in params.items() if n != "encoder" and n not in heads}, heads


def _head(head: Mapping[str, Any], added: jax.Array, pooling: Any) -> dict[str, Any] | None:
    """Fold what the encoder lacks into the head: poolings are means, maxima or places of it."""
    if set(head) != {"kernel", "bias"} or pooling not in POOLING.names():
        return None
    pool = POOLING.get(pooling).function
    at = jnp.zeros((1, 2, len(added)), added.dtype)
    pooled = (pool(at + added, None) - pool(at, None))[0]
    moved = jnp.einsum("d,dk->k", pooled, jnp.asarray(head["kernel"]), precision="highest")
    return {"kernel": head["kernel"], "bias": head["bias"] + moved}


def _has_norm(tree: Any) -> bool:
    return any("norm" in path for path in flatten_dict(tree, sep="/"))


def _rows(params: Any) -> dict[tuple[str, int | None], np.ndarray]:
    """Return each parameter of each layer by its path inside the stack, and its layer."""
    numbers, out = layer_numbers(params), {}
    for path, leaf in flatten_dict(params, sep="/").items():
        number, array = numbers[path], np.asarray(leaf)
        for place in np.ndindex(number.shape):
            out[_inside(path), int(number[place]) if number.ndim else None] = array[place]
    return out


def _inside(path: str) -> str:
    return _STACK.sub(r"\1layers/", path)
