"""NVIDIA's flash attention with a backward pass that gives the same bits each time.

XLA's options decide whether cuDNN's backward pass is deterministic. Where it is to be, XLA marks the
first backward call of a program and files its plan under the mark. Equal further calls, as unrolled
layers have, stay without the mark, and running the program ends with "raw_hash_map::at"
(``CuDnnCustomCallCompiler`` in XLA of JAX 0.11.2). Here every call is marked from the beginning.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

Backward = Literal["jax", "deterministic", "none"]
_BACKWARD: ContextVar[Backward] = ContextVar("flash_backward", default="jax")
BEFORE_TYPED_FFI = 2  # of XLA's custom calls: the one of cuDNN's attention
# Each product's contracted axis and axes of the batch, left and right, of arrays [B, T, H, Dh] and of
# weights [B, H, T, S].
FORWARD = {
    "bmm1": ((3, (0, 2)), (3, (0, 2))),  # scores of q and k
    "bmm2": ((3, (0, 1)), (1, (0, 2))),  # y of the weights and v
}
BACKWARD = {
    "bmm1_grad_gemm1": ((2, (0, 1)), (1, (0, 2))),  # dk of the scores' gradient and q
    "bmm1_grad_gemm2": ((3, (0, 1)), (1, (0, 2))),  # dq of that and k
    "bmm2_grad_gemm1": ((2, (0, 1)), (1, (0, 2))),  # dv of the weights and dy
    "bmm2_grad_gemm2": ((3, (0, 2)), (3, (0, 2))),  # the weights' gradient of dy and v
}
BY_HEAD = (0, 2, 1, 3)  # results are [B, H, T, Dh], which lie in memory as [B, T, H, Dh]
Lengths = tuple[jax.Array, jax.Array] | None


@contextmanager
def flash_backward(kind: Backward) -> Iterator[None]:
    """Trace attention for a program of this kind.

    Args:
      kind: ``"jax"``, JAX's own calls, for programs without XLA's options for determinism;
        ``"deterministic"`` for those that have them; ``"none"`` for those that XLA also divides over
        devices: it does not know how to divide these calls, and cuDNN's kernel is not chosen.
    """
    before = _BACKWARD.set(kind)
    try:
        yield
    finally:
        _BACKWARD.reset(before)


def backward_here() -> Backward:
    """Return for what kind of program attention is traced."""
    return _BACKWARD.get()


def flash_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, lengths: Lengths, scale: float | None
) -> jax.Array:
    """CuDNN's attention, by `jax.nn` or, in a deterministic program, by calls of our own.

    Args:
      query: ``[B, T, H, Dh]``, bfloat16 or float16.
      key: ``[B, S, H, Dh]``.
      value: ``[B, S, H, Dh]``.
      lengths: of the queries and of the keys, ``[B]`` int32 each, or None for all.
      scale: factor on the products; None for ``1 / sqrt(Dh)``.

    Returns:
      ``[B, T, H, Dh]``.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    if backward_here() == "deterministic":
        return _deterministic(scale, query, key, value, lengths)
    return _by_jax(scale, query, key, value, lengths)


