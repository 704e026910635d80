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

# Muse Spark's constants: transformers models/muse_spark (residual_gate_temperature,
# residual_gate_eps: the least square of the stream's factor).
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
    """0.1 up to N = 18 layers, 1e-5 up to 24, 1e-6 beyond."""
    value = 0.1 if site.layers <= 18 else 1e-5 if site.layers <= 24 else 1e-6
    return jnp.full(shape, value, dtype)


def _small(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """``N(0, 0.02^2)``."""
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
        equation="x + g f(x), one scalar g a layer, shared by its sublayers, 0 at first; no norm",
        source="Bachlechner et al. 2020 (arXiv 2003.04887); majumderb/rezero",
        stream=Stream(
            name="scalar_gate",
            equation="a x + g b f, scalar g (gate) a layer, 0 at first",
            source="Bachlechner et al. 2020 (arXiv 2003.04887)",
            write=_gate,
            parameters=(StreamParameter("gate", scalar, 0.0, "layer"),),
        ),
        usual=True,
    ),
    Arrangement(
        name="skip_init",
        equation="x + g f(x), one scalar g a sublayer, 0 at first; no norm",
        source="De and Smith 2020 (arXiv 2002.10444), there in place of batch norm",
        stream=Stream(
            name="branch_gate",
            equation="a x + g b f, scalar g (gate) a sublayer, 0 at first",
            source="De and Smith 2020 (arXiv 2002.10444)",
            write=written(_gated),
            parameters=(StreamParameter("gate", scalar, 0.0),),
        ),
    ),
    Arrangement(
        name="layer_scale",
        equation="x + g f(LN(x)), g [D] a sublayer, at first 0.1 in stacks of up to 18 layers, "
        "1e-5 of up to 24, 1e-6 of more; final LN",
        source="Touvron et al. 2021 (arXiv 2103.17239)",
        used_by="CaiT, BEiT, DINOv2",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="vector_gate",
            equation="a x + g b f, g (gate) [D] a sublayer; 0.1 at first up to 18 layers, 1e-5 up "
            "to 24, 1e-6 beyond",
            source="Touvron et al. 2021 (arXiv 2103.17239)",
            write=written(_gated),
            parameters=(StreamParameter("gate", vector, _by_depth),),
        ),
        usual=True,
    ),
    Arrangement(
        name="tanh_zero_gate",
        equation="x + tanh(g) f(LN(x)), one scalar g a sublayer, 0 at first; final LN",
        source="Alayrac et al. 2022 (arXiv 2204.14198), there around grafted layers",
        used_by="Flamingo, IDEFICS, Llama 3.2 Vision",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="tanh_gate",
            equation="a x + tanh(g) b f, scalar g (gate) a sublayer, 0 at first",
            source="Alayrac et al. 2022 (arXiv 2204.14198)",
            write=written(_tanh),
            parameters=(StreamParameter("gate", scalar, 0.0),),
        ),
        aliases=("flamingo",),
    ),
    Arrangement(
        name="fixup",
        equation="x + g f(x + c), scalars c and g a sublayer, 0 and 1 at first; no norm; "
        "Xavier-uniform kernels, q, k, v times L^(-1/6), fc1 and its gate times L^(-1/2), out and "
        "fc2 0 at first, L the branches of the whole model: 2 a layer of an encoder, 3 a layer of "
        "a decoder beside one",
        source="Zhang et al. 2019 (arXiv 1901.09321), L^(-1 / (2m - 2)) with m = 4 and 2; "
        "hongyi-zhang/Fixup fairseq/fairseq/models/transformer_zero.py, which subtracts c. We "
        "leave out its shift and scale after the last layer and its zero head; for its scalar "
        "shifts inside a branch stand the biases of the projections",
        stream=Stream(
            name="shift_and_scale",
            equation="f reads x + c; a x + g b f; scalars c (shift) and g (scale) a sublayer, 0 "
            "and 1 at first",
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
        equation="g x + f(LN(x)), g [D] a sublayer, 1 at first; final LN",
        source="Shleifer et al. 2021 (arXiv 2110.09456), ResScale, here on both sublayers as in "
        "huggingface/transformers models/doge/modeling_doge.py",
        used_by="Doge",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="skip_gate",
            equation="g a x + b f, g (scale) [D] a sublayer, 1 at first",
            source="Shleifer et al. 2021 (arXiv 2110.09456)",
            write=written(_skip),
            parameters=_vectors(scale=1.0),
        ),
    ),
    Arrangement(
        name="laurel_rw",
        equation="g x + h f(LN(x)), scalars g and h a sublayer, 1 at first; final LN",
        source="Menghani et al. 2024 (arXiv 2411.07501), RW; first values ours",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="weighted_sum",
            equation="g a x + h b f, scalars g (skip_scale) and h (branch_scale) a sublayer, 1 at "
            "first",
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
        equation="(x + c) g + (f(LN(x)) + d) h, all [D] a sublayer, c and d 0, g and h 1 at "
        "first; final LN",
        source="huggingface/transformers models/zaya/modeling_zaya.py",
        used_by="ZAYA1",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="affine_sum",
            equation="(a x + c) g + (b f + d) h, all [D] a sublayer; c (skip_bias) and d "
            "(branch_bias) 0, g (skip_scale) and h (branch_scale) 1 at first",
            source="huggingface/transformers models/zaya/modeling_zaya.py (ZayaResidualScaling)",
            write=written(_affine),
            parameters=_vectors(skip_bias=0.0, skip_scale=1.0, branch_bias=0.0, branch_scale=1.0),
        ),
    ),
    Arrangement(
        name="convex_unit_gate",
        equation="sqrt(max(1 - r^2, 1e-3)) x + r LN'(f(LN(x))), r = sigmoid(w / 0.3), w [D] a "
        "sublayer, N(0, 0.02^2) at first; final LN",
        source="huggingface/transformers models/muse_spark/modeling_muse_spark.py "
        "(MuseSparkResidualGate); its norms differ by slot, here one for all, and its norm of the "
        "embedding is left out",
        used_by="Muse Spark",
        norm_before=NORM,
        norm_after=NORM,
        final_norm=NORM,
        stream=Stream(
            name="unit_gate",
            equation="sqrt(max(1 - r^2, 1e-3)) a x + r b f, r = sigmoid(w / 0.3), 1 - r^2 taken "
            "as sigmoid(-w / 0.3) (1 + r), w (gate) [D] a sublayer, N(0, 0.02^2) at first",
            source="huggingface/transformers models/muse_spark/modeling_muse_spark.py "
            "(MuseSparkResidualGate)",
            write=written(_unit),
            parameters=(StreamParameter("gate", vector, _small),),
        ),
    ),
    Arrangement(
        name="gpas",
        equation="z - silu(g) sg(z), z = x + f(LN(x)), silu(g) = g sigmoid(g), sg stops the "
        "gradient, one scalar g a layer, for both its sublayers, 0 at first; final LN",
        source="arXiv 2506.22049; dandingsky/GPAS peft_pretraining/modeling_llama.py (pre_gpas)",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="held_back",
            equation="z - silu(g) sg(z), z = a x + b f, silu(g) = g sigmoid(g), sg stops the "
            "gradient; scalar g (gate) a layer, 0 at first",
            source="arXiv 2506.22049; dandingsky/GPAS peft_pretraining/modeling_llama.py "
            "(GPASBlock)",
            write=written(_held_back),
            parameters=(StreamParameter("gate", scalar, 0.0, "layer"),),
        ),
    ),
    Arrangement(
        name="admin",
        equation="LN(w x + f(x)), w [D] a sublayer, 1 at first; "
        "resnorm_jax.modules.admin.admin_profile, to be called before training, sets the paper's "
        "w_1 = 1, w_s^2 = Var(x_0) + sum over i < s of Var(f_i), variances of one forward pass "
        "over all features of valid positions; no final norm",
        source="Liu et al. 2020 (arXiv 2004.08249); LiyuanLucasLiu/Transformer-Clinic. The name "
        "alone profiles nothing: w stays 1, training starts as post_ln does",
        norm_on_stream=NORM,
        stream=Stream(
            name="vector_skip",
            equation="w a x + b f, w (skip_scale) [D] a sublayer, 1 at first; see "
            "resnorm_jax.modules.admin",
            source="Liu et al. 2020 (arXiv 2004.08249); LiyuanLucasLiu/Transformer-Clinic",
            write=_vector_skip,
            parameters=(StreamParameter("skip_scale", vector, 1.0),),
        ),
    ),
)
