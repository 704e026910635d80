"""A Pre-LN Transformer turned into a Pre-RMSNorm one that computes the same.

A Pre-LN stream is read through layer norms only, which do not see the mean of a row. Take the mean out
of all that is written to the stream, and every layer norm may be an RMS norm.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.ops.statistics import statistics_dtype

Tree = Mapping[str, Any]
# What a branch writes to the stream with; all its other projections read from it.
WRITERS = {"attention": "out", "feed_forward": "fc2"}


def pre_rms_params(params: Tree) -> tuple[dict[str, Any], jax.Array]:
    """Turn a Pre-LN `TransformerEncoder`'s parameters into those of one with RMS norms.

    ``layer(x) = rms(x - mean(x)) g + b``, hence: each branch's last projection loses the mean of its
    outputs, and each norm's ``b`` goes into the biases of the projections that read it. The final
    norm has no projection after it inside the encoder, so its ``b`` is handed back. The two encoders
    agree as ``encoder_ln(x) = encoder_rms(centre(x)) + final_bias``.

    Args:
      params: of a Pre-LN encoder with ``norm="layer"`` (or ``"layer_no_bias"``; or
        ``"layer_zero_centred"``, which gives parameters for ``"rms_zero_centred"``).

    Returns:
      Parameters of the same encoder with ``norm="rms"``, the same epsilon and ``use_bias=True``; and
      ``[D]``, to be added to what that encoder returns, or folded into the next projection.

    Raises:
      ValueError: if the parameters are not those of a Pre-LN encoder.

    Source: Jiang et al. 2023 (arXiv 2305.14858); ZixuanJiang/pre-rmsnorm-transformer, whose norms have
    neither scale nor bias, so that nothing is folded there.

    >>> import jax, jax.numpy as jnp
    >>> import resnorm_jax as rn
    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    >>> params = rn.TransformerEncoder(depth=2, heads=2).init(jax.random.key(1), x)["params"]
    >>> rms_params, final_bias = pre_rms_params(params)
    >>> rms = rn.TransformerEncoder(depth=2, heads=2, norm="rms")
    >>> y = rms.apply({"params": rms_params}, centre(x)) + final_bias
    >>> z = rn.TransformerEncoder(depth=2, heads=2).apply({"params": params}, x)
    >>> bool(jnp.abs(y - z).max() < 1e-5)
    True
    """
    if set(params) != {"layers", "final_norm"} or set(params["layers"]) != set(WRITERS):
        raise ValueError(
            "not the parameters of a Pre-LN TransformerEncoder: it has layers, with the sublayers "
            f"{sorted(WRITERS)}, and a final_norm"
        )
    layers = {name: _block(params["layers"][name], name) for name in WRITERS}
    scale, final_bias = _split_norm(params["final_norm"], "final_norm")
    return {"layers": layers, "final_norm": {"scale": scale}}, final_bias


def centre(x: jax.Array) -> jax.Array:
    """Take the mean of each row away: ``x - mean(x)`` over the last axis.

    For the input of an encoder, and for what makes it: of an embedding ``[V, D]`` or a projection
    ``[..., D]`` the outputs are centred by centring the parameters, kernel and bias alike.

    Args:
      x: ``[..., D]``, floating point.

    Returns:
      Array of ``x``'s shape and dtype.

    Source: as `pre_rms_params`.

    >>> import jax.numpy as jnp
    >>> print(centre(jnp.array([1.0, 2.0, 6.0])))
    [-2. -1.  3.]
    """
    x = jnp.asarray(x)
    wide = x.astype(statistics_dtype(x))
    return (wide - jnp.mean(wide, axis=-1, keepdims=True)).astype(x.dtype)


def _block(block: Tree, name: str) -> dict[str, Any]:
    """Convert one kind of sublayer, all layers at once: leaves have a first axis for the layers."""
    if set(block) != {"norm_before", "branch"}:
        raise ValueError(
            f"sublayer {name} has {sorted(block)}: a Pre-LN sublayer has norm_before and branch"
        )
    scale, norm_bias = _split_norm(block["norm_before"], f"{name}/norm_before")
    branch = {
        key: _write(part) if key == WRITERS[name] else _read(part, norm_bias)
        for key, part in block["branch"].items()
    }
    return {"norm_before": {"scale": scale}, "branch": branch}


def _split_norm(norm: Tree, name: str) -> tuple[jax.Array, jax.Array]:
    if not {"scale"} <= set(norm) <= {"scale", "bias"}:
        raise ValueError(f"{name} has {sorted(norm)}: a layer norm has a scale, and maybe a bias")
    scale = jnp.asarray(norm["scale"])
    return scale, jnp.asarray(norm["bias"]) if "bias" in norm else jnp.zeros_like(scale)


def _read(projection: Tree, norm_bias: jax.Array) -> dict[str, jax.Array]:
    """Move what the norm adds to its output through the kernel, into the projection's own bias."""
    kernel = jnp.asarray(projection["kernel"])
    moved = jnp.einsum("nd,nd...->n...", norm_bias, kernel, precision="highest")
    return {"kernel": kernel, "bias": projection.get("bias", 0) + moved}


def _write(projection: Tree) -> dict[str, jax.Array]:
    """Take the mean out of what the projection adds to the stream."""
    kernel = jnp.asarray(projection["kernel"])
    bias = projection.get("bias", jnp.zeros((kernel.shape[0], kernel.shape[-1]), kernel.dtype))
    return {"kernel": centre(kernel), "bias": centre(bias)}
