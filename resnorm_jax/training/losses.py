"""The loss, as sums: ratios are taken once, on the host or after all devices were added."""

import jax
import jax.numpy as jnp
import optax


def classification_sums(
    logits: jax.Array, labels: jax.Array, weight: jax.Array, label_smoothing: float = 0.0
) -> dict[str, jax.Array]:
    """Weighted sums of cross-entropy, hits and rows.

    Cross-entropy against ``(1 - s) onehot + s / K`` (Szegedy et al. 2015, arXiv 1512.00567,
    section 7).

    Args:
      logits: ``[B, K]``.
      labels: ``[B]`` integers.
      weight: ``[B]``; 0 for rows that fill a batch.
      label_smoothing: s.

    Returns:
      ``loss``, ``correct`` and ``count``, float32 scalars.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    targets = optax.smooth_labels(targets, label_smoothing) if label_smoothing else targets
    losses = optax.softmax_cross_entropy(logits, targets)
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(losses.dtype)
    return {
        "loss": jnp.sum(losses * weight),
        "correct": jnp.sum(hits * weight),
        "count": jnp.sum(weight),
    }
