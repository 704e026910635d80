"""Which implementation of attention serves where, and why NVIDIA's does not."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from resnorm_jax.ops.attention.flash import backward_here

Implementation = Literal["xla", "chunked", "cudnn"]
IMPLEMENTATIONS = get_args(Implementation)
# Products of the numbers of queries and keys from which on chunks are taken: on a CPU they are faster
# from there, elsewhere the weights begin to fill the memory.
CHUNKED_FROM = {"cpu": 256 * 256}
CHUNKED_FROM_ELSEWHERE = 4096 * 4096
HALF = ("bfloat16", "float16")
WIDEST = 256  # of a head, in cuDNN; 128 before Hopper, which JAX tells on such a card


def choose_attention(queries: int, keys: int, backend: str | None = None) -> Implementation:
    """Return what ``implementation=None`` stands for where NVIDIA's kernel does not serve.

    Args:
      queries: their number, ``T``.
      keys: their number, ``S``.
      backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``; JAX's default one if None.
    """
    many = CHUNKED_FROM.get(backend or jax.default_backend(), CHUNKED_FROM_ELSEWHERE)
    return "chunked" if queries * keys >= many else "xla"


def why_not_cudnn(
    query: Any,
    key: Any,
    *,
    mask: bool = False,
    bias: bool = False,
    dropout: float = 0.0,
    backend: str | None = None,
) -> str | None:
    """Return why NVIDIA's flash attention cannot serve, in one line, or None where it can.

    The choice falls when a program is traced: JAX refuses that kernel, where there is no cuDNN, before
    anything is lowered.

    Args:
      query: ``[B, T, H, Dh]``, or a `jax.ShapeDtypeStruct` of it.
      key: ``[B, S, H, Dh]``, likewise.
      mask: whether there is a boolean mask, which may have holes.
      bias: whether something is added to the scores, as relative positions are.
      dropout: rate of the dropout of attention weights.
      backend: as in `choose_attention`. For another than JAX's own, JAX cannot be asked whether that
        machine's cuDNN takes the shapes.
    """
    own = jax.default_backend()
    backend = backend or own
    for reason in _reasons(query, key, mask, bias, dropout, backend):
        return reason
    return _refusal(query, key) if backend == own else None


def _reasons(
    query: Any, key: Any, mask: bool, bias: bool, dropout: float, backend: str
) -> Iterator[str]:
    dtype, width = jnp.dtype(query.dtype).name, query.shape[-1]
    if backend != "gpu":
        yield f"it needs a GPU, and JAX runs on {backend}"
    if backward_here() == "none":
        yield "XLA divides this program over devices and makes it deterministic, and cannot do both"
    if dtype not in HALF:
        yield f"it computes in {' or '.join(HALF)}, and this is {dtype}"
    if dropout > 0:
        yield f"it needs attention_dropout=0, and it is {dropout}"
    if mask:
        yield "it takes lengths, not a boolean mask, which may have holes"
    if bias:
        yield "nothing can be added to its scores, as relative positions are"
    if width % 8 or not 0 < width <= WIDEST:
        yield f"its heads have a multiple of 8 features, at most {WIDEST}, and these have {width}"
    if 0 in (*query.shape, *key.shape):
        yield "there is nothing to attend to"


def _refusal(query: Any, key: Any) -> str | None:
    """Return what JAX has against cuDNN for arrays of these shapes, gradient included."""

    def total(q: jax.Array, k: jax.Array, v: jax.Array, n: jax.Array, m: jax.Array) -> jax.Array:
        out = jax.nn.dot_product_attention(
            q, k, v, query_seq_lengths=n, key_value_seq_lengths=m, implementation="cudnn"
        )
        return out.astype(jnp.float32).sum()

    q, k = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (query, key))
    rows = jax.ShapeDtypeStruct(q.shape[:1], jnp.int32)
    try:
        jax.eval_shape(jax.grad(total, (0, 1, 2)), q, k, k, rows, rows)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return f"JAX refuses it: {str(error).splitlines()[0]}"
    return None
