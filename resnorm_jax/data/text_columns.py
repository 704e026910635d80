"""Which columns of a table hold texts and labels: from a source's options, and from metadata."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from resnorm_jax.data.csv_format import COMMAS, Form


@dataclass(frozen=True)
class Columns:
    """What to read from a table.

    Attributes:
      text: column of the text; None reads numbers.
      label: column of the label.
      labelled: whether the rows are to learn from: each has a text and a label.
      pair: column of a second text; "" where a row is one text.
      form: how CSV, TSV and text files are written.
    """

    text: str | None = None
    label: str = "label"
    labelled: bool = False
    pair: str = ""
    form: Form = COMMAS

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return tuple(name for name in (self.text or "x", self.pair, self.label) if name)

    def named(self, header: Iterable[str]) -> "Columns":
        """Return the columns by name, where a place was given for one."""
        names = list(header)
        text = None if self.text is None else placed(self.text, names)
        pair, label = placed(self.pair, names), placed(self.label, names)
        return replace(self, text=text, pair=pair, label=label)


def columns_of(options: Any, labelled: bool) -> Columns:
    """Return the columns that a source's options name."""
    form = Form(header=options.header, quotes=options.quotes, encoding=options.encoding)
    return Columns(options.text_column, options.label_column, labelled, options.pair_column, form)


def kept_columns(options: Any) -> dict[str, Any]:
    """Return what metadata keep of the columns: what is not the default, and the names."""
    kept: dict[str, Any] = {
        "text_column": options.text_column,
        "label_column": options.label_column,
    }
    if options.pair_column:
        kept["pair_column"] = options.pair_column
    form = columns_of(options, labelled=True).form
    return kept if form == COMMAS else {**kept, "form": asdict(form)}


def saved_columns(encoding: Mapping[str, Any]) -> Columns:
    """Return the columns of metadata, for rows to predict; an empty one reads numbers."""
    if not encoding:
        return Columns()
    text, label = encoding.get("text_column", "text"), encoding.get("label_column", "label")
    form = Form(**encoding.get("form", {}))
    return Columns(text, label, False, encoding.get("pair_column", ""), form)


def placed(column: str, header: Sequence[str]) -> str:
    """Return a column's name; ``"2"`` is the second one where none is called so."""
    if column in header or not column.isdecimal() or not 1 <= int(column[:9]) <= len(header):
        return column
    return header[int(column) - 1]
