"""Labelled texts, or pairs of texts, from files and folders."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, compress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from resnorm_jax.data.arrow_format import SPLITS, split_names
from resnorm_jax.data.dataset import Dataset
from resnorm_jax.data.encoded import Encoded, encode_in_memory, read_labels
from resnorm_jax.data.files import file_fault
from resnorm_jax.data.names import data_name
from resnorm_jax.data.row_arrays import parts_of
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.source import Source
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.data.text_cache import encoded_file, kept_bytes
from resnorm_jax.data.text_columns import Columns, check_separator, columns_of, kept_columns
from resnorm_jax.data.text_files import TABLES, read_chunks
from resnorm_jax.data.text_lines import check_encoding
from resnorm_jax.data.text_told import Split, token_lines, truncation
from resnorm_jax.data.tokenization import Tokenizer, Words, build_vocabulary
from resnorm_jax.data.tokenizers_by_name import check_tokenizer, make_tokenizer
from resnorm_jax.errors import UserError
from resnorm_jax.schema import FRACTION, SEED, between, option

VALID_NAMES = ("validation", "valid", "val", "dev")


@dataclass(frozen=True)
class TextOptions:
    """Options of the ``text`` source."""

    train: str = option("", ".csv, .tsv, .jsonl, .parquet, a folder a class, a saved data set")
    test: str = option("", "the same, to score on; empty splits the training file")
    valid: str = option("", "the same, to choose a model by; empty leaves it to train.validation")
    text_column: str = option("text", "column of the text, by name or by place from 1")
    pair_column: str = option(
        "", "column of a second text, likewise; empty where there is one text"
    )
    label_column: str = option(
        "label",
        "column of the label, likewise; with labels=many also columns by comma, each of 0 and 1",
    )
    labels: str = option(
        "one",
        "of a row: one, or any number (many): a list, or names with a separator between them",
        choices=("one", "many"),
    )
    label_separator: str = option(",", "between the labels of a field, with labels=many")
    tokenizer: str = option(
        "words",
        "bytes; words (lower case, split at blanks and punctuation); spaces (at blanks only); places "
        "(a word is another one at each place, for rows whose places mean something); bpe, "
        "wordpiece or unigram, trained on the training rows; or the path of a tokenizer.json, or of "
        "the folder of a checkpoint that holds one",
    )
    max_length: int = option(256, "tokens kept of each row", between(1, 10**6))
    vocabulary: int = option(
        20_000,
        "most token ids, special ones included (not used by bytes, or where a file is given)",
        between(3, 10**7),
    )
    encoding: str = option("utf-8", "of text files")
    header: bool = option(
        True, "whether .csv and .tsv begin with the columns' names; else 1, 2, ..."
    )
    quotes: bool = option(
        True, 'whether " encloses a field in .csv and .tsv; else it is a character'
    )
    test_fraction: float = option(0.2, "of the rows, stratified, without a test file", FRACTION)
    seed: int = option(0, "of that split", SEED)
    cache: str = option("", "folder for token ids of large files; the user's cache folder if empty")


def text_dataset(
    name: str, train: Rows, test: Rows, encoding: dict[str, object], vocabulary_size: int
) -> Dataset:
    """Encode two splits by the training split's vocabulary and classes.

    Raises:
      UserError: a test label does not occur in training.
    """
    kind, longest = str(encoding["tokenizer"]), int(str(encoding["max_length"]))
    names = build_vocabulary(train.values, kind, vocabulary_size)
    tokenizer, splits = Words(kind, names, longest), dict[str, Split]()
    for split, rows in (("train", train), ("test", test)):
        made = encode_in_memory([rows], tokenizer, lambda done: None)
        splits[split] = made, made.every
    return _assembled(name, splits, tokenizer, encoding)


def _assembled(
    name: str,
    splits: Mapping[str, Split],
    tokenizer: Tokenizer,
    encoding: Mapping[str, object],
    lines: tuple[str, ...] = (),
) -> Dataset:
    made, rows = splits["train"]
    chosen = Rows([None] * len(made.names), made.names, made.places)
    occurring = set[int]().union(*(np.unique(made.labels[part]) for part in parts_of(rows)))
    classes = chosen.take(np.array(sorted(occurring), int)).class_names()
    return Dataset(
        name=name,
        kind="tokens",
        classes=classes,
        vocabulary=tokenizer.names,
        encoding={**tokenizer.encoding, **encoding},
        files=tokenizer.files,
        told={"truncation": truncation(splits, tokenizer)},
        lines=lines,
        **{name: made.examples(rows, classes) for name, (made, rows) in splits.items()},  # type: ignore[arg-type]
    )


def _check(options: TextOptions) -> None:
    if not options.train:
        raise UserError(
            "data.train: not given; give a .csv, .tsv, .jsonl or .parquet file with texts and labels, "
            "a folder with a folder a class, or a saved data set"
        )
    named = dict[str, str]()
    for field in ("text_column", "pair_column", "label_column"):
        column = getattr(options, field)
        if column and column in named:
            raise UserError(
                f"data.{field}: {column!r} is data.{named[column]} too; name two columns"
            )
        named[column] = field
    separator = options.label_separator
    if not separator.strip() and separator != " ":
        raise UserError(f"data.label_separator: {separator!r}; give a character, such as ';'")
    if separator != "," and options.labels == "one":
        raise UserError("data.label_separator: not read with data.labels=one; leave it out")
    for field in ("train", "test", "valid"):
        _check_path(f"data.{field}", getattr(options, field))
    check_encoding("data.encoding", options.encoding)
    check_tokenizer(options)


def _check_path(field: str, path: str) -> None:
    folder = os.path.isdir(path) and Path(path).suffix.lower() not in TABLES
    if not path or folder:
        return
    fault = file_fault(path)
    if fault and fault.startswith("no such file"):
        raise UserError(f"{field}: no file at {path!r}; check the path")
    if fault:
        raise UserError(f"{field}: {path!r}: {fault}")


def _paths(options: TextOptions) -> dict[str, str]:
    """Return the splits that have a file or folder; those of a saved dictionary are found in it."""
    given = {name: getattr(options, name) for name in ("train", "valid", "test")}
    folder = Path(options.train)
    if os.path.isfile(folder / SPLITS):
        inside = split_names(folder)
        if "train" not in inside:
            raise UserError(
                f"{folder}: no split 'train'; give data.train the folder of one of its own"
            )
        valid = next((name for name in VALID_NAMES if name in inside), "")
        found = {"train": "train", "valid": valid, "test": "test" if "test" in inside else ""}
        inner = {name: str(folder / split) for name, split in found.items() if split}
        given = {name: path for name, path in given.items() if path} | inner
        given |= {
            name: getattr(options, name) for name in ("valid", "test") if getattr(options, name)
        }
    return {name: path for name, path in given.items() if path}


def _cut_off(made: Encoded, options: TextOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows of the training file are to learn from, and which to score on."""
    y = made.indices(made.distinct.class_names())
    return stratified_split(y, options.test_fraction, options.seed, "data.test_fraction")


