"""Flax initializers of a branch's kernels, by role."""

from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import jax

from resnorm_jax.schemes.spec import Distribution
from resnorm_jax.schemes.stream import Scale

Initializers = Mapping[str, Callable[..., jax.Array]]


def branch_initializers(
    distribution: Distribution, roles: Iterable[str], gains: Mapping[str, Scale] | None = None
) -> Initializers:
    """Return the kernel initializer of each role: Xavier's, times the role's gain.

    Args:
      distribution: ``"uniform"`` or ``"normal"``.
      roles: of the kernels.
      gains: role to gain, a number or (in a scanned stack whose gain varies) a traced scalar; 1 for
        roles that are not named.
    """
    xavier = nn.initializers.variance_scaling(1.0, "fan_avg", distribution)
    return {role: _times(xavier, (gains or {}).get(role, 1.0)) for role in roles}


def _times(initializer: Callable[..., jax.Array], gain: Scale) -> Callable[..., jax.Array]:
    def scaled(key, shape, dtype):
        return initializer(key, shape, dtype) * jax.numpy.asarray(gain, dtype)

    return scaled
