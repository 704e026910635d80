"""From text to token ids: a table of tokenizers, vocabularies, and encoding."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from resnorm_jax.data.checks import import_extra, pad_rows
from resnorm_jax.errors import check_choice

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
      UserError: unknown tokenizer, or its library is not installed.
    """
    check_choice("data.tokenizer", tokenizer, TOKENIZERS)
    if tokenizer == "bytes":
        return BYTE_NAMES
    return count_vocabulary(texts, SPLITTERS[tokenizer](), size)


def encoder(tokenizer: str, vocabulary: Sequence[str]) -> Callable[[str], list[int]]:
    """Return the function from a text to its token ids (byte + 1; or words, 1 where unknown)."""
    if tokenizer == "bytes":
        return lambda text: [byte + 1 for byte in text.encode()]
    split, index = SPLITTERS[tokenizer](), {word: i for i, word in enumerate(vocabulary)}
    return lambda text: [index.get(word, 1) for word in split(text)]


def encode(
    texts: Sequence[str], encoding: Mapping[str, object], vocabulary: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Encode texts that hold at least one visible character.

    Args:
      texts: to encode.
      encoding: with ``tokenizer`` and ``max_length`` (longer texts are cut).
      vocabulary: token names by id.

    Returns:
      ``x [N, L]`` int32 padded with zeros, and ``lengths [N]`` int32.
    """
    to_ids = encoder(str(encoding["tokenizer"]), vocabulary)
    longest = int(str(encoding["max_length"]))
    return pad_rows([np.array(to_ids(text)[:longest], np.int32) for text in texts], np.int32)
