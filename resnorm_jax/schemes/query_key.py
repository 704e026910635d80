"""What is done to queries and keys before their product: the QK-norm family, one row each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from resnorm_jax.ops.norms import cosine_query_key, henry_scale, l2_norm, swin_scale
from resnorm_jax.ops.norms.query_key import SWIN_FIRST
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.registry import Registry

Parameters = Mapping[str, jax.Array]
Normalize = Callable[[str, jax.Array], jax.Array]


@dataclass(frozen=True)
class QueryKeyParameter:
    """A learned parameter: ``shape(heads, head width)``; ``init(length)`` of every element."""

    name: str
    shape: Callable[[int, int], tuple[int, ...]]
    init: Callable[[int], float]


@dataclass(frozen=True)
class QueryKey:
    """A row.

    Attributes:
      name: name of the row.
      equation: one line, for people.
      source: paper or code.
      apply: ``(q, k, parameters, norm) -> (q, k)``, each ``[B, L, H, K]``; attention then divides
        their product by ``sqrt(K)``. ``norm("query_norm", z)`` and ``norm("key_norm", z)`` are the
        norms that the model chose for the slot ``query_key_norm``.
      parameters: learned parameters.
      norms: whether it has norms of the queries and of the keys.
      over_heads: whether those run over all heads at once, not over each.
      used_by: models that use it.
    """

    name: str
    equation: str
    source: str
    apply: Callable[..., tuple[jax.Array, jax.Array]]
    parameters: tuple[QueryKeyParameter, ...] = ()
    norms: bool = False
    over_heads: bool = False
    used_by: str = ""


def _none(q, k, parameters: Parameters, norm: Normalize):
    return q, k


def _head(q, k, parameters: Parameters, norm: Normalize):
    return norm("query_norm", q), norm("key_norm", k)


def _full(q, k, parameters: Parameters, norm: Normalize):
    def joined(name: str, x: jax.Array) -> jax.Array:
        return norm(name, x.reshape(*x.shape[:2], -1)).reshape(x.shape)

    return joined("query_norm", q), joined("key_norm", k)


def _times(x: jax.Array, factor: Any) -> jax.Array:
    return (x.astype(statistics_dtype(x)) * factor).astype(x.dtype)


def _cosine(q, k, parameters: Parameters, norm: Normalize):
    return cosine_query_key(q, k, swin_scale(parameters["log_scale"]))


def _cosine_learned(q, k, parameters: Parameters, norm: Normalize):
    return cosine_query_key(q, k, parameters["alpha"])


def _unit_scaled(q, k, parameters: Parameters, norm: Normalize):
    scale = parameters["scale"]
    return _times(l2_norm(q), scale * q.shape[-1]), _times(l2_norm(k), scale)


NONE = QueryKey("none", "q k / sqrt(K)", "Vaswani et al. 2017 (arXiv 1706.03762), eq. 1", _none)
QUERY_KEY: Registry[QueryKey] = Registry(
    "query_key",
    (
        NONE,
        QueryKey(
            "head",
            "norm(q) norm(k) / sqrt(K), over each head",
            "Dehghani et al. 2023 (arXiv 2302.05442), section 2",
            _head,
            norms=True,
            used_by="ViT-22B, Qwen 3, Gemma 3",
        ),
        QueryKey(
            "full",
            "norm(q) norm(k) / sqrt(K), over all heads at once",
            "OLMo 2 (arXiv 2501.00656); Olmo2Attention of huggingface/transformers",
            _full,
            norms=True,
            over_heads=True,
            used_by="OLMo 2, OLMo 3",
        ),
        QueryKey(
            "cosine",
            "exp(min(t, log 100)) cos(q, k), t per head, log 10 at first",
            "Liu et al. 2021 (arXiv 2111.09883), section 3.3; microsoft/Swin-Transformer",
            _cosine,
            (QueryKeyParameter("log_scale", lambda h, k: (h,), lambda n: SWIN_FIRST),),
            used_by="Swin v2",
        ),
        QueryKey(
            "cosine_learned",
            "a cos(q, k), scalar a, log2(L^2 - L) at first",
            "Henry et al. 2020 (arXiv 2010.04245)",
            _cosine_learned,
            (QueryKeyParameter("alpha", lambda h, k: (), lambda n: henry_scale(max(2, n))),),
        ),
        QueryKey(
            "unit_scaled",
            "sqrt(K) (s q/|q|) (s k/|k|), s [H, K], 1 at first",
            "Loshchilov et al. 2024 (arXiv 2410.01131), eq. 15-16",
            _unit_scaled,
            (QueryKeyParameter("scale", lambda h, k: (h, k), lambda n: 1.0),),
            used_by="nGPT",
        ),
    ),
)
