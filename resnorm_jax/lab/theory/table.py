"""The claims, in the order in which they are measured and shown."""

from collections.abc import Iterable

from resnorm_jax.errors import check_choice
from resnorm_jax.lab.theory import (
    curse_of_depth,
    deepnet,
    hyper_gain,
    mix_ln,
    noci,
    norms_compared,
    rezero,
    rezero_training,
    warmup,
    xiong,
)
from resnorm_jax.lab.theory.claim import Claim

TOPICS = (
    xiong,
    noci,
    deepnet,
    rezero,
    rezero_training,
    curse_of_depth,
    warmup,
    mix_ln,
    hyper_gain,
    norms_compared,
)
CLAIMS: dict[str, Claim] = {claim.id: claim for topic in TOPICS for claim in topic.CLAIMS}


def choose(ids: Iterable[str] = ()) -> tuple[Claim, ...]:
    """Return the claims of these ids, or all of them for none.

    Raises:
      UserError: for an id that is not known, naming the nearest.
    """
    return tuple(CLAIMS[check_choice("--only", name, CLAIMS)] for name in ids or CLAIMS)
