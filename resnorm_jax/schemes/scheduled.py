"""Arrangements that change over training: their streams read how many updates were done."""

import jax
import jax.numpy as jnp

from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site, Stream, add


def progressive(steps: float, name: str = "progressive") -> Stream:
    """Progressive residual warm-up: ``a x + min(t / (T l), 1) b f``, one layer after the other.

    Args:
      steps: T, updates by which each further layer takes longer; layer l is in full after ``T l``.
      name: of the row, to register it beside the paper's.

    Returns:
      A `Stream` whose layer l (from 1) has its branches scaled; all of them by 0 before the first
      update, and by 1 where no trainer tells the time.

    Source: Chen et al. 2026 (arXiv 2603.05369), schedule "linear"; dandingsky/ProRes
    torchrun_main.py.

    >>> from resnorm_jax.streams import Site
    >>> import jax.numpy as jnp
    >>> stream = progressive(100.0)
    >>> stream.write(jnp.zeros(1), jnp.ones(1), Site(width=1, layer=2, step=50.0)).tolist()
    [0.25]
    """

    def write(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
        time = jnp.asarray(site.step, jnp.float32)
        share = jnp.minimum(time / (steps * site.layer), 1)
        return add(x, y * share.astype(y.dtype), site)

    return Stream(
        name,
        "a x + min(t / (T l), 1) b f at update t in layer l",
        f"Chen et al. 2026 (arXiv 2603.05369), schedule linear, T = {steps:g}; dandingsky/ProRes",
        write,
        scheduled=True,
    )


# T = 1000: dandingsky/ProRes scripts/run_130m.sh and run_350m.sh (12000 updates for 12 layers).
ROWS = (
    Arrangement(
        name="prores",
        equation="x + min(t / (1000 l), 1) f(LN(x)) at update t, 0 before the first, in layer l, "
        "from 1; 1 in place of the factor where no trainer counts updates; final LN",
        source="Chen et al. 2026 (arXiv 2603.05369), schedule linear; dandingsky/ProRes",
        norm_before=NORM,
        final_norm=NORM,
        stream=progressive(1000.0),
    ),
)
