"""The loss, as sums: ratios are taken once, on the host or after all devices were added."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.data import row_arrays


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


def label_sums(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> dict[str, jax.Array]:
    """Weighted sums where a row has any number of labels.

    The loss of a row is the mean over labels of ``-t log sigmoid(z) - (1 - t) log sigmoid(-z)`` with
    ``t = (1 - s) y + s / 2``. A row is said to have a label from probability 0.5 on.

    Args:
      logits: ``[B, K]``.
      labels: ``[B, K]`` of 0 and 1.
      weight: ``[B]``; 0 for rows that fill a batch.
      label_smoothing: s.
      class_weights: None; labels are not weighted.

    Returns:
      ``loss``; ``correct``, rows whose labels are all right; ``count``; and over all pairs of row and
      label ``hits``, said and true, ``said`` and ``true``: float32 scalars.
    """
    if class_weights is not None:
        raise ValueError("labels are not weighted")
    true, said = labels > 0, logits >= 0
    targets = true.astype(logits.dtype)
    targets = (1 - label_smoothing) * targets + label_smoothing / 2 if label_smoothing else targets
    losses = optax.sigmoid_binary_cross_entropy(logits, targets).mean(axis=-1)

    def total(by_row: jax.Array) -> jax.Array:
        return jnp.sum(by_row.astype(losses.dtype) * weight)

    return {
        "loss": total(losses),
        "correct": total((said == true).all(axis=-1)),
        "count": jnp.sum(weight),
        "hits": total((said & true).sum(axis=-1)),
        "said": total(said.sum(axis=-1)),
        "true": total(true.sum(axis=-1)),
    }


def balanced_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """Return the weight of each class with which all classes count alike: ``n / (K n_c)``.

    K counts the classes that have rows; one without any has weight 0.

    Source: King and Zeng 2001, as scikit-learn's ``class_weight="balanced"``.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 3)
    (0.6666666666666666, 2.0, 0.0)
    """
    counts = row_arrays.counts(labels, classes)
    share = len(labels) / max(1, int(np.count_nonzero(counts)))
    return tuple(share / count if count else 0.0 for count in counts.tolist())
