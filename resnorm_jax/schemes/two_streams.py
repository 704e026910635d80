"""Arrangements of two streams: a normalized and a plain one, a block's input, the embedded input."""

import jax
import jax.numpy as jnp

from resnorm_jax.ops.residual import residual
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import ROLES, Arrangement, Init
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter, add, scalar

Pair = tuple[jax.Array, jax.Array]
# nanochat's lambdas in the first layer, and by how much they fall to the last.
RESID, INPUT = (1.15, 0.10), (0.20, 0.15)


def _open_twice(x: jax.Array, site: Site) -> Pair:
    return x, x


def _first(carry: Pair, site: Site) -> jax.Array:
    return carry[0]


def _view_first(carry: Pair) -> jax.Array:
    return carry[0]


def _norm_first(norm, carry: Pair) -> Pair:
    return norm(carry[0]), carry[1]


def _sum(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``x + y`` in the dtype of ``y``, added in float32 at least."""
    wide = statistics_dtype(x)
    return (x.astype(wide) + y.astype(wide)).astype(y.dtype)


# --- ResiDual: x is normalized after each sum, r sums the branches alone ---


def _write_both(carry: Pair, y: jax.Array, site: Site) -> Pair:
    x, r = carry
    return add(x, y, site), residual(r, y)


def _close_dual(carry: Pair, site: Site) -> jax.Array:
    return _sum(carry[0], site.norm("final_norm", carry[1]))


# --- SiameseNorm: a Post-LN and a Pre-LN stream that share their branches ---


def _read_siamese(carry: Pair, site: Site) -> jax.Array:
    x, y = carry
    return _sum(site.norm("post_norm", x), site.norm("pre_norm", y))


def _write_siamese(carry: Pair, z: jax.Array, site: Site) -> Pair:
    x, y = carry
    return add(site.norm("post_norm", x), z, site), residual(y, z)


def _close_siamese(carry: Pair, site: Site) -> jax.Array:
    return site.norm("final_norm", _read_siamese(carry, site))


# --- B2T: the layer's input skips all norms of the layer but the last ---


def _write_bottom(carry: Pair, y: jax.Array, site: Site) -> Pair:
    x, bottom = carry
    if site.position == 1:
        bottom = x
    x = add(x, y, site)
    # A layer of one sublayer has no norm to skip.
    return (residual(x, bottom) if site.last and site.position > 1 else x), bottom


# --- x0: each layer starts from its own mixture of the stream and the embedded input ---
# At first the stream grows by 1.1 a layer on average: for tens of layers, as in nanochat. Float32
# overflows at about 900.


def _mixture(carry: Pair, site: Site) -> jax.Array:
    x, x0 = carry
    if site.position > 1:
        return x
    wide = statistics_dtype(x)
    p = {name: value.astype(wide) for name, value in site.parameters.items()}
    mixed = p["resid_gate"] * x.astype(wide) + p["input_gate"] * x0.astype(wide)
    return mixed.astype(x.dtype)


def _write_mixture(carry: Pair, y: jax.Array, site: Site) -> Pair:
    return add(_mixture(carry, site), y, site), carry[1]


def _falling(start: float, fall: float):
    """Initial value that falls from the first layer to the last, in equal steps."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
        share = jnp.asarray(site.layer - 1, dtype) / max(site.layers - 1, 1)
        return (start - fall * share).astype(dtype)

    init.__doc__ = f"``{start} - {fall} (l - 1) / max(N - 1, 1)`` in layer l."
    return init


def inverse_root_depth(place: Place) -> float:
    """B2T's init gain, ``N**(-1/2)`` (rescaling_init of takase/b2t_connection)."""
    return place.layers**-0.5


def siamese_scale(place: Place) -> float:
    """SiameseNorm's factor on a branch in the Post-LN stream, ``(2 l)**(-1/2)``."""
    return (2 * place.layer) ** -0.5


NORMS = {"post_norm": NORM, "pre_norm": NORM}

ROWS = (
    Arrangement(
        name="resi_dual",
        equation="x = LN(x + y), r = r + y, y = f(x), x and r both the stack's input at first; "
        "out x + LN'(r)",
        source="Xie et al. 2023 (arXiv 2304.14802); microsoft/ResiDual resi_dual/resi_dual.py",
        norm_on_stream=NORM,
        final_norm=NORM,
        stream=Stream(
            name="dual",
            equation="x = a x + b f (then normalized), r = r + f, x and r both the stack's input "
            "at first, f reads x; out: x + LN(r), LN the final norm",
            source="Xie et al. 2023 (arXiv 2304.14802); microsoft/ResiDual resi_dual/resi_dual.py",
            write=_write_both,
            open=_open_twice,
            read=_first,
            close=_close_dual,
            view=_view_first,
            on_stream=_norm_first,
        ),
    ),
    Arrangement(
        name="siamese_norm",
        equation="u = LN_1(x), z = f(LN_3(u + LN_2(y))), x = u + z / sqrt(2 l), y = y + z, l the "
        "layer, x and y both the stack's input at first; out LN(LN_4(x) + LN_5(y)); each sublayer "
        "has its own LN_1 to LN_3",
        source="Li et al. 2026 (arXiv 2602.08064); Qwen-Applications/SiameseNorm "
        "deit-model-siamesenorm.py",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="siamese",
            equation="f reads P(x) + Q(y); x = a P(x) + b f, y = y + f, x and y both the stack's "
            "input at first, P (post_norm) and Q (pre_norm) a sublayer; out: LN(P(x) + Q(y)) with "
            "a P and a Q of the stack's own, LN the final norm",
            source="Li et al. 2026 (arXiv 2602.08064); Qwen-Applications/SiameseNorm "
            "deit-model-siamesenorm.py",
            write=_write_siamese,
            open=_open_twice,
            read=_read_siamese,
            close=_close_siamese,
            view=_view_first,
            on_stream=_norm_first,
            norms=NORMS,
            closing_norms=NORMS,
        ),
        branch_scale=siamese_scale,
    ),
    Arrangement(
        name="bottom_to_top",
        equation="LN(x + f(x)), in a layer's last sublayer LN(x + f(x) + the layer's input); "
        "Xavier-uniform gain N^(-1/2) on all kernels; no final norm",
        source="Takase et al. 2022 (arXiv 2206.00330); takase/b2t_connection "
        "fairseq/modules/transformer_layer.py",
        norm_on_stream=NORM,
        stream=Stream(
            name="bottom",
            equation="a x + b f; at a layer's last sublayer, unless it is its only one, a x + b f "
            "+ z, z the stream at the layer's start",
            source="Takase et al. 2022 (arXiv 2206.00330); takase/b2t_connection "
            "fairseq/modules/transformer_layer.py",
            write=_write_bottom,
            open=_open_twice,
            read=_first,
            view=_view_first,
            on_stream=_norm_first,
        ),
        init=Init(gains=dict.fromkeys(ROLES, inverse_root_depth)),
        aliases=("b2t",),
    ),
    Arrangement(
        name="input_lambdas",
        equation="x + f(LN(x)), each layer starting from p x + q x_0 in place of x, x_0 = "
        "LN(embedding), scalars p and q a layer, at first p = 1.15 - 0.10 (l - 1) / (N - 1), q = "
        "0.20 - 0.15 (l - 1) / (N - 1), 1.15 and 0.20 where N = 1; final LN",
        source="karpathy/nanochat nanochat/gpt.py (resid_lambdas, x0_lambdas), without its smear "
        "and backout",
        used_by="nanochat",
        embedding_norm=NORM,
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="input_mixture",
            equation="a x + b f, each layer starting from p x + q x_0 in place of x, which its "
            "first sublayer reads and adds to; p (resid_gate), q (input_gate) scalars a layer, "
            "1.15 to 1.05 and 0.20 to 0.05 at first in equal steps from the first layer to the "
            "last",
            source="karpathy/nanochat nanochat/gpt.py (resid_lambdas, x0_lambdas)",
            write=_write_mixture,
            open=_open_twice,
            read=_mixture,
            view=_view_first,
            on_stream=_norm_first,
            parameters=(
                StreamParameter("resid_gate", scalar, _falling(*RESID), "layer"),
                StreamParameter("input_gate", scalar, _falling(*INPUT), "layer"),
            ),
        ),
        aliases=("x0_lambdas",),
    ),
)
