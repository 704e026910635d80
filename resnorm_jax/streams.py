"""Streams by name: the table of residual schemes that arrangements choose from.

>>> from resnorm_jax import streams
>>> streams.get("add").equation
'a x + b f'
"""

from resnorm_jax.ops.streams import STREAMS, Site, Stream, StreamParameter

get = STREAMS.get
names = STREAMS.names
register = STREAMS.register
rows = STREAMS.rows

__all__ = ["Site", "Stream", "StreamParameter", "get", "names", "register", "rows"]
