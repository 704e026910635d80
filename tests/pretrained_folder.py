"""A folder of a tiny random encoder with a tokenizer of nine words, as `transformers` saves one."""

from pathlib import Path

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "fun", "day", "a")


def words_of(family: str) -> tuple[str, ...]:
    """The words in the order of their ids: some models count positions by the id of padding, 1."""
    return (WORDS[1], WORDS[0], *WORDS[2:]) if family in ("roberta", "mpnet") else WORDS


def make_checkpoint(folder: Path, family: str = "bert") -> Path:
    from interop.hugging_face import tiny
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = words_of(family)
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(words[:4]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    tiny(family).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
