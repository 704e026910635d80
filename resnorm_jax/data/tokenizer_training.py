"""Subword tokenizers that are trained on the training rows: the same texts give the same bytes.

All have ``[PAD]`` = 0, ``[UNK]``, ``[CLS]``, ``[SEP]`` and ``[MASK]``; a text is ``[CLS] text [SEP]``,
a pair ``[CLS] text [SEP] pair [SEP]``.

Sources: byte-pair encoding on bytes, Sennrich et al. 2016 (arXiv:1508.07909) and GPT-2; WordPiece as
BERT's uncased one (Devlin et al. 2019, arXiv:1810.04805); unigram language model, Kudo 2018
(arXiv:1804.10959).
"""

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from resnorm_jax.data.checks import import_extra
from resnorm_jax.data.tokenizer_files import to_bytes
from resnorm_jax.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
Texts = Callable[[], Iterable[str]]


def _library() -> Any:
    return import_extra("tokenizers", "tokenizers", "text")


def _bpe(texts: Texts, size: int) -> Any:
    library = _library()
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts(), trainer)
    return made


def _wordpiece(texts: Texts, size: int) -> Any:
    """Train; a character's ids come first, since the library would give them in any order."""
    library = _library()

    def plain(model: Any) -> Any:
        made = library.Tokenizer(model)
        made.normalizer = library.normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        return made

    learner = plain(library.models.WordPiece(unk_token=SPECIAL[1]))
    characters = _characters(texts(), learner.normalizer.normalize_str)
    inside = [c for c in characters if _continues(learner, c)]
    fixed = [*SPECIAL, *characters, *(f"##{c}" for c in inside)]
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=max(size, len(fixed)), special_tokens=fixed, show_progress=False
    )
    learner.train_from_iterator(texts(), trainer)
    vocabulary = learner.get_vocab(with_added_tokens=True)
    made = plain(library.models.WordPiece(vocabulary, unk_token=SPECIAL[1]))
    made.decoder = library.decoders.WordPiece()
    return made


def _characters(texts: Iterable[str], normalize: Callable[[str], str]) -> list[str]:
    seen = set[str]()
    for text in texts:
        seen.update(text)
    return sorted({c for raw in seen for c in normalize(raw) if not c.isspace()})


def _continues(made: Any, character: str) -> bool:
    """Return whether a character can stand inside a word: it does not end it."""
    word = made.normalizer.normalize_str(f"a{character}")
    return len(made.pre_tokenizer.pre_tokenize_str(word)) == 1


def _unigram(texts: Texts, size: int) -> Any:
    """Train by the library sentencepiece, whose result is the same each time, on one thread."""
    library, pieces = _library(), import_extra("sentencepiece", "sentencepiece", "text")
    normalizer, out = library.normalizers.NFKC(), io.BytesIO()
    least = len(_characters(texts(), normalizer.normalize_str)) + 2  # and blanks, and <unk>
    pieces.SentencePieceTrainer.train(
        sentence_iterator=_lines(texts(), normalizer.normalize_str),
        model_writer=out,
        model_type="unigram",
        vocab_size=max(size - len(SPECIAL) + 1, least),  # its special token is <unk> alone
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        num_threads=1,
        minloglevel=2,
    )
    learned = pieces.SentencePieceProcessor(model_proto=out.getvalue())
    scored = [(learned.id_to_piece(i), learned.get_score(i)) for i in range(1, len(learned))]
    special = [(name, 0.0) for name in SPECIAL]
    made = library.Tokenizer(library.models.Unigram([*special, *scored], unk_id=1))
    made.normalizer = normalizer
    made.pre_tokenizer = library.pre_tokenizers.Metaspace()
    made.decoder = library.decoders.Metaspace()
    return made


def _lines(texts: Iterable[str], normalize: Callable[[str], str]) -> Iterator[str]:
    """Yield what stands between line ends: sentencepiece takes sentences of up to 4 kB."""
    for text in texts:
        for line in normalize(text).splitlines():
            yield from (line[i : i + 1000] for i in range(0, len(line), 1000))


TRAINED: dict[str, Callable[[Texts, int], Any]] = {
    "bpe": _bpe,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
}


def train_tokenizer(kind: str, texts: Texts, size: int) -> bytes:
    """Train a tokenizer.

    Args:
      kind: a key of `TRAINED`.
      texts: gives the texts, each time from the first on.
      size: most token ids, special ones included.

    Returns:
      The content of its ``tokenizer.json``.

    Raises:
      UserError: a library is not installed, or the texts' characters alone are more tokens.
    """
    library = _library()
    try:
        made = TRAINED[kind](texts, size)
    except RuntimeError as error:  # of sentencepiece
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"data.tokenizer: {kind} cannot be trained on these rows ({why}); take wordpiece or bpe"
        ) from error
    made.add_special_tokens(list(SPECIAL))
    begin, end = (made.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    made.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", begin), ("[SEP]", end)],
    )
    found = made.get_vocab_size()
    if found > size:
        raise UserError(
            f"data.vocabulary: {size} is under the {found} tokens that {kind} needs for the characters "
            f"of the training texts alone; give {found} or more, or tokenizer=bpe"
        )
    return to_bytes(made)
