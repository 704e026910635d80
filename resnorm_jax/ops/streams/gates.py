"""Streams of one array whose factors are learned numbers: per layer, per sublayer or per feature."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.residual import check_shapes, scaled
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.ops.streams.single import scalar, vector
from resnorm_jax.ops.streams.spec import Site, Stream, StreamParameter

Rule = Callable[[jax.Array, jax.Array, Site], jax.Array]
# Muse Spark's constants: transformers models/muse_spark (residual_gate_temperature, eps).
TEMPERATURE = 0.3
LEAST_SKIP = 1e-3


def written(rule: Rule) -> Rule:
    """Make a rule the ``write`` of a stream: in float32 at least, rounded to the stream's dtype once.

    Args:
      rule: ``(x, y, site) -> x``; it is given the stream and the branch with the arrangement's scales
        already on them, and a site whose parameters are as wide.

    Returns:
      Function of a stream and a branch of one shape ``[B, L, D]``, in any dtypes, and a site. It
      raises ValueError for two shapes.
    """

    def write(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
        check_shapes(x, y)
        wide = statistics_dtype(x)
        parameters = {name: value.astype(wide) for name, value in site.parameters.items()}
        skip = scaled(x.astype(wide), site.skip_scale)
        branch = scaled(y.astype(wide), site.branch_scale)
        return rule(skip, branch, replace(site, parameters=parameters)).astype(x.dtype)

    return write


def _gated(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return x + site.parameters["gate"] * y


def _tanh(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return x + jnp.tanh(site.parameters["gate"]) * y


def _skip(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return site.parameters["scale"] * x + y


def _weighted(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return site.parameters["skip_scale"] * x + site.parameters["branch_scale"] * y


def _affine(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    skip = (x + p["skip_bias"]) * p["skip_scale"]
    return skip + (y + p["branch_bias"]) * p["branch_scale"]


def _unit(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    w = site.parameters["gate"] / TEMPERATURE
    branch = jax.nn.sigmoid(w)
    # 1 - branch**2 without the cancellation near 1.
    skip = jnp.sqrt(jnp.maximum(jax.nn.sigmoid(-w) * (1 + branch), LEAST_SKIP))
    return skip * x + branch * y


def _shifted_read(x: jax.Array, site: Site) -> jax.Array:
    wide = statistics_dtype(x)
    return (x.astype(wide) + site.parameters["shift"].astype(wide)).astype(x.dtype)


def _multiplied(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return x + site.parameters["scale"] * y


def _held_back(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    z = x + y
    return z - jax.nn.silu(site.parameters["gate"]) * lax.stop_gradient(z)


def _by_depth(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """CaiT's first value: 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 beyond."""
    value = 0.1 if site.layers <= 18 else 1e-5 if site.layers <= 24 else 1e-6
    return jnp.full(shape, value, dtype)


def _small(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    return 0.02 * jax.random.normal(key, shape, dtype)


def _vectors(**first: float) -> tuple[StreamParameter, ...]:
    return tuple(StreamParameter(name, vector, value) for name, value in first.items())


ROWS = (
    Stream(
        "branch_gate",
        "a x + g b f, scalar g per sublayer, 0 at first",
        "De and Smith 2020 (arXiv 2002.10444)",
        written(_gated),
        parameters=(StreamParameter("gate", scalar, 0.0),),
    ),
    Stream(
        "vector_gate",
        "a x + g b f, g [D]; 0.1 at first up to 18 layers, 1e-5 up to 24, 1e-6 beyond",
        "Touvron et al. 2021 (arXiv 2103.17239)",
        written(_gated),
        parameters=(StreamParameter("gate", vector, _by_depth),),
    ),
    Stream(
        "tanh_gate",
        "a x + tanh(g) b f, scalar g per sublayer, 0 at first",
        "Alayrac et al. 2022 (arXiv 2204.14198)",
        written(_tanh),
        parameters=(StreamParameter("gate", scalar, 0.0),),
    ),
    Stream(
        "skip_gate",
        "g a x + b f, g [D], 1 at first",
        "Shleifer et al. 2021 (arXiv 2110.09456)",
        written(_skip),
        parameters=_vectors(scale=1.0),
    ),
    Stream(
        "weighted_sum",
        "g a x + h b f, scalars g and h per sublayer, 1 at first",
        "Menghani et al. 2024 (arXiv 2411.07501)",
        written(_weighted),
        parameters=(
            StreamParameter("skip_scale", scalar, 1.0),
            StreamParameter("branch_scale", scalar, 1.0),
        ),
    ),
    Stream(
        "affine_sum",
        "(a x + c) g + (b f + d) h, all [D]; c, d 0 and g, h 1 at first",
        "huggingface/transformers models/zaya/modeling_zaya.py (ZayaResidualScaling)",
        written(_affine),
        parameters=_vectors(skip_bias=0.0, skip_scale=1.0, branch_bias=0.0, branch_scale=1.0),
    ),
    Stream(
        "unit_gate",
        "sqrt(1 - s^2) a x + s b f, s = sigmoid(w / 0.3), w [D] ~ N(0, 0.02^2) at first",
        "huggingface/transformers models/muse_spark/modeling_muse_spark.py (MuseSparkResidualGate)",
        written(_unit),
        parameters=(StreamParameter("gate", vector, _small),),
    ),
    Stream(
        "shift_and_scale",
        "f reads x + c; a x + g b f; scalars c and g per sublayer, 0 and 1 at first",
        "Zhang et al. 2019 (arXiv 1901.09321)",
        written(_multiplied),
        read=_shifted_read,
        parameters=(StreamParameter("shift", scalar, 0.0), StreamParameter("scale", scalar, 1.0)),
    ),
    Stream(
        "held_back",
        "z - silu(g) sg(z), z = a x + b f, sg stops the gradient; scalar g per layer, 0 at first",
        "arXiv 2506.22049; dandingsky/GPAS peft_pretraining/modeling_llama.py (GPASBlock)",
        written(_held_back),
        parameters=(StreamParameter("gate", scalar, 0.0, "layer"),),
    ),
)
