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
Pair = tuple[jax.Array, jax.Array]


@dataclass(frozen=True)
class QueryKeyParameter:
    """A learned parameter: ``shape(heads, head width)``; ``init(length)`` of every element.

    The docstring of ``init`` begins with that value.
    """

    name: str
    shape: Callable[[int, int], tuple[int, ...]]
    init: Callable[[int], float]


@dataclass(frozen=True)
class QueryKey:
    """A row.

    Attributes:
      name: name of the row.
      equation: the logits in one line from which they can be written: q and k of one head, H heads
        of K features, D = H K; ``norm`` is the norm that the model chooses.
      source: paper or code.
      apply: ``(q, k, parameters, norm) -> (q, k)``, each ``[B, L, H, K]``; attention then divides
        their product by ``sqrt(K)``. ``norm("query_norm", z)`` and ``norm("key_norm", z)`` are the
        norms that the model chose for the slot ``query_key_norm``.
      parameters: learned parameters.
      norms: whether it has norms of the queries and of the keys.
      over_heads: whether those run over all heads at once, not over each.
      alike: whether queries and keys share a parameter by head, so that there are as many of each.
      used_by: models that use it.
    """

    name: str
    equation: str
    source: str
    apply: Callable[..., Pair]
    parameters: tuple[QueryKeyParameter, ...] = ()
    norms: bool = False
    over_heads: bool = False
    alike: bool = False
    used_by: str = ""


def _none(q: jax.Array, k: jax.Array, parameters: Parameters, norm: Normalize) -> Pair:
    return q, k


def _head(q: jax.Array, k: jax.Array, parameters: Parameters, norm: Normalize) -> Pair:
    return norm("query_norm", q), norm("key_norm", k)


def _full(q: jax.Array, k: jax.Array, parameters: Parameters, norm: Normalize) -> Pair:
    def joined(name: str, x: jax.Array) -> jax.Array:
        return norm(name, x.reshape(*x.shape[:2], -1)).reshape(x.shape)

    return joined("query_norm", q), joined("key_norm", k)


def _times(x: jax.Array, factor: Any) -> jax.Array:
    return (x.astype(statistics_dtype(x)) * factor).astype(x.dtype)


def _cosine(q: jax.Array, k: jax.Array, parameters: Parameters, norm: Normalize) -> Pair:
    return cosine_query_key(q, k, swin_scale(parameters["log_scale"]))


def _cosine_learned(q: jax.Array, k: jax.Array, parameters: Parameters, norm: Normalize) -> Pair:
    return cosine_query_key(q, k, parameters["alpha"])


def _unit_scaled(q: jax.Array, k: jax.Array, parameters: Parameters, norm: Normalize) -> Pair:
    scale = parameters["scale"]
    return _times(l2_norm(q), scale * q.shape[-1]), _times(l2_norm(k), scale)


def _log_ten(length: int) -> float:
    """``log 10``."""
    return SWIN_FIRST


def _by_length(length: int) -> float:
    """``log2(L^2 - L)``, L the number of queries, at least 2."""
    return henry_scale(max(2, length))


def _one(length: int) -> float:
    """1."""
    return 1.0


NONE = QueryKey("none", "q . k / sqrt(K)", "Vaswani et al. 2017 (arXiv 1706.03762), eq. 1", _none)
QUERY_KEY: Registry[QueryKey] = Registry(
    "query_key",
    (
        NONE,
        QueryKey(
            "head",
            "norm(q) . norm'(k) / sqrt(K), over the K features of each head; one scale [K] for "
            "all heads",
            "Dehghani et al. 2023 (arXiv 2302.05442), section 2",
            _head,
            norms=True,
            used_by="ViT-22B, Qwen 3, Gemma 3",
        ),
        QueryKey(
            "full",
            "norm(q) . norm'(k) / sqrt(K), over the D features of all heads at once",
            "OLMo 2 (arXiv 2501.00656); Olmo2Attention of huggingface/transformers",
            _full,
            norms=True,
            over_heads=True,
            used_by="OLMo 2, OLMo 3",
        ),
        QueryKey(
            "cosine",
            "exp(min(t, log 100)) cos(q, k), cos(q, k) = q . k / (|q| |k|), |z| = sqrt(sum(z^2) + "
            "1e-12), t (log_scale) [H], log 10 at first",
            "Liu et al. 2021 (arXiv 2111.09883), section 3.3; microsoft/Swin-Transformer "
            "models/swin_transformer_v2.py",
            _cosine,
            (QueryKeyParameter("log_scale", lambda h, k: (h,), _log_ten),),
            used_by="Swin v2",
        ),
        QueryKey(
            "cosine_learned",
            "a cos(q, k), cos(q, k) = q . k / (|q| |k|), |z| = sqrt(sum(z^2) + 1e-12), scalar a "
            "(alpha), log2(L^2 - L) at first, L the number of queries, at least 2",
            "Henry et al. 2020 (arXiv 2010.04245); CyndxAI/QKNorm layers.py. There L is the "
            "97.5th percentile of the lengths of the training data, here the length of what "
            "parameters are made with",
            _cosine_learned,
            (QueryKeyParameter("alpha", lambda h, k: (), _by_length),),
        ),
        QueryKey(
            "unit_scaled",
            "sqrt(K) (c q / |q|) . (c k / |k|), |z| = sqrt(sum(z^2) + 1e-12), c (scale) [H, K] "
            "for both, 1 at first",
            "Loshchilov et al. 2024 (arXiv 2410.01131), eq. 15-16; model.py of NVIDIA/ngpt stores "
            "c as 1 / sqrt(1024) and reads it times sqrt(1024), so that Adam moves it 32 times as "
            "fast",
            _unit_scaled,
            (QueryKeyParameter("scale", lambda h, k: (h, k), _one),),
            alike=True,
            used_by="nGPT",
        ),
    ),
)