def _by_jax(scale: float, query: Any, key: Any, value: Any, lengths: Lengths, **more: Any) -> Any:
    if lengths is not None:
        more |= {"query_seq_lengths": lengths[0], "key_value_seq_lengths": lengths[1]}
    return jax.nn.dot_product_attention(
        query, key, value, scale=scale, implementation="cudnn", **more
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _deterministic(scale: float, query: Any, key: Any, value: Any, lengths: Lengths) -> Any:
    return _by_jax(scale, query, key, value, lengths)


def _forward(scale: float, query: Any, key: Any, value: Any, lengths: Lengths) -> Any:
    out, sums = forward_call(scale, query, key, value, lengths)
    return out, (query, key, value, lengths, out, sums)


def _backward(scale: float, saved: Any, gradient: jax.Array) -> Any:
    return *backward_call(scale, *saved, gradient=gradient), None


_deterministic.defvjp(_forward, _backward)


def forward_call(
    scale: float, query: jax.Array, key: jax.Array, value: jax.Array, lengths: Lengths
) -> tuple[jax.Array, jax.Array]:
    """Return attention, and of each query ``[B, H, T]`` the logarithm of the sum over its keys.

    That of `jax.nn.dot_product_attention` is rounded to half precision, too rough to go backward from.
    """
    b, t, h, _ = query.shape
    config = _described(FORWARD, scale, query, key, padded=lengths is not None)
    sums = _like(query, (b, h, t), jnp.float32)
    given = (query, key, value, *(lengths or ()))
    out, kept = _call("__cudnn$fmhaSoftmax", (_turned(query), sums), (BY_HEAD, None), config, given)
    return jnp.transpose(out, BY_HEAD), kept


def backward_call(
    scale: float,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    lengths: Lengths,
    out: jax.Array,
    sums: jax.Array,
    gradient: jax.Array,
) -> list[jax.Array]:
    """Return the gradients of query, key and value; ``out`` and ``sums`` are of `forward_call`."""
    config = _described(BACKWARD, scale, query, key, padded=lengths is not None)
    shapes = tuple(_turned(a) for a in (query, key, value))
    given = (query, key, value, sums, gradient.astype(out.dtype), out, *(lengths or ()))
    found = _call("__cudnn$fmhaSoftmaxBackward", shapes, (BY_HEAD,) * 3, config, given)
    return [jnp.transpose(a, BY_HEAD) for a in found]


def _like(array: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    varying = jax.typeof(array).manual_axis_type  # under shard_map
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=varying)


def _turned(array: jax.Array) -> jax.ShapeDtypeStruct:
    b, t, h, d = array.shape
    return _like(array, (b, h, t, d), array.dtype)


def _call(
    target: str,
    shapes: tuple[jax.ShapeDtypeStruct, ...],
    layouts: tuple[Any, ...],
    config: str,
    given: tuple[jax.Array, ...],
) -> list[jax.Array]:
    """Return what the call gives but for the workspace, whose size XLA finds."""
    call = jax.ffi.ffi_call(
        target,
        (*shapes, _like(given[0], (0,), jnp.uint8)),
        output_layouts=(*layouts, None),
        vmap_method="sequential",
        custom_call_api_version=BEFORE_TYPED_FFI,
        legacy_backend_config=config,
    )
    return list(call(*given))[:-1]


def _described(
    products: dict[str, Any], scale: float, query: jax.Array, key: jax.Array, padded: bool
) -> str:
    """Return the call's description as XLA reads it: ``CudnnfMHABackendConfig``."""
    (b, t, h, _), s = query.shape, key.shape[1]
    weights = {
        "element_type": {"bfloat16": "BF16", "float16": "F16"}[query.dtype.name],
        "dimensions": [str(n) for n in (b, h, t, s)],
        "tuple_shapes": [],
        "layout": {
            "dim_level_types": [], "dim_unique": [], "dim_ordered": [], "tiles": [],
            "minor_to_major": ["3", "2", "1", "0"], "element_size_in_bits": "0",
            "memory_space": "0", "index_primitive_type": "PRIMITIVE_TYPE_INVALID",
            "pointer_primitive_type": "PRIMITIVE_TYPE_INVALID",
            "dynamic_shape_metadata_prefix_bytes": "0",
        },
        "is_dynamic_dimension": [False] * 4,
    }  # fmt: skip
    config = {
        "algorithm": {
            "algo_id": "0", "math_type": "TENSOR_OP_MATH", "is_cudnn_frontend": True,
            "tuning_knobs": {"17": "1", "24": "0"}, "workspace_size": "0",
        },
        "fmha_scale": scale, "dropout_rate": 0.0, "seed": 42, "sliding_window_length": 0,
        "max_seg_per_batch": 1, "is_paged_attention": False, "is_flash_attention": True,
        "mask_type": "PADDING" if padded else "NO_MASK",
        "intermediate_tensor_shape": weights,
        **{f"{name}_dot_dimension_numbers": _axes(*of) for name, of in products.items()},
    }  # fmt: skip
    if products is BACKWARD:
        config["force_deterministic"] = True
    return json.dumps({"operation_queue_id": "0", "cudnn_fmha_backend_config": config})


def _axes(left: tuple[int, tuple[int, int]], right: tuple[int, tuple[int, int]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for side, (contracted, batch) in (("lhs", left), ("rhs", right)):
        found[f"{side}_contracting_dimensions"] = [str(contracted)]
        found[f"{side}_batch_dimensions"] = [str(axis) for axis in batch]
    return found
