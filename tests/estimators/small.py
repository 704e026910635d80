"""Small data and small estimators: shared by the tests of this folder."""

import numpy as np

SMALL = {
    "depth": 1, "width": 16, "heads": 2, "batch_size": 16, "learning_rate": 1e-2, "random_state": 0,
}  # fmt: skip
# Such a step compiles in half the time of the default's; one padded length is one program.
SETTINGS = {
    "model.dropout": 0.0, "model.activation": "relu", "model.pooling": "mean", "train.buckets": 1,
}  # fmt: skip


def estimator(**given):
    """A classifier that trains in a second or two; ``steps`` are of `settings`."""
    from resnorm_jax import TransformerClassifier

    settings = given.pop("settings", {})
    if isinstance(settings, dict):
        settings = {**SETTINGS, "train.steps": given.pop("steps", 40), **settings}
    return TransformerClassifier(**{**SMALL, "settings": settings, **given})


def walks(rows: int = 24, channels: int = 3, seed: int = 0):
    """``(list of [C, T], labels)``: noise of 3 to 8 steps whose class shifts its mean."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    lengths = [*rng.integers(3, 9, rows - 1), 8]
    x = [rng.normal(size=(channels, n)) + 2 * c for n, c in zip(lengths, y, strict=True)]
    return x, np.array(["low", "high"])[y]
