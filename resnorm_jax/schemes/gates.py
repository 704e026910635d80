"""Arrangements whose factors are learned numbers: per layer, per sublayer or per feature."""

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.residual import residual
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.place import Place, zero
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import Arrangement, Init
from resnorm_jax.schemes.stream import (
    Site,
    Stream,
    StreamParameter,
    add,
    scalar,
    vector,
    written,
)

# Muse Spark's constants: transformers models/muse_spark (residual_gate_temperature, eps).
TEMPERATURE = 0.3
LEAST_SKIP = 1e-3


def _gate(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return add(x, y * site.parameters["gate"].astype(y.dtype), site)


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


def _vector_skip(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    """``w x + f``, in float32 at least and cast once."""
    wide = statistics_dtype(x)
    w = site.parameters["skip_scale"].astype(wide) * site.skip_scale
    y = y.astype(wide)
    return residual(x.astype(wide), y, skip_scale=w, branch_scale=site.branch_scale).astype(x.dtype)


def fixup_branches(place: Place) -> int:
    """Residual branches of the model: 2 a layer of an encoder, 3 a layer of a decoder."""
    return place.sublayers + {"encoder": 3, "decoder": 2}[place.stack] * place.other


def fixup_attention(place: Place) -> float:
    """``L**(-1/6)`` on queries, keys and values, L branches: Fixup with m = 4."""
    return fixup_branches(place) ** (-1 / 6)


def fixup_feed_forward(place: Place) -> float:
    """``L**(-1/2)`` on the first projection, L branches: Fixup with m = 2."""
    return fixup_branches(place) ** -0.5


ROWS = (
    Arrangement(
        name="rezero",
        equation="x + a f(x), one scalar a per layer, 0 at first",
        source="Bachlechner et al. 2020 (arXiv 2003.04887); majumderb/rezero",
        stream=Stream(
            name="scalar_gate",
            equation="a x + g b f, scalar g per layer, 0 at first",
            source="Bachlechner et al. 2020 (arXiv 2003.04887)",
            write=_gate,
            parameters=(StreamParameter("gate", scalar, 0.0, "layer"),),
        ),
        usual=True,
    ),
    Arrangement(
        name="skip_init",
        equation="x + g f(x), one scalar g per sublayer, 0 at first",
        source="De and Smith 2020 (arXiv 2002.10444)",
        stream=Stream(
            name="branch_gate",
            equation="a x + g b f, scalar g per sublayer, 0 at first",
            source="De and Smith 2020 (arXiv 2002.10444)",
            write=written(_gated),
            parameters=(StreamParameter("gate", scalar, 0.0),),
        ),
    ),
    Arrangement(
        name="layer_scale",
        equation="x + g f(LN(x)), g per feature, 0.1, 1e-5 or 1e-6 at first by depth; final LN",
        source="Touvron et al. 2021 (arXiv 2103.17239)",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="vector_gate",
            equation="a x + g b f, g [D]; 0.1 at first up to 18 layers, 1e-5 up to 24, 1e-6 beyond",
            source="Touvron et al. 2021 (arXiv 2103.17239)",
            write=written(_gated),
            parameters=(StreamParameter("gate", vector, _by_depth),),
        ),
        usual=True,
    ),
    Arrangement(
        name="tanh_zero_gate",
        equation="x + tanh(g) f(LN(x)), one scalar g per sublayer, 0 at first; final LN",
        source="Alayrac et al. 2022 (arXiv 2204.14198), there around grafted layers",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="tanh_gate",
            equation="a x + tanh(g) b f, scalar g per sublayer, 0 at first",
            source="Alayrac et al. 2022 (arXiv 2204.14198)",
            write=written(_tanh),
            parameters=(StreamParameter("gate", scalar, 0.0),),
        ),
        aliases=("flamingo",),
    ),
    Arrangement(
        name="fixup",
        equation="x + g f(x + c), scalars; out, fc2 0 at first, q, k, v times L^(-1/6), fc1 L^(-1/2)",
        source="Zhang et al. 2019 (arXiv 1901.09321); hongyi-zhang/Fixup fairseq/models/"
        "transformer_zero.py; biases inside a branch are its projections', the head is not zeroed",
        stream=Stream(
            name="shift_and_scale",
            equation="f reads x + c; a x + g b f; scalars c and g per sublayer, 0 and 1 at first",
            source="Zhang et al. 2019 (arXiv 1901.09321)",
            write=written(_multiplied),
            read=_shifted_read,
            parameters=(
                StreamParameter("shift", scalar, 0.0),
                StreamParameter("scale", scalar, 1.0),
            ),
        ),
        init=Init(
            gains={
                **dict.fromkeys(("query", "key", "value"), fixup_attention),
                "fc1": fixup_feed_forward,
                **dict.fromkeys(("out", "fc2"), zero),
            }
        ),
    ),
    Arrangement(
        name="residual_scale",
        equation="g x + f(LN(x)), g per feature, 1 at first; final LN",
        source="Shleifer et al. 2021 (arXiv 2110.09456), ResScale, here on both sublayers as in "
        "huggingface/transformers models/doge/modeling_doge.py",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="skip_gate",
            equation="g a x + b f, g [D], 1 at first",
            source="Shleifer et al. 2021 (arXiv 2110.09456)",
            write=written(_skip),
            parameters=_vectors(scale=1.0),
        ),
    ),
    Arrangement(
        name="laurel_rw",
        equation="g x + h f(LN(x)), scalars, 1 at first; final LN",
        source="Menghani et al. 2024 (arXiv 2411.07501), RW; first values ours",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="weighted_sum",
            equation="g a x + h b f, scalars g and h per sublayer, 1 at first",
            source="Menghani et al. 2024 (arXiv 2411.07501)",
            write=written(_weighted),
            parameters=(
                StreamParameter("skip_scale", scalar, 1.0),
                StreamParameter("branch_scale", scalar, 1.0),
            ),
        ),
    ),
    Arrangement(
        name="affine_residual",
        equation="(x + c) g + (f(LN(x)) + d) h, per feature; final LN",
        source="huggingface/transformers models/zaya/modeling_zaya.py",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="affine_sum",
            equation="(a x + c) g + (b f + d) h, all [D]; c, d 0 and g, h 1 at first",
            source="huggingface/transformers models/zaya/modeling_zaya.py (ZayaResidualScaling)",
            write=written(_affine),
            parameters=_vectors(skip_bias=0.0, skip_scale=1.0, branch_bias=0.0, branch_scale=1.0),
        ),
    ),
    Arrangement(
        name="convex_unit_gate",
        equation="sqrt(1 - s^2) x + s LN(f(LN(x))), s = sigmoid(w / 0.3), w per feature; final LN",
        source="huggingface/transformers models/muse_spark/modeling_muse_spark.py; its norms differ "
        "by slot, here one for all",
        norm_before=NORM,
        norm_after=NORM,
        final_norm=NORM,
        stream=Stream(
            name="unit_gate",
            equation="sqrt(1 - s^2) a x + s b f, s = sigmoid(w / 0.3), w [D] ~ N(0, 0.02^2) at first",
            source="huggingface/transformers models/muse_spark/modeling_muse_spark.py (MuseSparkResidualGate)",
            write=written(_unit),
            parameters=(StreamParameter("gate", vector, _small),),
        ),
    ),
    Arrangement(
        name="gpas",
        equation="z - silu(g) sg(z), z = x + f(LN(x)), one scalar g per layer, 0 at first; final LN",
        source="arXiv 2506.22049; dandingsky/GPAS peft_pretraining/modeling_llama.py (pre_gpas)",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="held_back",
            equation="z - silu(g) sg(z), z = a x + b f, sg stops the gradient; scalar g per layer, 0 at first",
            source="arXiv 2506.22049; dandingsky/GPAS peft_pretraining/modeling_llama.py (GPASBlock)",
            write=written(_held_back),
            parameters=(StreamParameter("gate", scalar, 0.0, "layer"),),
        ),
    ),
    Arrangement(
        name="admin",
        equation="LN(w x + f(x)), w [D] 1 at first, then from a profiling pass",
        source="Liu et al. 2020 (arXiv 2004.08249); LiyuanLucasLiu/Transformer-Clinic; see "
        "resnorm_jax.modules.admin",
        norm_on_stream=NORM,
        stream=Stream(
            name="vector_skip",
            equation="w a x + b f, w [D] per sublayer, 1 at first",
            source="Liu et al. 2020 (arXiv 2004.08249); LiyuanLucasLiu/Transformer-Clinic",
            write=_vector_skip,
            parameters=(StreamParameter("skip_scale", vector, 1.0),),
        ),
    ),
)