def _texts(path: str, columns: Columns, kept: np.ndarray | None) -> Iterator[str]:
    """Yield the texts of the training rows, one after another; ``kept`` are these, if not all."""
    every: Iterable[Any] = chain.from_iterable(rows.values for rows in read_chunks(path, columns))
    if kept is not None:
        chosen = np.zeros(int(kept[-1]) + 1, bool)
        for part in parts_of(kept):
            chosen[part] = True
        every = compress(every, chosen)
    for value in every:
        yield from value if isinstance(value, tuple) else (value,)


def load_text(options: TextOptions) -> Dataset:
    """Load labelled texts.

    Raises:
      UserError: see `read_chunks` and `make_tokenizer`; also for a missing file, a library that is not
        installed, and a test label that does not occur in training.
    """
    _check(options)
    paths, columns = _paths(options), columns_of(options, labelled=True)
    tokenizer = _tokenizer(options, paths["train"], columns, "test" not in paths)
    begin, splits, cached = perf_counter(), dict[str, Split](), []
    for split, path in paths.items():
        made, was_kept = encoded_file(path, columns, tokenizer, options.cache)
        splits[split] = made, made.every
        cached.append(was_kept)
    seconds = perf_counter() - begin
    if columns.many and not columns.flags:
        check_separator(splits["train"][0].distinct.class_names(), columns.separator)
    if "test" not in paths:
        made = splits["train"][0]
        for split, rows in zip(("train", "test"), _cut_off(made, options), strict=True):
            kept = made.store.keep(partial(parts_of, rows), len(rows), rows.dtype)
            splits[split] = made, kept
    lines = token_lines(options.tokenizer, splits, tokenizer, None if all(cached) else seconds)
    name = data_name(options.train)
    return _assembled(name, splits, tokenizer, kept_columns(options), lines)


def _tokenizer(options: TextOptions, path: str, columns: Columns, cut_off: bool) -> Tokenizer:
    """Return the tokenizer, made from the training rows if it is made from any."""

    @cache
    def training_rows() -> np.ndarray | None:
        labelled = read_labels(read_chunks(path, columns)) if cut_off else None
        return None if labelled is None else _cut_off(labelled, options)[0]

    what = {name: getattr(options, name) for name in ("tokenizer", "vocabulary")}
    if cut_off:
        what |= {name: getattr(options, name) for name in ("test_fraction", "seed")}
    return make_tokenizer(
        options,
        lambda: _texts(path, columns, training_rows()),
        lambda make: kept_bytes(path, columns, what, options.cache, make),
    )


SOURCE = Source(
    "text",
    "your .csv, .tsv, .jsonl or .parquet file, folder or saved data set: texts with labels",
    TextOptions,
    load_text,
    "text",
)
