"""From an arrangement's init rule to Flax initializers, by role."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax

from resnorm_jax.arrangements import ROLES, Init

Scale = float | jax.Array
Initializers = Mapping[str, Callable[..., jax.Array]]


def branch_initializers(init: Init, gains: Mapping[str, Scale]) -> Initializers:
    """Return the kernel initializer of each role: Xavier's, times the role's gain.

    Args:
      init: the arrangement's rule; its distribution is used.
      gains: role to gain, a number or (in a scanned stack whose gain varies) a traced scalar.
    """
    xavier = nn.initializers.variance_scaling(1.0, "fan_avg", init.distribution)
    return {role: _times(xavier, gains.get(role, 1.0)) for role in ROLES}


def _times(initializer: Callable[..., jax.Array], gain: Scale) -> Callable[..., jax.Array]:
    def scaled(key, shape, dtype):
        return initializer(key, shape, dtype) * jax.numpy.asarray(gain, dtype)

    return scaled
