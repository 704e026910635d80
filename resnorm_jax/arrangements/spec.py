"""What an arrangement is made of. Standard library only: an arrangement is data.

::

    h     = norm_before( stream.read(carry) )
    y     = norm_after( branch(h) )
    carry = norm_on_stream( stream.write(carry, y) )     # write: skip_scale * x + branch_scale * y
    out   = final_norm( stream.close(carry) )
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from resnorm_jax.arrangements.depth_rules import DepthRule, one

ROLES = ("query", "key", "value", "out", "fc1", "fc2")


@dataclass(frozen=True)
class NormSlot:
    """A norm that stands in a slot. Which norm it is, the model says.

    Attributes:
      scale_init: initial value of its scale, where the scheme fixes one; None leaves the norm's own.
    """

    scale_init: float | None = None


@dataclass(frozen=True)
class Init:
    """Initialization of the branch kernels, apart from the forward pass.

    Attributes:
      distribution: ``"uniform"`` or ``"normal"``, with Xavier's variance ``2 / (fan_in + fan_out)``.
      gains: role (one of `ROLES`) to depth rule: the factor on the standard deviation. Roles that
        are not named keep gain 1.
    """

    distribution: Literal["uniform", "normal"] = "uniform"
    gains: Mapping[str, DepthRule] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        unknown = set(self.gains) - set(ROLES)
        if unknown:
            raise ValueError(f"init gains name unknown roles {sorted(unknown)}; roles: {ROLES}")


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How a stack of sublayers normalizes and adds: one row of the catalog.

    Attributes:
      name: lower_snake, the same in code, configs, command line, results and plots.
      equation: one line, for people.
      source: paper (arXiv number), equation, and the official code where there is one.
      norm_before: norm of the branch's input, or None.
      norm_after: norm of the branch's output, or None.
      norm_on_stream: norm of the sum, on the stream, or None.
      final_norm: norm after the last layer, or None.
      stream: name of the residual scheme (a row of `resnorm_jax.ops.streams`).
      skip_scale: factor on the stream when a branch is added.
      branch_scale: factor on the branch when it is added.
      init: initialization of the branches.
      aliases: other names of the same thing.
    """

    name: str
    equation: str
    source: str
    norm_before: NormSlot | None = None
    norm_after: NormSlot | None = None
    norm_on_stream: NormSlot | None = None
    final_norm: NormSlot | None = None
    stream: str = "add"
    skip_scale: DepthRule = one
    branch_scale: DepthRule = one
    init: Init = field(default_factory=Init)
    aliases: tuple[str, ...] = ()
