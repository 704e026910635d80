"""Arrangements that look back at all earlier layers.

Were the earlier outputs kept in a buffer that each layer reads, a scanned backward pass would save
that whole buffer at every layer: memory would grow with the square of depth. Here each output is
*pushed*: at the moment it is written it is added, weighted, to the running sums of all places that
will read it. A sum's derivative does not depend on the sum, so going backward only the outputs
themselves are needed, as in any Transformer, and one more buffer. Sums of places that have been read
get what comes later too; nobody reads them again.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms import rms_norm
from resnorm_jax.ops.residual import scaled
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Carry, Site, Stream, StreamParameter, add

BLOCKS = 8  # arXiv 2603.15031, section 3.2: about eight blocks keep most of the gain


def _view(carry: Carry) -> jax.Array:
    return carry["x"]


def _read(carry: Carry, site: Site) -> jax.Array:
    return carry["x"]


def _on_stream(norm: Any, carry: Carry) -> Carry:
    return {**carry, "x": norm(carry["x"])}


def _at(array: jax.Array, index: int | jax.Array, axis: int = 0) -> jax.Array:
    return lax.dynamic_index_in_dim(array, index, axis, keepdims=False)


def _beside(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Weights ``[T]`` or ``[T, B, L]`` so that they broadcast to ``[T, *x.shape]``."""
    return weights.reshape(*weights.shape, *(1,) * (x.ndim + 1 - weights.ndim))


# --- Depth-weighted average ---


def _averages(site: Site) -> tuple[int, ...]:
    return (site.layers, site.layers + 1)


def _newest_alone(key: jax.Array, shape: tuple[int, ...], dtype: Any, site: Site) -> jax.Array:
    """1 at row l, column l, else 0: rows count from 1, columns from 0, the stack's input."""
    return jnp.eye(shape[0], shape[1], k=1, dtype=dtype)


def _open_average(x: jax.Array, site: Site) -> Carry:
    weights = site.parameters["depth_alpha"][:, 0]
    wide = x.astype(statistics_dtype(x))
    return {"x": x, "sums": _beside(weights.astype(wide.dtype), x) * wide}


def _write_average(carry: Carry, y: jax.Array, site: Site) -> Carry:
    x = add(carry["x"], y, site)
    if not site.last:
        return {**carry, "x": x}
    sums = carry["sums"]
    weights = _at(site.parameters["depth_alpha"], site.layer, axis=1).astype(sums.dtype)
    sums = sums + _beside(weights, x) * x.astype(sums.dtype)
    return {"x": _at(sums, site.layer - 1).astype(x.dtype), "sums": sums}


# --- Attention over depth ---


def _queries(site: Site) -> tuple[int, ...]:
    return (site.sublayers + 1, site.width)


def _logits(queries: jax.Array, source: jax.Array) -> jax.Array:
    """``w . RMS(v)`` of each query ``[..., D]`` and position: ``[..., B, L]``."""
    keys = rms_norm(source)
    return jnp.tensordot(queries.astype(keys.dtype), keys, ((-1,), (-1,)), precision="highest")


@jax.checkpoint  # what is as long as depth is computed again going backward
def _push(state: Carry, source: jax.Array, queries: jax.Array) -> Carry:
    """Add a source to the softmax of every place ``[T]``, in the manner of online softmax."""
    logits = _logits(queries, source)
    # The largest logit so far cancels out of the ratio: nothing flows through it.
    top = lax.stop_gradient(jnp.maximum(state["top"], logits))
    kept, new = lax.stop_gradient(jnp.exp(state["top"] - top)), jnp.exp(logits - top)
    return {
        "sums": state["sums"] * _beside(kept, source) + _beside(new, source) * source,
        "total": state["total"] * kept + new,
        "top": top,
    }


@jax.checkpoint
def _mean(state: Carry, source: jax.Array, query: jax.Array) -> jax.Array:
    """Weighted mean of all that was pushed to one place, and of one source more."""
    alone = jax.tree.map(lambda array: array[None], state)
    pushed = _push(alone, source, query[None])
    return pushed["sums"][0] / pushed["total"][0, ..., None]


def _rows(arrays: Any, start: int | jax.Array, count: int) -> Any:
    """Rows from ``start`` on; beyond the last, that one."""
    return jax.tree.map(lambda a: jnp.stack([_at(a, start + k) for k in range(count)]), arrays)


