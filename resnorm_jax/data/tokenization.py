"""From text to token ids: a table of tokenizers, vocabularies, and encoding."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from resnorm_jax.data.checks import import_extra
from resnorm_jax.data.rows import Rows

Split = Callable[[str], list[str]]
SPECIAL = ("<pad>", "<unk>")
BYTE_NAMES = ("<pad>", *(f"0x{byte:02x}" for byte in range(256)))


def _spaces() -> Split:
    return lambda text: text.lower().split()


def _words() -> Split:
    library = import_extra("tokenizers", "tokenizers", "text")
    pre = library.pre_tokenizers.Whitespace()
    return lambda text: [word for word, _ in pre.pre_tokenize_str(text.lower())]


SPLITTERS: dict[str, Callable[[], Split]] = {"words": _words, "spaces": _spaces}
TOKENIZERS = ("bytes", *SPLITTERS)


def count_vocabulary(texts: Sequence[str], split: Split, size: int) -> tuple[str, ...]:
    """Return padding, unknown, then the most frequent words (ties alphabetically), ``size`` ids."""
    counts = Counter(word for text in texts for word in split(text))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return (*SPECIAL, *ordered[: size - len(SPECIAL)])


def build_vocabulary(texts: Sequence[str], tokenizer: str, size: int) -> tuple[str, ...]:
    """Return the token names by id: 256 bytes after padding, or the words of these texts.

    Args:
      texts: the training split only.
      tokenizer: ``bytes``, ``words`` or ``spaces``.
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


def encode(rows: Rows, encoding: Mapping[str, Any], vocabulary: Sequence[str]) -> Rows:
    """Encode the texts among the rows; values that are no text stay as they are.

    Args:
      rows: of texts that hold at least one visible character.
      encoding: with ``tokenizer`` and ``max_length`` (longer texts are cut).
      vocabulary: token names by id.

    Returns:
      The rows with lists of token ids in place of texts.
    """
    to_ids, longest = encoder(encoding["tokenizer"], vocabulary), encoding["max_length"]
    values = [to_ids(v)[:longest] if isinstance(v, str) else v for v in rows.values]
    return replace(rows, values=values)
