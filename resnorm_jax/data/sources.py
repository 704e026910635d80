"""The table of data sources, and loading by name."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

from resnorm_jax.data.arrays import ArraysOptions, load_arrays
from resnorm_jax.data.dataset import Dataset
from resnorm_jax.data.digits import DigitsOptions, load_digits
from resnorm_jax.data.listops import ListOpsOptions, load_listops
from resnorm_jax.data.sample_text import SampleTextOptions, load_sample_text
from resnorm_jax.data.series import SeriesOptions, load_series
from resnorm_jax.data.text import TextOptions, load_text
from resnorm_jax.errors import UserError, check_choice
from resnorm_jax.schema import PLAIN, checked


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


SOURCES: dict[str, Source] = {}


def register_source(source: Source) -> Source:
    """Add a source to the table and return it.

    Raises:
      ValueError: the name is taken, or an option is not int, float, str or bool.
    """
    if source.name in SOURCES:
        raise ValueError(f"data source {source.name!r} is already registered")
    for name, kind in get_type_hints(source.options).items():
        if kind not in PLAIN:
            raise ValueError(f"option {name!r} of {source.name!r}: {kind} is not a plain type")
    SOURCES[source.name] = source
    return source


def _mistyped(value: object, kind: type) -> str:
    return f"{value!r} is {type(value).__name__}, expected {kind.__name__}; give a {kind.__name__}"


def make_options(source: str, options: Mapping[str, object]) -> Any:
    """Return the source's options, checked against its dataclass.

    Raises:
      UserError: unknown source or option (the nearest is named), a value of the wrong type, out of
        range, or not among the choices.
    """
    section = SOURCES[check_choice("data.source", source, SOURCES)].options
    unknown = f"unknown option of source {source!r}"
    return section(**checked(section, options, "data.", unknown, _mistyped))


def load_dataset(source: str, options: Mapping[str, object]) -> Dataset:
    """Load a data set by the name of its source.

    Args:
      source: a key of ``SOURCES``.
      options: of the source; those left out take their defaults.

    Returns:
      The data set, with ``source`` set to the name and all options.

    Raises:
      UserError: see ``make_options`` and the source's loader.
    """
    made = make_options(source, options)
    data = SOURCES[source].load(made)
    if len(data.classes) < 2:
        raise UserError(
            f"data.source: the training rows of {data.name!r} have one class, {data.classes[0]!r}; "
            "give rows of at least two"
        )
    return data.replace(source={"name": source, "options": asdict(made)})


BUILTIN = (
    Source(
        "series",
        "time series: UEA/UCR sets bundled with aeon, or local .ts files",
        SeriesOptions,
        load_series,
        "series",
        "Bagnall et al. 2018, arXiv:1811.00075; Dau et al. 2018, arXiv:1810.07758; "
        "files as bundled with aeon (github.com/aeon-toolkit/aeon)",
    ),
    Source(
        "digits",
        "1,797 handwritten digits of 8x8 pixels, as rows, pixels or images",
        DigitsOptions,
        load_digits,
        "digits",
        "Alpaydin and Kaynak 1998, UCI, doi 10.24432/C50P49; as bundled with scikit-learn",
    ),
    Source(
        "listops",
        "ListOps expressions, generated as in the Long Range Arena",
        ListOpsOptions,
        load_listops,
        None,
        "Tay et al. 2020, arXiv:2011.04006 (github.com/google-research/long-range-arena); "
        "Nangia and Bowman 2018, arXiv:1804.06028",
    ),
    Source(
        "arrays",
        "your .npz file: features, tokens or images with labels",
        ArraysOptions,
        load_arrays,
    ),
    Source(
        "text",
        "your .csv or .jsonl file: texts with labels",
        TextOptions,
        load_text,
        "text",
    ),
    Source(
        "sample_text",
        "made-up sentiment sentences, for smoke runs only",
        SampleTextOptions,
        load_sample_text,
    ),
)
for _row in BUILTIN:
    register_source(_row)
