"""Handwritten digits: the 1,797 images of 8x8 pixels that come with scikit-learn.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI,
doi 10.24432/C50P49.
"""

from dataclasses import dataclass

import numpy as np

from resnorm_jax.data.checks import import_extra
from resnorm_jax.data.dataset import Dataset, Examples, Kind
from resnorm_jax.data.source import Source
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.schema import FRACTION, SEED, option

VIEWS: dict[str, tuple[Kind, tuple[int, ...]]] = {
    "rows": ("features", (8, 8)),
    "pixels": ("features", (64, 1)),
    "image": ("images", (8, 8, 1)),
}


@dataclass(frozen=True)
class DigitsOptions:
    """Options of the ``digits`` source."""

    view: str = option(
        "rows", "rows (8 steps of 8 channels), pixels (64 of one) or image (8x8x1)", choices=VIEWS
    )
    test_fraction: float = option(0.2, "of the rows, stratified", FRACTION)
    seed: int = option(0, "of the split", SEED)


def load_digits(options: DigitsOptions) -> Dataset:
    """Load the digits, pixel values divided by 16 to lie in [0, 1].

    Raises:
      UserError: the fraction holds out nothing, or scikit-learn is not installed.
    """
    datasets = import_extra("sklearn.datasets", "scikit-learn", "digits")
    pixels, labels = datasets.load_digits(return_X_y=True)
    kind, shape = VIEWS[options.view]
    x = (pixels / 16.0).astype(np.float32).reshape(len(pixels), *shape)
    every = Examples(x, np.full(len(x), shape[0], np.int32), labels.astype(np.int32))
    kept, held = stratified_split(
        every.y, options.test_fraction, options.seed, "data.test_fraction"
    )
    return Dataset(
        name=f"digits ({options.view})",
        kind=kind,
        train=every.take(kept),
        test=every.take(held),
        classes=tuple(str(i) for i in range(10)),
    )


SOURCE = Source(
    "digits",
    "1,797 handwritten digits of 8x8 pixels, as rows, pixels or images",
    DigitsOptions,
    load_digits,
    "digits",
    "Alpaydin and Kaynak 1998, UCI, doi 10.24432/C50P49; as bundled with scikit-learn",
)
