"""The article's flow chart (L7): residual connection or not, layer norm or not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from resnorm_jax.arguments import check_axes, check_real
from resnorm_jax.norms.layer import LayerNorm
from resnorm_jax.ops.residual import residual


@dataclass(frozen=True)
class Switch:
    """One way through the flow chart.

    Attributes:
      skip: whether there is a residual connection.
      norm: whether there is a layer norm, before the branch (A6).
      label: for tables and plots.
    """

    skip: bool
    norm: bool
    label: str

    def read(self, x: jax.Array, normalize: Callable) -> jax.Array:
        """What the branch is given: ``LN(x)``, or ``x`` where the norm is off."""
        return normalize(x) if self.norm else x

    def write(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """What comes of the block: ``x + y``, or the branch's ``y`` where the skip is off."""
        return residual(x, y) if self.skip else y


SWITCHES = (
    Switch(False, False, "neither"),
    Switch(False, True, "norm only"),
    Switch(True, False, "skip only"),
    Switch(True, True, "skip and norm"),
)


class ReluLayer(nn.Module):
    """A2's branch, ``F(X) = ReLU(W1 X + b1)``, started as in He et al. 2015 (arXiv 1502.01852).

    That start keeps the variance through a chain without skips: the friendliest for those.
    """

    width: int
    kernel_init: Callable[..., jax.Array] = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``x [..., D]`` to the same shape."""
        check_real("x", x)
        check_axes(x=(x, "... D"))
        return jax.nn.relu(nn.Dense(self.width, kernel_init=self.kernel_init, name="linear")(x))


class _Block(nn.Module):
    switch: Any
    branch: Callable[..., nn.Module]
    normalize: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, probe: jax.Array | None) -> tuple[jax.Array, Any]:
        x = x if probe is None else x + probe
        h = self.switch.read(x, self.normalize(name="norm"))
        return self.switch.write(x, self.branch(name="branch")(h)), (x, h)


class SwitchNetwork(nn.Module):
    """``depth`` equal blocks around any branch, that differ in nothing but the switch.

    Attributes:
      depth: blocks; compiled once for any number.
      switch: a row of `SWITCHES`, or whatever has its `read` and `write`.
      branch: makes the branch, called with ``name=``; the module keeps the shape of its input.
      normalize: makes the norm, called with ``name=``.

    >>> from functools import partial
    >>> import jax, jax.numpy as jnp
    >>> net, x = SwitchNetwork(3, SWITCHES[3], partial(ReluLayer, 4)), jnp.ones((2, 4))
    >>> net.apply(net.init(jax.random.key(0), x), x).shape
    (2, 4)
    """

    depth: int
    switch: Any
    branch: Callable[..., nn.Module]
    normalize: Callable[..., nn.Module] = LayerNorm

    def setup(self) -> None:
        """Stack the blocks: parameters have a leading axis of ``depth``."""
        scanned = nn.scan(
            _Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
        )
        self.blocks = scanned(self.switch, self.branch, self.normalize)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Run ``x`` through all blocks."""
        return self.trace(x)[0]

    def trace(self, x: jax.Array, probe: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """Return the output, and what every block and every branch is given ``[depth, *x.shape]``.

        ``probe`` of that shape is added to the blocks' inputs: its gradient at zero is the stream's.
        """
        check_real("x", x)
        check_axes(x=(x, "... D"))
        return self.blocks(x, probe)
