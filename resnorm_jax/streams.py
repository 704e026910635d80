"""Streams by name: the residual schemes, each of which stands with its arrangement in `schemes`.

>>> from resnorm_jax import streams
>>> streams.get("add").equation
'a x + b f'
"""

from resnorm_jax.schemes import STREAMS
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter

get = STREAMS.get
names = STREAMS.names
register = STREAMS.register
rows = STREAMS.rows

__all__ = ["Site", "Stream", "StreamParameter", "get", "names", "register", "rows"]