def _near(site: Site) -> int:
    """How many places are kept apart: those that the sublayers of one layer write to.

    What they read is not linear; read from among all places, it would have all of them saved when a
    layer is computed again going backward. A layer of more sublayers than the others finds the rest
    there nevertheless.
    """
    return -(-site.sublayers // site.layers)


def _open_attention(x: jax.Array, site: Site) -> Carry:
    queries = site.parameters["query_kernel"]
    wide = x.astype(statistics_dtype(x))
    some = jnp.zeros((len(queries), *x.shape), wide.dtype)
    state = {"sums": some, "total": some[..., 0], "top": jnp.full_like(some[..., 0], -jnp.inf)}
    far = _push(state, wide, queries)
    return {"x": x, "far": far, "near": _rows(far, 1, _near(site)), "part": jnp.zeros_like(wide)}


def _next(carry: Carry, source: jax.Array, site: Site) -> jax.Array:
    """The next sublayer's input, or the output."""
    place, near = site.sublayer, site.position <= _near(site)
    found, index = (carry["near"], site.position - 1) if near else (carry["far"], place)
    state = jax.tree.map(lambda array: _at(array, index), found)
    mean = _mean(state, source, _at(site.parameters["query_kernel"], place))
    return mean.astype(carry["x"].dtype)


def _write_attention(carry: Carry, y: jax.Array, site: Site) -> Carry:
    queries, count = site.parameters["query_kernel"], _near(site)
    source = scaled(y, site.branch_scale).astype(carry["part"].dtype)
    far = _push(carry["far"], source, queries)
    if site.last:
        near = _rows(far, site.sublayer + 1, count)
    else:
        own = _rows(queries, site.sublayer - site.position + 1, count)
        near = _push(carry["near"], source, own)
    return {**carry, "x": _next(carry, source, site), "far": far, "near": near}


def _write_blocks(carry: Carry, y: jax.Array, site: Site) -> Carry:
    queries, far = site.parameters["query_kernel"], carry["far"]
    part = carry["part"] + scaled(y, site.branch_scale).astype(carry["part"].dtype)
    x = _next(carry, part, site)
    if not site.last:
        return {**carry, "x": x, "part": part}
    full = jnp.asarray(site.layer % -(-site.layers // BLOCKS) == 0)
    far = lax.cond(full, _push, lambda far, *_: far, far, part, queries)
    near = _rows(far, site.sublayer + 1, _near(site))
    return {"x": x, "far": far, "near": near, "part": jnp.where(full, 0, part)}


_ATTENTION = (StreamParameter("query_kernel", _queries, 0.0, "stack"),)

ROWS = (
    Arrangement(
        name="denseformer",
        equation="x_l = the layer's two sublayers x + f(LN(x)), then x = sum over j = 0..l of "
        "a_lj x_j, x_0 the stack's input; a [N, N + 1] 1 at j = l and else 0 at first; final LN",
        source="Pagliardini et al. 2024 (arXiv 2402.02622), section 3; epfml/DenseFormer",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="depth_average",
            equation="a x + b f; after each layer l its output x_l is replaced by x = sum over j "
            "= 0..l of w_lj x_j, x_0 the stack's input, x_j the outputs before they were "
            "replaced; w (depth_alpha) [N, N + 1] 1 at j = l and else 0 at first",
            source="Pagliardini et al. 2024 (arXiv 2402.02622), dilation and period 1; "
            "epfml/DenseFormer denseformer/denseformer.py. There the weights decay, here they do "
            "not",
            write=_write_average,
            open=_open_average,
            read=_read,
            view=_view,
            on_stream=_on_stream,
            parameters=(StreamParameter("depth_alpha", _averages, _newest_alone, "stack"),),
        ),
    ),
    Arrangement(
        name="attention_residuals",
        equation="v_s = f(LN(h_s)), h_s = sum over i = 0..s - 1 of softmax_i(w_s . RMS(v_i)) v_i, "
        "v_0 the stack's input, s the sublayer from 1, RMS(v) = v / sqrt(mean(v^2) + 1e-6), w [2N "
        "+ 1, D] 0 at first (a plain mean); out LN(h_(2N + 1)), final LN",
        source="Kimi Team 2026 (arXiv 2603.15031), eq. 2-4",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="depth_attention",
            equation="h_s = sum over i = 0..s - 1 of softmax_i(w_s . RMS(v_i)) v_i, v_0 the "
            "stack's input, v_i = b f of sublayer i, RMS(v) = v / sqrt(mean(v^2) + 1e-6); f of "
            "sublayer s reads h_s; out: final norm of h_(S + 1), S the sublayers; w "
            "(query_kernel) [S + 1, D] 0 at first, its first row without effect (a is not read)",
            source="Kimi Team 2026 (arXiv 2603.15031), eq. 2-4; RMS has no scale of its own, as w "
            "has one",
            write=_write_attention,
            open=_open_attention,
            read=_read,
            view=_view,
            on_stream=_on_stream,
            parameters=_ATTENTION,
        ),
    ),
    Arrangement(
        name="block_attention_residuals",
        equation="b_n = sum of f(LN(h_s)) over the sublayers s of block n, from 1, of ceil(N / 8) "
        "layers, b_0 the stack's input, h_s = sum over n of softmax_n(w_s . RMS(b_n)) b_n over "
        "all blocks begun before s, the last as far as it has come, RMS(v) = v / sqrt(mean(v^2) + "
        "1e-6), w [2N + 1, D] 0 at first; out LN(h_(2N + 1)), final LN",
        source="Kimi Team 2026 (arXiv 2603.15031), eq. 5-6 and figure 2",
        used_by="Inkling 2, which also normalizes the b_n that are summed",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="depth_attention_blocks",
            equation="as depth_attention, over the sums v_n of b f in each block n of ceil(N / 8) "
            "layers in place of each b f: sublayer s reads the blocks begun before it, the last "
            "as far as it has come; v_0 the stack's input",
            source="Kimi Team 2026 (arXiv 2603.15031), eq. 5-6 and figure 2; RMS has no scale, as "
            "there",
            write=_write_blocks,
            open=_open_attention,
            read=_read,
            view=_view,
            on_stream=_on_stream,
            parameters=_ATTENTION,
        ),
    ),
)
