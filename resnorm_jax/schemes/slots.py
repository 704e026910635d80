"""Where a norm may stand. Standard library only."""

from dataclasses import dataclass

# The first five are slots of the stack and its blocks, the others stand inside branches.
SLOTS = (
    "embedding_norm", "norm_before", "norm_after", "norm_on_stream", "final_norm",
    "query_key_norm", "value_norm", "heads_norm", "mlp_norm", "parallel_norm",
)  # fmt: skip


@dataclass(frozen=True)
class NormSlot:
    """A norm that stands in a slot.

    Attributes:
      scale_init: initial value of its scale, where the scheme fixes one; None leaves the norm's own.
      norm: name of the norm where the scheme fixes it; None leaves it to the model.
    """

    scale_init: float | None = None
    norm: str | None = None


NORM = NormSlot()  # the norm that the model chooses
