"""Tokenizers of the library `tokenizers`: a ``tokenizer.json``, used as it is but for its lengths."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from resnorm_jax.data.checks import import_extra
from resnorm_jax.data.files import file_fault, read_bytes
from resnorm_jax.errors import UserError

FILE = "tokenizer.json"
LARGEST = 2**28  # bytes
SPECIAL = {
    "pad": ("[PAD]", "<pad>", "<|padding|>"),
    "unknown": ("[UNK]", "<unk>"),
    "begin": ("[CLS]", "<s>", "<bos>"),
    "separator": ("[SEP]", "</s>", "<eos>"),
    "mask": ("[MASK]", "<mask>"),
}


class LibraryTokenizer:
    """A tokenizer of the library, which cuts to a length and keeps its special tokens.

    Attributes:
      names: of the tokens, by id.
      encoding: for metadata: ``tokenizer``, ``sha256`` of its file, ``max_length``, and ``special``,
        the ids of the special tokens that it has.
      files: its file, which a run keeps.
    """

    def __init__(self, where: str, data: bytes, max_length: int) -> None:
        library = import_extra("tokenizers", "tokenizers", "text")
        try:
            # One for the texts and one that cuts: neither is changed later, so threads may share them.
            self._made, self._cutting = (library.Tokenizer.from_buffer(data) for _ in range(2))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(
                f"{where}: damaged, or no tokenizer of the library tokenizers ({str(error)[:120]}); "
                "save it again by save_pretrained"
            ) from error
        for made in (self._made, self._cutting):
            made.no_padding()
        self._made.no_truncation()
        self._single = self._made.num_special_tokens_to_add(False)
        self._paired = self._made.num_special_tokens_to_add(True)
        self._longest = max_length
        if max_length > max(self._single, self._paired):  # else `check_length` refuses it
            self._cutting.enable_truncation(max_length, strategy="longest_first")
        self.names = _names(self._made)
        self.files: Mapping[str, bytes] = {FILE: data}
        self.encoding: Mapping[str, object] = {
            "tokenizer": FILE,
            "sha256": hashlib.sha256(data).hexdigest(),
            "max_length": max_length,
            "special": _special(self._made),
        }

    def check_length(self, pairs: bool) -> None:
        """Raise a UserError where the special tokens leave no room for text."""
        special = self._paired if pairs else self._single
        if self._longest < special + 1 + pairs:
            raise UserError(
                f"data.max_length: {self._longest} leaves no room for text beside {special} special "
                f"tokens; give {special + 1 + pairs} or more"
            )

    def encode(self, values: Sequence[Any]) -> tuple[list[list[int]], list[int]]:
        """Return the token ids of texts, or pairs of texts, and how many tokens were cut off.

        Of a pair the longer text is cut first.
        """
        if not values:
            return [], []
        parts = [value if isinstance(value, tuple) else (value,) for value in values]
        flat = [text for part in parts for text in part]
        coded = iter(self._made.encode_batch_fast(flat, add_special_tokens=False))
        made = [self._finished(*(next(coded) for _ in part)) for part in parts]
        return [ids for ids, _ in made], [cut for _, cut in made]

    def _finished(self, text: Any, pair: Any = None) -> tuple[list[int], int]:
        special = self._single if pair is None else self._paired
        whole = len(text) + (0 if pair is None else len(pair)) + special
        ids = self._cutting.post_process(text, pair, add_special_tokens=True).ids
        return ids, max(whole - self._longest, 0)


def _names(made: Any) -> tuple[str, ...]:
    """Return the tokens by id; an id without one is called by its number."""
    ids = {index: name for name, index in made.get_vocab(with_added_tokens=True).items()}
    return tuple(ids.get(i, f"<{i}>") for i in range(max(ids, default=-1) + 1))


def _special(made: Any) -> dict[str, int]:
    """Return the ids of the special tokens, by what they are for."""
    added = {t.content: i for i, t in made.get_added_tokens_decoder().items() if t.special}
    found = {use: [added[n] for n in names if n in added] for use, names in SPECIAL.items()}
    return {use: ids[0] for use, ids in found.items() if ids}


def tokenizer_path(field: str, given: str) -> Path:
    """Return the path of a ``tokenizer.json``, given as it or as the folder that holds it.

    Raises:
      UserError: with the field, where there is none.
    """
    path = Path(given).expanduser()
    if os.path.isdir(path):
        if not (path / FILE).exists():
            raise UserError(
                f"{field}: {given!r} holds no {FILE}; write one by transformers: "
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
        path = path / FILE
    fault = file_fault(path)
    if fault:
        raise UserError(f"{field}: {str(path)!r}: {fault}")
    return path


def read_tokenizer(path: Path, max_length: int) -> LibraryTokenizer:
    """Read a ``tokenizer.json``.

    Raises:
      UserError: it cannot be read, or is no tokenizer.
    """
    return LibraryTokenizer(str(path), read_bytes(path, LARGEST), max_length)


@lru_cache(maxsize=4)
def kept_tokenizer(directory: str | None, sha256: str, max_length: int) -> LibraryTokenizer:
    """Return the tokenizer that a run keeps in its directory.

    Raises:
      UserError: there is none, or not the one that the run used.
    """
    if directory is None:
        raise UserError("config.json: data.encoding: its tokenizer lies beside it; load the run")
    path = Path(directory) / FILE
    data = read_bytes(path, LARGEST)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path}: not the tokenizer of this run (its SHA-256 differs); restore it")
    return LibraryTokenizer(str(path), data, max_length)


def to_bytes(made: Any) -> bytes:
    """Return a tokenizer of the library as the content of a ``tokenizer.json``."""
    return json.dumps(json.loads(made.to_str()), ensure_ascii=False, indent=1).encode() + b"\n"
