"""The article's worked example: what it prints beside what its own formulas give."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from resnorm_jax.ops.norms import layer_norm, std_layer_norm
from resnorm_jax.ops.residual import residual

X = (1.0, 2.0, 3.0, 4.0, 5.0)
# As the article has them; None where it prints no such numbers.
PRINTED: dict[str, float | tuple[float, ...] | None] = {
    "mean": 3.0,
    "variance": 2.0,
    "divisor squared": (2.0, 2.0, 0.0, 2.0, 2.0),
    "centred": (-2.0, 0.0, 0.0, 1.0, 2.0),
    "normalised (A3)": None,
    "normalised (A4, unbiased)": None,
    "H = X + ReLU(normalised)": (1.0, 2.0, 3.0, 5.0, 7.0),
}


@dataclass(frozen=True)
class Worked:
    """One quantity: its name, what the article prints (None: nothing), and what is right."""

    name: str
    printed: float | tuple[float, ...] | None
    right: jax.Array

    @property
    def agrees(self) -> bool | None:
        """Whether the print is right, to its own digits; None where there is none."""
        if self.printed is None:
            return None
        printed = jnp.asarray(self.printed)
        same = printed.shape == self.right.shape
        return bool(same and jnp.allclose(printed, self.right, atol=5e-5))


def worked_example() -> tuple[Worked, ...]:
    """Return the example's quantities for X = [1, 2, 3, 4, 5], in order.

    Statistics are over the five features, epsilon is 0 as in the article's arithmetic, weights are 1.

    >>> [row.name for row in worked_example() if row.agrees is False]
    ['divisor squared', 'centred', 'H = X + ReLU(normalised)']
    """
    x = jnp.array(X)
    centred = x - x.mean()
    normalised = layer_norm(x, epsilon=0.0)
    right = (
        x.mean(),
        x.var(),
        x.var(),
        centred,
        normalised,
        std_layer_norm(x, epsilon=0.0),
        residual(x, jax.nn.relu(normalised)),
    )
    rows = zip(PRINTED.items(), right, strict=True)
    return tuple(Worked(name, printed, value) for (name, printed), value in rows)
