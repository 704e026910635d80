"""How arrays are laid over devices, as far as their types say."""

import jax


def laid_over_devices(array: jax.Array) -> bool:
    """Return whether the type of an array says how it is laid out: folding axes would lose it."""
    return any(part is not None for part in jax.typeof(array).sharding.spec)
