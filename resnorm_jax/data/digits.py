"""Handwritten digits: the 1,797 images of 8x8 pixels that come with scikit-learn.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI,
doi 10.24432/C50P49.
"""

from dataclasses import dataclass

import numpy as np

from resnorm_jax.data.checks import check_fraction, import_extra
from resnorm_jax.data.dataset import Dataset, Examples, Kind
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.errors import check_choice

VIEWS: dict[str, tuple[Kind, tuple[int, ...]]] = {
    "rows": ("features", (8, 8)),
    "pixels": ("features", (64, 1)),
    "image": ("images", (8, 8, 1)),
}


@dataclass(frozen=True)
class DigitsOptions:
    """Options of the ``digits`` source.

    Attributes:
      view: ``rows`` (8 steps of 8 channels), ``pixels`` (64 steps of one) or ``image`` (8x8x1).
      test_fraction: of the rows, stratified.
      seed: of the split.
    """

    view: str = "rows"
    test_fraction: float = 0.2
    seed: int = 0


def load_digits(options: DigitsOptions) -> Dataset:
    """Load the digits, pixel values divided by 16 to lie in [0, 1].

    Raises:
      UserError: unknown view, bad fraction, or scikit-learn is not installed.
    """
    check_choice("data.view", options.view, VIEWS)
    check_fraction("data.test_fraction", options.test_fraction)
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
