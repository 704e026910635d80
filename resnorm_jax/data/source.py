"""What a data source is: a row, which stands in the file of its loader."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resnorm_jax.data.dataset import Dataset


@dataclass(frozen=True)
class Source:
    """A row of the table.

    Attributes:
      name: as written in ``data.source``.
      summary: one line for listings.
      options: frozen dataclass of int, float, str and bool fields, each with a default, and a rule
        or choices where it is made by `resnorm_jax.schema.option`.
      load: from the options to the data set; raises UserError for a person's mistakes.
      extra: the package extra it needs, or None.
      citation: where data and protocol come from; "" for a person's own files.
    """

    name: str
    summary: str
    options: type
    load: Callable[[Any], Dataset]
    extra: str | None = None
    citation: str = ""
