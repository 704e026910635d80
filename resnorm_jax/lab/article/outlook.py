"""C8: what is left of L4, trained, when weights are pruned or rounded; and how it decides."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.lab.article import statistics
from resnorm_jax.lab.article.listings import Listing
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.lab.problems import problem

KEPT = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1)
BITS = (8, 6, 4, 3, 2)


def changed(params: Any, change: Any) -> Any:
    """Apply ``change`` to every matrix; vectors (biases, norms) stay."""
    return jax.tree.map(lambda a: change(a) if a.ndim > 1 else a, params)


def outlook_claim(settings: Settings, params: Any) -> dict[str, Any]:
    """Measure C8 on the trained parameters of L4."""
    data, model = problem("speech"), Listing(settings.listing_width)
    logits = jax.jit(lambda p: model.apply(p, *data.test[::2]))
    score = lambda p: float((logits(p).argmax(-1) == data.test.y).mean())  # noqa: E731
    whole = score(params)
    pruned = [
        (keep, score(changed(params, lambda a, k=keep: statistics.prune(a, k)))) for keep in KEPT
    ]
    rounded = [
        (bits, score(changed(params, lambda a, b=bits: statistics.quantize(a, b)))) for bits in BITS
    ]
    by_keep, by_bits = dict(pruned), dict(rounded)
    layers = layer_shares(settings, params)
    return {
        "pruned": pruned, "rounded": rounded, "accuracy": whole, **layers,
        "numbers": {
            "accuracy": whole, "majority": data.majority,
            "lost_by_int8": whole - by_bits[8],
            "lost_by_60_percent_pruned": whole - by_keep[0.4],
            "lost_by_80_percent_pruned": whole - by_keep[0.2],
            "attention_sums_to_one_within": layers["attention_error"],
        },
    }  # fmt: skip


def layer_shares(settings: Settings, params: Any) -> dict[str, Any]:
    """Of the first test row: each layer's attention, mean over heads, and its share of the write.

    A layer's share is the length of the change that it makes to the stream, over the sum of all.
    """
    data, model = problem("speech"), Listing(settings.listing_width)
    row = data.test.take(slice(0, 1))
    length = int(row.mask.sum())
    _, kept = model.apply(params, row.x, row.mask, capture_intermediates=True)
    kept = kept["intermediates"]
    stream, maps, writes = kept["embed"]["__call__"][0], [], []
    weights = params["params"]["transformer"]
    for name in sorted(n for n in weights if n.startswith("layers_")):
        maps.append(attention_weights(weights[name]["self_attn"], stream[0, :length]))
        after = kept["transformer"][name]["__call__"][0]
        writes.append(float(jnp.linalg.norm((after - stream)[0, :length])))
        stream = after
    attention = np.stack([np.asarray(m) for m in maps])
    return {
        "attention": attention.tolist(),
        "attention_error": float(np.abs(attention.sum(-1) - 1).max()),
        "writes": (np.array(writes) / sum(writes)).tolist(),
    }


def attention_weights(weights: Any, x: jax.Array) -> jax.Array:
    """``softmax(q k^T / sqrt(Dh))`` of ``x [L, D]``, mean over heads: ``[L, L]``."""
    q, k = (
        jnp.einsum("ld,dhk->hlk", x, weights[name]["kernel"]) + weights[name]["bias"][:, None]
        for name in ("query", "key")
    )
    return jax.nn.softmax(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5, axis=-1).mean(0)
