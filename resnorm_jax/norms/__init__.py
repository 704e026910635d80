"""Norms by name: the table that configs, the command line and `TransformerEncoder` choose from.

>>> from resnorm_jax import norms
>>> norms.get("rms").equation
'x / sqrt(mean(x^2) + eps) * g; g 1 at first'
"""

from resnorm_jax.norms.rows import DYT_LLAMA, NORMS
from resnorm_jax.norms.table import NormParameter, NormSpec

get = NORMS.get
names = NORMS.names
register = NORMS.register
rows = NORMS.rows

__all__ = ["DYT_LLAMA", "NormParameter", "NormSpec", "get", "names", "register", "rows"]
