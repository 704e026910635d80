"""Norms by name: the table that configs, the command line and `TransformerEncoder` choose from.

The pure functions behind the rows are here too: ``norms.layer_norm``, ``norms.l2_norm``, ...

>>> from resnorm_jax import norms
>>> norms.get("rms").equation
'x / sqrt(mean(x^2) + eps) * g; g 1 at first'
"""

from resnorm_jax.norms.named import Norm
from resnorm_jax.norms.rows import DYT_LLAMA, NORMS
from resnorm_jax.norms.table import NormParameter, NormSpec
from resnorm_jax.ops import norms as _functions
from resnorm_jax.ops.norms import *  # noqa: F403 - every norm's function, as its list names them

get = NORMS.get
names = NORMS.names
register = NORMS.register
rows = NORMS.rows

__all__ = [
    "DYT_LLAMA",
    "Norm",
    "NormParameter",
    "NormSpec",
    "get",
    "names",
    "register",
    "rows",
    *_functions.__all__,
]
