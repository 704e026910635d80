"""Arrangements whose gates are computed from the stream, the branch or a condition."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.slots import NORM, NormSlot
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter, by_fan_in, vector, written

DIT_NORM = NormSlot(norm="layer_plain")
GTRXL = "Parisotto et al. 2019 (arXiv 1910.06764)"


def _widths(count: int) -> Callable[[Site], tuple[int, ...]]:
    """Shape of a kernel from one width to ``count`` widths."""
    return lambda site: (site.width, count * site.width)


def _conditioned(site: Site) -> tuple[int, ...]:
    return (site.width if site.condition is None else site.condition.shape[-1]), 3 * site.width


def _three_vectors(site: Site) -> tuple[int, ...]:
    return (3 * site.width,)


# --- Gates of the stream and the branch ---


def _highway(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    transform = jax.nn.sigmoid(x @ p["kernel"] + p["bias"])
    return transform * y + (1 - transform) * x


def _input(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return jax.nn.sigmoid(x @ site.parameters["kernel"]) * x + jax.nn.relu(y)


def _output(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    return x + jax.nn.sigmoid(x @ p["kernel"] - p["bias"]) * jax.nn.relu(y)


def _sig_tanh(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    gate, value = jnp.split(jax.nn.relu(y) @ p["kernel"], 2, -1)
    return x + jax.nn.sigmoid(gate - p["bias"]) * jnp.tanh(value)


def _gru(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    y_reset, y_update, y_new = jnp.split(jax.nn.relu(y) @ p["branch_kernel"], 3, -1)
    x_reset, x_update = jnp.split(x @ p["skip_kernel"], 2, -1)
    reset = jax.nn.sigmoid(y_reset + x_reset)
    update = jax.nn.sigmoid(y_update + x_update - p["bias"])
    new = jnp.tanh(y_new + (reset * x) @ p["candidate_kernel"])
    return (1 - update) * x + update * new


# --- Gates of a condition ---


def _modulation(site: Site, dtype) -> list[jax.Array]:
    """Shift, scale and gate ``[B, 1, D]`` of the condition; of a zero one where there is none."""
    kernel, bias = (site.parameters[f"modulation_{n}"].astype(dtype) for n in ("kernel", "bias"))
    given = site.condition
    out = bias if given is None else jax.nn.silu(given.astype(dtype)) @ kernel + bias
    return jnp.split(out[..., None, :], 3, -1)


def _modulated_read(x: jax.Array, site: Site) -> jax.Array:
    wide = statistics_dtype(x)
    shift, scale, _ = _modulation(site, wide)
    return (site.norm("read_norm", x.astype(wide)) * (1 + scale) + shift).astype(x.dtype)


def _modulated(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return x + _modulation(site, x.dtype)[2] * y


def _kernel(name: str, shape, init=by_fan_in) -> StreamParameter:
    return StreamParameter(name, shape, init)


ROWS = (
    Arrangement(
        name="highway",
        equation="T f(LN(x)) + (1 - T) x, T = sigmoid(x W + c), W [D, D] N(0, 1 / D) and c [D] -3 "
        "at first; final LN",
        source="Srivastava et al. 2015 (arXiv 1505.00387), here with Pre-LN",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="carry_gate",
            equation="T b f + (1 - T) z, z = a x, T = sigmoid(z W + c), W (kernel) [D, D] N(0, 1 "
            "/ D) and c (bias) [D] -3 at first",
            source="Srivastava et al. 2015 (arXiv 1505.00387): a negative bias; -3 is ours",
            write=written(_highway),
            parameters=(_kernel("kernel", _widths(1)), StreamParameter("bias", vector, -3.0)),
        ),
    ),
    Arrangement(
        name="gtrxl",
        equation="(1 - z) x + z tanh(y W_g + (r x) U_g), y = max(f(LN(x)), 0), r = sigmoid(y W_r "
        "+ x U_r), z = sigmoid(y W_z + x U_z - c), kernels N(0, 1 / D) and c [D] 2 at first; no "
        "final norm",
        source=f"{GTRXL}; opendilab/DI-engine ding/torch_utils/network/gtrxl.py",
        norm_before=NORM,
        stream=Stream(
            name="gru_gate",
            equation="(1 - z) h + z tanh(y W_g + (r h) U_g), h = a x, y = max(b f, 0), r = "
            "sigmoid(y W_r + h U_r), z = sigmoid(y W_z + h U_z - c); branch_kernel [D, 3D] = W_r, "
            "W_z, W_g side by side, skip_kernel [D, 2D] = U_r, U_z, candidate_kernel [D, D] = "
            "U_g, all N(0, 1 / D), c (bias) [D] 2 at first",
            source=GTRXL,
            write=written(_gru),
            parameters=(
                _kernel("branch_kernel", _widths(3)),
                _kernel("skip_kernel", _widths(2)),
                _kernel("candidate_kernel", _widths(1)),
                StreamParameter("bias", vector, 2.0),
            ),
        ),
    ),
    Arrangement(
        name="gtrxl_input",
        equation="sigmoid(x W) x + max(f(LN(x)), 0), W [D, D] N(0, 1 / D) at first; no final norm",
        source=GTRXL,
        norm_before=NORM,
        stream=Stream(
            name="input_gate",
            equation="sigmoid(z W) z + max(b f, 0), z = a x, W (kernel) [D, D] N(0, 1 / D) at "
            "first",
            source=GTRXL,
            write=written(_input),
            parameters=(_kernel("kernel", _widths(1)),),
        ),
    ),
    Arrangement(
        name="gtrxl_output",
        equation="x + sigmoid(x W - c) max(f(LN(x)), 0), W [D, D] N(0, 1 / D) and c [D] 2 at "
        "first; no final norm",
        source=GTRXL,
        norm_before=NORM,
        stream=Stream(
            name="output_gate",
            equation="z + sigmoid(z W - c) max(b f, 0), z = a x, W (kernel) [D, D] N(0, 1 / D) "
            "and c (bias) [D] 2 at first",
            source=GTRXL,
            write=written(_output),
            parameters=(_kernel("kernel", _widths(1)), StreamParameter("bias", vector, 2.0)),
        ),
    ),
    Arrangement(
        name="gtrxl_sig_tanh",
        equation="x + sigmoid(y W - c) tanh(y U), y = max(f(LN(x)), 0), W, U [D, D] N(0, 1 / D) "
        "and c [D] 2 at first; no final norm",
        source=GTRXL,
        norm_before=NORM,
        stream=Stream(
            name="sig_tanh_gate",
            equation="a x + sigmoid(y W - c) tanh(y U), y = max(b f, 0), kernel [D, 2D] = W, U "
            "side by side, N(0, 1 / D), and c (bias) [D] 2 at first",
            source=GTRXL,
            write=written(_sig_tanh),
            parameters=(_kernel("kernel", _widths(2)), StreamParameter("bias", vector, 2.0)),
        ),
    ),
    Arrangement(
        name="adaln_zero",
        equation="x + g f(P(x) (1 + r) + t), P layer norm without scale and bias, epsilon 1e-6, "
        "(t, r, g) = silu(c) W + d in this order, W [C, 3D] and d [3D] a sublayer, 0 at first, "
        "silu(c) = c sigmoid(c), c [B, C] the condition: where none is given, the mean of the "
        "stack's input over valid positions; final P",
        source="Peebles and Xie 2022 (arXiv 2212.09748); facebookresearch/DiT models.py "
        "(DiTBlock), where one projection to 6D serves both sublayers and the final norm is "
        "modulated too",
        used_by="DiT, Qwen2.5-Omni",
        final_norm=DIT_NORM,
        stream=Stream(
            name="modulated_gate",
            equation="f reads P(x) (1 + r) + t; a x + g b f; P layer norm without scale and bias, "
            "epsilon 1e-6, (t, r, g) = silu(c) W + d in this order, c [B, C] the condition, W "
            "(modulation_kernel) [C, 3D] and d (modulation_bias) [3D] a sublayer, 0 at first; "
            "with no condition at all (t, r, g) = d",
            source="Peebles and Xie 2022 (arXiv 2212.09748); facebookresearch/DiT models.py "
            "(DiTBlock)",
            write=written(_modulated),
            read=_modulated_read,
            norms={"read_norm": NormSlot(norm="layer_plain")},
            parameters=(
                _kernel("modulation_kernel", _conditioned, 0.0),
                StreamParameter("modulation_bias", _three_vectors, 0.0),
            ),
        ),
    ),
)
