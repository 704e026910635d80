"""What a run tells of its texts: how many tokens, how fast they were made, how many were cut."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from resnorm_jax.data.encoded import Encoded
from resnorm_jax.data.row_arrays import parts_of
from resnorm_jax.data.tokenization import Tokenizer
from resnorm_jax.data.tokenizers_by_name import KINDS

Split = tuple[Encoded, np.ndarray]  # the rows of a file, and which of them


def _tokens(splits: Mapping[str, Split]) -> int:
    return sum(
        int(sizes.sum(dtype=np.int64))
        for made, rows in splits.values()
        for sizes in made.sizes(rows)
    )


def truncation(splits: Mapping[str, Split], tokenizer: Tokenizer) -> dict[str, object]:
    """Return the shares of rows and of tokens that were cut, over all splits."""
    lost, shorter = 0, 0
    for made, rows in splits.values():
        for part in parts_of(rows):
            cut = made.cut[part]
            lost, shorter = lost + int(cut.sum(dtype=np.int64)), shorter + int((cut > 0).sum())
    return {
        "max_length": tokenizer.encoding["max_length"],
        "rows": round(shorter / sum(len(rows) for _, rows in splits.values()), 6),
        "tokens": round(lost / (_tokens(splits) + lost), 6),
    }


def token_lines(
    asked: str, splits: Mapping[str, Split], tokenizer: Tokenizer, seconds: float | None
) -> tuple[str, ...]:
    """Return what a run says of its tokens.

    Args:
      asked: the kind of tokenizer that the config asks for, or its path.
      splits: of the data.
      tokenizer: of their texts.
      seconds: that reading and encoding took; None where all came from the cache.
    """
    tokens = _tokens(splits)
    speed = "from the cache" if seconds is None else f"{tokens / max(seconds, 1e-9):,.0f} a second"
    kind = asked if asked in KINDS else Path(asked).name
    cut = truncation(splits, tokenizer)
    return (
        f"tokenizer: {kind}, {len(tokenizer.names):,} tokens; {tokens:,} in the rows, {speed}",
        f"cut to {cut['max_length']} tokens: {100 * float(str(cut['rows'])):.2f} % of rows, "
        f"{100 * float(str(cut['tokens'])):.2f} % of tokens",
    )
