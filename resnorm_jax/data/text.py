"""Labelled texts from a CSV or JSON-lines file."""

from dataclasses import dataclass
from pathlib import Path

from resnorm_jax.data.checks import check_file
from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.source import Source
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.data.text_files import Columns, read_csv, read_json
from resnorm_jax.data.tokenization import TOKENIZERS, build_vocabulary, encode
from resnorm_jax.errors import UserError
from resnorm_jax.schema import FRACTION, SEED, between, option


@dataclass(frozen=True)
class TextOptions:
    """Options of the ``text`` source."""

    train: str = option("", ".csv (with header) or .jsonl file")
    test: str = option("", "the same, to score on; empty splits the training file")
    text_column: str = option("text", "column of the text")
    label_column: str = option("label", "column of the label")
    tokenizer: str = option(
        "words",
        "bytes, words (lower case, split at blanks and punctuation) or spaces (at blanks only)",
        choices=TOKENIZERS,
    )
    max_length: int = option(256, "tokens kept of each text", between(1, 10**6))
    vocabulary: int = option(
        20_000,
        "most token ids, padding and unknown included (not used by bytes)",
        between(3, 10**7),
    )
    test_fraction: float = option(0.2, "of the rows, stratified, without a test file", FRACTION)
    seed: int = option(0, "of that split", SEED)


TABLES = {".csv": read_csv, ".jsonl": read_json, ".json": read_json}


def read_texts(path: str, columns: Columns) -> Rows:
    """Read a table of texts by its suffix (``.csv`` with a header, ``.jsonl``).

    Raises:
      UserError: unknown suffix, or see the readers.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TABLES:
        raise UserError(f"{path}: suffix {suffix!r} is not read; give .csv (with header) or .jsonl")
    return TABLES[suffix](path, columns)


def text_dataset(
    name: str, train: Rows, test: Rows, encoding: dict[str, object], vocabulary_size: int
) -> Dataset:
    """Encode two splits by the training split's vocabulary and classes.

    Raises:
      UserError: a test label does not occur in training.
    """
    vocabulary = build_vocabulary(train.values, str(encoding["tokenizer"]), vocabulary_size)
    classes = train.class_names()

    def examples(rows: Rows) -> Examples:
        encoded = encode(rows, encoding, vocabulary)
        return encoded.examples("tokens", classes, "the training rows")

    return Dataset(
        name=name,
        kind="tokens",
        train=examples(train),
        test=examples(test),
        classes=classes,
        vocabulary=vocabulary,
        encoding=encoding,
    )


def _check(options: TextOptions) -> None:
    if not options.train:
        raise UserError("data.train: not given; give a .csv or .jsonl file with texts and labels")
    if options.text_column == options.label_column:
        raise UserError(
            f"data.label_column: {options.label_column!r} is data.text_column too; name two columns"
        )
    for field in ("train", "test"):
        if getattr(options, field):
            check_file(f"data.{field}", getattr(options, field))


def _splits(options: TextOptions) -> tuple[Rows, Rows]:
    columns = Columns(options.text_column, options.label_column, labelled=True)
    train = read_texts(options.train, columns)
    if options.test:
        return train, read_texts(options.test, columns)
    y = train.indices(train.class_names(), "the training rows")
    kept, held = stratified_split(y, options.test_fraction, options.seed, "data.test_fraction")
    return train.take(kept), train.take(held)


def load_text(options: TextOptions) -> Dataset:
    """Load labelled texts.

    Raises:
      UserError: see `read_texts`; also for a missing file, a library that is not installed, and a
        test label that does not occur in training.
    """
    _check(options)
    names = ("tokenizer", "max_length", "text_column", "label_column")
    encoding: dict[str, object] = {name: getattr(options, name) for name in names}
    train, test = _splits(options)
    stem = options.train.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return text_dataset(stem, train, test, encoding, options.vocabulary)


SOURCE = Source(
    "text",
    "your .csv or .jsonl file: texts with labels",
    TextOptions,
    load_text,
    "text",
)
