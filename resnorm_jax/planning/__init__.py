"""Planning: from a row, the norms, the depth and the options to a frozen, printable plan."""

from resnorm_jax.planning.resolve import plan
from resnorm_jax.planning.tree import (
    AttentionPlan,
    FeedForwardPlan,
    LayerNumbers,
    LayerPlan,
    Plan,
    PlannedNorm,
    Segment,
    SublayerNumbers,
    SublayerPlan,
)

__all__ = [
    "AttentionPlan",
    "FeedForwardPlan",
    "LayerNumbers",
    "LayerPlan",
    "Plan",
    "PlannedNorm",
    "Segment",
    "SublayerNumbers",
    "SublayerPlan",
    "plan",
]
