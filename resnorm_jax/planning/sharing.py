"""Layers that share their parameters: which do, and what cannot be shared."""

from resnorm_jax.errors import ChoiceError
from resnorm_jax.planning.show import norms_of
from resnorm_jax.planning.tree import Segment


def times_in_a_row(depth: int, groups: int | None, remat_every: int = 1) -> int:
    """Return how many layers in a row have the same parameters.

    Args:
      depth: layers of the stack.
      groups: how many of them have parameters of their own; None for all.
      remat_every: layers between two carries that are kept.

    Raises:
      ChoiceError: where groups cannot be of one size, or be cut into blocks.

    Source: Lan et al. 2019 (arXiv 1909.11942), section 3.1.
    """
    if groups in (None, depth):
        return 1
    if depth % groups:
        near = min(
            (n for n in range(1, depth + 1) if depth % n == 0), key=lambda n: abs(n - groups)
        )
        raise ChoiceError(f"layer_groups: {groups} does not divide {depth} layers; try {near}")
    if remat_every > 1:
        raise ChoiceError(
            f"remat_every: {remat_every} with layers that share parameters (layer_groups={groups}); "
            "leave it out"
        )
    return depth // groups


def check_sharing(segment: Segment) -> None:
    """Raise ChoiceError where layers that share parameters are not alike, or keep statistics."""
    if segment.repeats == 1:
        return
    if len(segment.layers) % segment.repeats:
        first = segment.layers[0].place.layer
        raise ChoiceError(
            f"layer_groups: of {segment.repeats} layers in a row that share parameters some are of "
            f"another kind, from layer {first} on; give norms and an arrangement that are alike there"
        )
    norms = (norm.spec for sublayer in segment.sublayers for norm in norms_of(sublayer))
    kept = next((spec for spec in norms if spec.state), None)
    if kept is not None:
        raise ChoiceError(
            f"layer_groups: norm {kept.name!r} keeps the {kept.state} of one layer, and cannot be "
            "shared; take another"
        )
