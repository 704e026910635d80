"""Which columns of a table hold texts and labels: from a source's options, and from metadata."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from resnorm_jax.data.csv_format import COMMAS, Form
from resnorm_jax.data.names import shown
from resnorm_jax.errors import UserError

JOINED = "\0,"  # between names of columns, which no header holds
SEPARATORS = (";", "|", ",")  # that tables have between several labels


@dataclass(frozen=True)
class Columns:
    """What to read from a table.

    Attributes:
      text: column of the text; None reads numbers.
      label: column of the label; of several labels, or several columns, by comma, each of 0 and 1.
      many: whether a row has any number of labels.
      separator: between several labels in one field of text.
      labelled: whether the rows are to learn from: each has a text and a label.
      pair: column of a second text; "" where a row is one text.
      form: how CSV, TSV and text files are written.
    """

    text: str | None = None
    label: str = "label"
    labelled: bool = False
    pair: str = ""
    form: Form = COMMAS
    many: bool = False
    separator: str = ","

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        apart = self.label.split(",") if self.many else []
        names = (self.text or "x", self.pair, self.label, *apart)
        return tuple(name for name in names if name)

    @property
    def flags(self) -> tuple[str, ...]:
        """Columns of 0 and 1 that hold a label each, of columns that are `named`; or none."""
        return tuple(self.label.split(JOINED)) if JOINED in self.label else ()

    def named(self, header: Iterable[str]) -> "Columns":
        """Return the columns by name, where a place was given for one."""
        names = list(header)
        text = None if self.text is None else placed(self.text, names)
        pair, label = placed(self.pair, names), placed(self.label, names)
        if self.many and "," in label and label not in names:
            label = JOINED.join(placed(part.strip(), names) for part in label.split(","))
        return replace(self, text=text, pair=pair, label=label)


def columns_of(options: Any, labelled: bool) -> Columns:
    """Return the columns that a source's options name."""
    form = Form(header=options.header, quotes=options.quotes, encoding=options.encoding)
    return Columns(
        options.text_column, options.label_column, labelled, options.pair_column, form,
        options.labels == "many", options.label_separator,
    )  # fmt: skip


def kept_columns(options: Any) -> dict[str, Any]:
    """Return what metadata keep of the columns: what is not the default, and the names."""
    kept: dict[str, Any] = {
        "text_column": options.text_column,
        "label_column": options.label_column,
    }
    if options.pair_column:
        kept["pair_column"] = options.pair_column
    if options.labels == "many":
        kept["separator"] = options.label_separator
    form = columns_of(options, labelled=True).form
    return kept if form == COMMAS else {**kept, "form": asdict(form)}


def saved_columns(encoding: Mapping[str, Any], many: bool = False) -> Columns:
    """Return the columns of metadata, for rows to predict; an empty one reads numbers.

    ``many`` is whether a row has any number of labels.
    """
    if not encoding:
        return Columns(many=many)
    text, label = encoding.get("text_column", "text"), encoding.get("label_column", "label")
    form = Form(**encoding.get("form", {}))
    pair, separator = encoding.get("pair_column", ""), encoding.get("separator", ",")
    return Columns(text, label, False, pair, form, many, separator)


def placed(column: str, header: Sequence[str]) -> str:
    """Return a column's name; ``"2"`` is the second one where none is called so."""
    if column in header or not column.isdecimal() or not 1 <= int(column[:9]) <= len(header):
        return column
    return header[int(column) - 1]


def check_separator(names: Sequence[str], separator: str) -> None:
    """Refuse labels that are several, with another separator between them than is looked for.

    So they are where cut at it they are fewer: the same ones stand together in several ways.

    Raises:
      UserError: naming one, and the separator.
    """
    for other in SEPARATORS:
        joined = next((name for name in names if other in name), None)
        parts = {part.strip() for name in names for part in name.split(other)}
        if other != separator and joined is not None and len(parts - {""}) < len(names):
            raise UserError(
                f"data.label_separator: {shown(joined)} would be one label of {len(names)}; cut at "
                f"{other!r} they are {len(parts - {''})}; give data.label_separator={other!r}"
            )
