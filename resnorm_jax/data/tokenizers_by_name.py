"""The tokenizer that a config asks for: by its kind, or by the path of its file."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from resnorm_jax.data.tokenization import TOKENIZERS, Tokenizer, Words, build_vocabulary
from resnorm_jax.data.tokenizer_files import LibraryTokenizer, read_tokenizer, tokenizer_path
from resnorm_jax.data.tokenizer_training import TRAINED, train_tokenizer
from resnorm_jax.errors import UserError, check_choice

KINDS = (*TOKENIZERS, *TRAINED)
FIELD = "data.tokenizer"


def check_tokenizer(options: Any) -> None:
    """Raise a UserError for a kind that is not known, a path without a tokenizer, or pairs of words."""
    name = options.tokenizer
    if options.pair_column and name in TOKENIZERS:
        raise UserError(
            f"data.pair_column: the tokenizer {name!r} has no token between two texts; take bpe, "
            "wordpiece, unigram, or a tokenizer.json"
        )
    if name in KINDS:
        return
    if not (os.path.lexists(name) or "/" in name or os.sep in name or name.endswith(".json")):
        check_choice(FIELD, name, KINDS)
    tokenizer_path(FIELD, name)


def needs_texts(name: str) -> bool:
    """Return whether a tokenizer is made from the training texts."""
    return name in KINDS and name != "bytes"


def make_tokenizer(
    options: Any,
    texts: Callable[[], Iterable[str]],
    kept: Callable[[Callable[[], bytes]], bytes] = lambda make: make(),
) -> Tokenizer:
    """Make the tokenizer of a config that was checked.

    Args:
      options: with ``tokenizer``, ``vocabulary``, ``max_length`` and ``pair_column``.
      texts: gives the training texts, each time from the first on.
      kept: gives what a function made of these texts before, or calls it.

    Raises:
      UserError: a library is not installed, a file is damaged, or a number does not fit.
    """
    name, longest = options.tokenizer, options.max_length
    if name in TOKENIZERS:
        given = texts() if needs_texts(name) else ()
        return Words(name, build_vocabulary(given, name, options.vocabulary), longest)
    if name in TRAINED:
        data = kept(lambda: train_tokenizer(name, texts, options.vocabulary))
        made = LibraryTokenizer(FIELD, data, longest)
    else:
        made = read_tokenizer(tokenizer_path(FIELD, name), longest)
    made.check_length(bool(options.pair_column))
    return made
