"""From text to token ids: bytes and words, and the tokenizer that a run's metadata describe."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from resnorm_jax.data.checks import import_extra
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.tokenizer_files import FILE, kept_tokenizer

Split = Callable[[str], list[str]]
Coded = tuple[list[list[int]], list[int]]
SPECIAL = ("<pad>", "<unk>")
BYTE_NAMES = ("<pad>", *(f"0x{byte:02x}" for byte in range(256)))


def _spaces() -> Split:
    return lambda text: text.lower().split()


def _words() -> Split:
    library = import_extra("tokenizers", "tokenizers", "text")
    pre = library.pre_tokenizers.Whitespace()
    return lambda text: [word for word, _ in pre.pre_tokenize_str(text.lower())]


def _places() -> Split:
    """A word is another one at each place, so that a row's places have meanings of their own."""
    split = _spaces()
    return lambda text: [f"{place}:{word}" for place, word in enumerate(split(text), 1)]


SPLITTERS: dict[str, Callable[[], Split]] = {
    "words": _words, "spaces": _spaces, "places": _places
}  # fmt: skip
TOKENIZERS = ("bytes", *SPLITTERS)


def count_vocabulary(texts: Iterable[str], split: Split, size: int) -> tuple[str, ...]:
    """Return padding, unknown, then the most frequent words (ties alphabetically), ``size`` ids."""
    counts = Counter(word for text in texts for word in split(text))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return (*SPECIAL, *ordered[: size - len(SPECIAL)])


def build_vocabulary(texts: Iterable[str], tokenizer: str, size: int) -> tuple[str, ...]:
    """Return the token names by id: 256 bytes after padding, or the words of these texts.

    Args:
      texts: the training split only.
      tokenizer: ``bytes``, ``words``, ``spaces`` or ``places``.
      size: most ids, padding and unknown included (not used by ``bytes``).

    Raises:
      UserError: the tokenizer's library is not installed.
    """
    if tokenizer == "bytes":
        return BYTE_NAMES
    return count_vocabulary(texts, SPLITTERS[tokenizer](), size)


def encoder(tokenizer: str, vocabulary: Sequence[str]) -> Callable[[str], list[int]]:
    """Return the function from a text to its token ids (byte + 1; or words, 1 where unknown)."""
    if tokenizer == "bytes":
        return lambda text: [byte + 1 for byte in text.encode()]
    split = SPLITTERS[tokenizer]()
    # A text's own "<pad>" is a word like any other, not the padding.
    index = {word: i for i, word in enumerate(vocabulary) if i >= len(SPECIAL)}
    return lambda text: [index.get(word, 1) for word in split(text)]


class Tokenizer(Protocol):
    """What makes token ids of texts.

    Attributes:
      names: of the tokens, by id.
      encoding: what metadata keep of it: ``tokenizer``, ``max_length``.
      files: that a run keeps, by name.
    """

    names: tuple[str, ...]
    encoding: Mapping[str, object]
    files: Mapping[str, bytes]

    def encode(self, values: Sequence[Any]) -> Coded:
        """Return each text's token ids, at most ``max_length``, and how many tokens were cut off."""


class Words:
    """A tokenizer of bytes or words, with the token names by id."""

    files: Mapping[str, bytes] = {}

    def __init__(self, tokenizer: str, names: Sequence[str], max_length: int) -> None:
        self.names, self._longest = tuple(names), max_length
        self.encoding: Mapping[str, object] = {"tokenizer": tokenizer, "max_length": max_length}
        self._ids = encoder(tokenizer, names)

    def encode(self, values: Sequence[Any]) -> Coded:
        """Return each text's token ids, and how many tokens were cut off."""
        ids, most = [self._ids(value) for value in values], self._longest
        return [i[:most] for i in ids], [max(len(i) - most, 0) for i in ids]


def tokenizer_of(
    encoding: Mapping[str, Any], vocabulary: Sequence[str], directory: str | None
) -> Tokenizer:
    """Return the tokenizer that metadata describe.

    Args:
      encoding: of the metadata.
      vocabulary: token names by id.
      directory: of the run, where the tokenizer's file is kept.

    Raises:
      UserError: the file is missing, or not the one that the run used.
    """
    if encoding["tokenizer"] == FILE:
        return kept_tokenizer(directory, encoding["sha256"], encoding["max_length"])
    return Words(encoding["tokenizer"], vocabulary, encoding["max_length"])


def encode(rows: Rows, tokenizer: Tokenizer) -> Rows:
    """Return the rows with lists of token ids in place of texts; other values stay as they are.

    Args:
      rows: of texts, or pairs of them, that hold at least one visible character.
      tokenizer: of these.
    """
    places = [i for i, value in enumerate(rows.values) if isinstance(value, str | tuple)]
    values = list(rows.values)
    for i, ids in zip(places, tokenizer.encode([values[i] for i in places])[0], strict=True):
        values[i] = ids
    return replace(rows, values=values)
