"""Streams of one array: plain addition and its relatives."""

import jax

from resnorm_jax.ops.residual import residual
from resnorm_jax.ops.streams.spec import Site, Stream, StreamParameter


def add(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    """``skip_scale * x + branch_scale * y``."""
    return residual(x, y, skip_scale=site.skip_scale, branch_scale=site.branch_scale)


def _replace(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return y.astype(x.dtype)


def _gate(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return add(x, y * site.parameters["gate"].astype(y.dtype), site)


def scalar(site: Site) -> tuple[int, ...]:
    """Shape of a scalar."""
    return ()


def vector(site: Site) -> tuple[int, ...]:
    """Shape of a factor for each feature."""
    return (site.width,)


ROWS = (
    Stream("add", "a x + b f", "He et al. 2015 (arXiv 1512.03385), eq. 1", add),
    Stream("replace", "f", "control: no skip", _replace),
    Stream(
        "scalar_gate",
        "a x + g b f, scalar g per layer, 0 at first",
        "Bachlechner et al. 2020 (arXiv 2003.04887)",
        _gate,
        parameters=(StreamParameter("gate", scalar, 0.0, "layer"),),
    ),
)
