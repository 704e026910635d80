"""The loss, as sums: ratios are taken once, on the host or after all devices were added."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax


def classification_sums(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> dict[str, jax.Array]:
    """Weighted sums of cross-entropy, hits and rows.

    Cross-entropy against ``(1 - s) onehot + s / K`` (Szegedy et al. 2015, arXiv 1512.00567,
    section 7). With class weights c the loss of a row is times ``c[label]``, and the mean is taken over
    the sum of those, ``mass``.

    Args:
      logits: ``[B, K]``.
      labels: ``[B]`` integers.
      weight: ``[B]``; 0 for rows that fill a batch.
      label_smoothing: s.
      class_weights: c, K numbers.

    Returns:
      ``loss``, ``correct``, ``count`` and, with class weights, ``mass``: float32 scalars.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    targets = optax.smooth_labels(targets, label_smoothing) if label_smoothing else targets
    losses = optax.softmax_cross_entropy(logits, targets)
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(losses.dtype)
    sums = {
        "loss": jnp.sum(losses * weight),
        "correct": jnp.sum(hits * weight),
        "count": jnp.sum(weight),
    }
    if class_weights is None:
        return sums
    by_row = weight * jnp.asarray(class_weights, losses.dtype)[labels]
    return sums | {"loss": jnp.sum(losses * by_row), "mass": jnp.sum(by_row)}


def balanced_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """Return the weight of each class with which all classes count alike: ``n / (K n_c)``.

    K counts the classes that have rows; one without any has weight 0.

    Source: King and Zeng 2001, as scikit-learn's ``class_weight="balanced"``.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 3)
    (0.6666666666666666, 2.0, 0.0)
    """
    counts = np.bincount(labels, minlength=classes)
    share = len(labels) / max(1, int(np.count_nonzero(counts)))
    return tuple(share / count if count else 0.0 for count in counts.tolist())
