"""A Post-LN Transformer turned into one with RMS norms, as nearly as linear maps allow.

In Post-LN the output of a norm is the stream: ``x = g n + b``, with n of mean 0 and mean square 1, goes
on to be read by projections, and to be added to the next branch: ``z = x + f(x)``. The next layer norm
takes the mean out of z; an RMS norm does so only where z has none. What can be moved is moved:

- the branch's mean: out of its last projection, kernel and bias (exact);
- the bias b of the norm, which an RMS norm lacks: into the biases of what reads x, and,
  less its mean, into the bias of the branch's last projection (exact);
- the mean of ``g n``: nowhere. It is a linear function of n, which no plain skip connection takes away.

So the conversion is exact if, and for a width of 3 or more only if, every norm's scale is the same for
all features (as at initialization) and the stream begins with a norm. (With wider layers it is
exact always: `resnorm_jax.interop.post_rms_exact`.) Otherwise z keeps the mean of
``g n``, which is the smaller the more alike the scales are.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.interop.pre_rms import WRITERS, centre

Tree = Mapping[str, Any]
NORM = "norm_on_stream"


def post_rms_params(params: Tree) -> tuple[dict[str, Any], jax.Array]:
    """Turn a Post-LN `TransformerEncoder`'s parameters into those of one with RMS norms.

    See the module's docstring for what is exact. The encoder's input is to be centred where it begins
    with an ``embedding_norm``; else it stays as it is.

    Args:
      params: of a Post-LN encoder whose norms have a scale and maybe a bias.

    Returns:
      Parameters of the same encoder with RMS norms, the same epsilon and ``use_bias=True``; and
      ``[D]``, to be added to what that encoder returns, or folded into the next projection.

    Raises:
      ValueError: if the parameters are not those of a Post-LN encoder.

    >>> import jax, jax.numpy as jnp
    >>> import resnorm_jax as rn
    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    >>> options = {"depth": 2, "heads": 2, "arrangement": "post_ln"}
    >>> layer = rn.TransformerEncoder(**options, norms={"embedding_norm": "layer"})
    >>> params = layer.init(jax.random.key(1), x)["params"]
    >>> rms_params, final_bias = post_rms_params(params)
    >>> rms = rn.TransformerEncoder(**options, norm="rms", norms={"embedding_norm": "rms"})
    >>> y = rms.apply({"params": rms_params}, x - x.mean(-1, keepdims=True)) + final_bias
    >>> bool(jnp.abs(y - layer.apply({"params": params}, x)).max() < 1e-5)
    True
    """
    layers = checked_layers(params)
    out: dict[str, Any] = {}
    width = layers["attention"][NORM]["scale"].shape[-1]
    first = jnp.zeros((width,), layers["attention"][NORM]["scale"].dtype)
    if "embedding_norm" in params:
        out["embedding_norm"], first = _norm(params["embedding_norm"])
    norms = {name: _norm(layers[name][NORM]) for name in WRITERS}
    ends = norms["feed_forward"][1]
    # What comes into a layer is what the layer before, or the embedding's norm, would have added.
    into = {
        "attention": jnp.concatenate([first[None], ends[:-1]]),
        "feed_forward": norms["attention"][1],
    }
    out["layers"] = {
        name: {
            NORM: norms[name][0],
            "branch": {
                key: _write(part, into[name]) if key == WRITERS[name] else _read(part, into[name])
                for key, part in layers[name]["branch"].items()
            },
        }
        for name in WRITERS
    }
    return out, ends[-1]


def scale_spread(params: Tree) -> float:
    """Return the largest spread of a norm's scale over features, relative to its mean: 0 is exact."""
    layers = checked_layers(params)
    found = [layers[name][NORM]["scale"] for name in WRITERS]
    if "embedding_norm" in params:
        found.append(params["embedding_norm"]["scale"])
    spreads = [np.asarray(s).std(-1) / np.abs(np.asarray(s).mean(-1)) for s in found]
    return max(float(np.max(spread)) for spread in spreads)


def checked_layers(params: Tree) -> Tree:
    """Return the layers of a Post-LN encoder; ValueError for other parameters."""
    layers = params.get("layers", {})
    plain = all(set(layers.get(name, ())) == {NORM, "branch"} for name in WRITERS)
    if not {"layers"} <= set(params) <= {"layers", "embedding_norm"} or not plain:
        raise ValueError(
            "not the parameters of a Post-LN TransformerEncoder: its layers have the sublayers "
            f"{sorted(WRITERS)}, each with {NORM} and branch, and it has no final norm"
        )
    return layers


def _norm(norm: Tree) -> tuple[dict[str, jax.Array], jax.Array]:
    """Return the RMS norm's parameters, and the bias that it lacks."""
    if not {"scale"} <= set(norm) <= {"scale", "bias"}:
        raise ValueError(f"a norm has {sorted(norm)}: a layer norm has a scale, and maybe a bias")
    scale = jnp.asarray(norm["scale"])
    return {"scale": scale}, jnp.asarray(norm.get("bias", jnp.zeros_like(scale)))


def _read(projection: Tree, added: jax.Array) -> dict[str, jax.Array]:
    kernel = jnp.asarray(projection["kernel"])
    moved = jnp.einsum("nd,nd...->n...", added, kernel, precision="highest")
    return {"kernel": kernel, "bias": projection.get("bias", 0) + moved}


def _write(projection: Tree, added: jax.Array) -> dict[str, jax.Array]:
    kernel = jnp.asarray(projection["kernel"])
    return {"kernel": centre(kernel), "bias": centre(projection.get("bias", 0) + added)}
