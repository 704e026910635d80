"""The passes through a model that the statistics are computed from, each run when first asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from resnorm_jax.lab.signals.jacobian import JacobianOptions, krylov, matrix
from resnorm_jax.lab.signals.statistics import valid_positions
from resnorm_jax.modules.hooks import TAPS, by_depth, zero_observers
from resnorm_jax.modules.stack import TransformerStack
from resnorm_jax.ops.masks import zero_padding
from resnorm_jax.training.losses import classification_sums


@dataclass(frozen=True)
class Outcome:
    """What one run of the model gave.

    Attributes:
      logits: ``[B, K]``.
      named: the intermediates.
      x: ``[B, L, D]``, the encoder's input.
      mask: ``[B, L]`` of the encoder, a class token included, or None.
    """

    logits: jax.Array
    named: Mapping[str, jax.Array]
    x: jax.Array
    mask: jax.Array | None


jax.tree_util.register_dataclass(
    Outcome, data_fields=["logits", "named", "x", "mask"], meta_fields=[]
)


class Passes:
    """A model on a batch, inside one trace.

    Args:
      model: a `SequenceClassifier`.
      variables: its own; running statistics are used as they are.
      batch: ``x``, ``y``, ``weight`` and, unless images, ``mask``.
      key: random key of what is estimated.
      optimizer: whose first step is taken.
      label_smoothing: of the loss.
      jacobian: sizes.
      gradient: whether the gradient will be asked for: then one pass serves both.
      weights: whether attention weights will be.
    """

    def __init__(
        self,
        model: Any,
        variables: Mapping[str, Any],
        batch: Mapping[str, jax.Array],
        key: jax.Array,
        *,
        optimizer: optax.GradientTransformation | None,
        label_smoothing: float,
        jacobian: JacobianOptions,
        gradient: bool,
        weights: bool,
    ) -> None:
        self.model, self.variables, self.batch, self.key = model, variables, batch, key
        self.optimizer, self.label_smoothing = optimizer, label_smoothing
        self.options, self._gradient, self._weights = jacobian, gradient, weights
        self.segments = model.encoder.segments()

    def _run(self, variables: Mapping[str, Any], **options: Any) -> Outcome:
        seen: dict[str, Any] = {}

        def watch(call, args, kwargs, context):
            if isinstance(context.module, TransformerStack) and context.method_name == "__call__":
                seen["x"], seen["mask"] = args
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            logits, named = self.model.apply(
                variables, self.batch["x"], self.batch.get("mask"), return_intermediates=True,
                **options,
            )  # fmt: skip
        return Outcome(logits, named, **seen)

    def _loss(self, params: Any, taps: Any) -> tuple[jax.Array, Outcome]:
        variables = {**self.variables, "params": params, TAPS: taps}
        found = self._run(variables, attention_weights=self._weights)
        sums = classification_sums(
            found.logits, self.batch["y"], self.batch["weight"], self.label_smoothing
        )
        return sums["loss"] / jnp.maximum(sums["count"], 1), found

    @cached_property
    def _backward(self) -> tuple[tuple[jax.Array, Outcome], tuple[Any, Any]]:
        taps = zero_observers(
            self.model, self.variables, self.batch["x"], self.batch.get("mask"), collection=TAPS
        )
        both = jax.value_and_grad(self._loss, argnums=(0, 1), has_aux=True)
        return both(self.variables["params"], taps)

    @cached_property
    def outcome(self) -> Outcome:
        """The run before any step."""
        if self._gradient:
            return self._backward[0][1]
        return self._run(self.variables, attention_weights=self._weights)

    @property
    def loss(self) -> jax.Array:
        """Mean cross-entropy."""
        return self._backward[0][0]

    @property
    def gradient(self) -> Any:
        """Of the mean loss, by parameter."""
        return self._backward[1][0]

    @property
    def stream_gradient(self) -> dict[str, jax.Array]:
        """Norms ``[N + 1]`` by array of the stream."""
        return by_depth(self._backward[1][1])

    @cached_property
    def step(self) -> Any:
        """The first step of the optimizer: what is added to the parameters."""
        if self.optimizer is None:
            raise ValueError("statistics of an update need an optimizer")
        params = self.variables["params"]
        return self.optimizer.update(self.gradient, self.optimizer.init(params), params)[0]

    @cached_property
    def after(self) -> Outcome:
        """The run after that step."""
        params = optax.apply_updates(self.variables["params"], self.step)
        return self._run({**self.variables, "params": params})

    @cached_property
    def valid(self) -> jax.Array:
        """``[B, L]``: positions of the stream that count."""
        return valid_positions(self.outcome.mask, self.batch["weight"], self.outcome.x)

    def last_stream(self, outcome: Outcome) -> jax.Array:
        """``[B, L, D]``: the stream after the last layer."""
        return outcome.named[f"{self.segments[-1].sublayers[-1].name}/stream"][-1]

    def layers_with(self, name: str) -> list[int]:
        """Layers (from 0) that have a sublayer or a group of them of this name."""
        layers = [layer for segment in self.segments for layer in segment.layers]
        return [
            n
            for n, layer in enumerate(layers)
            if any(name in (s.name, *(b.name for b in s.branches)) for s in layer.sublayers)
        ]

    def jacobian(self) -> dict[str, jax.Array]:
        """``matrix [n, n]`` with ``valid [n]``; or ``values`` and ``samples``, of `krylov`."""
        rows = slice(min(self.options.rows, len(self.batch["x"])))
        x, valid = self.outcome.x[rows], self.valid[rows]
        mask = None if self.outcome.mask is None else self.outcome.mask[rows]
        kept = {name: tree["encoder"] for name, tree in self.variables.items() if "encoder" in tree}
        counted = jnp.broadcast_to(valid[..., None], x.shape)

        def function(z: jax.Array) -> jax.Array:
            out = self.model.encoder.apply(kept, zero_padding(z, valid), mask)
            return zero_padding(out, valid)

        if x.size <= self.options.dense:
            return {"matrix": matrix(function, x), "valid": counted.ravel()}
        values, samples = krylov(function, x, counted, self.key, self.options)
        return {"values": values, "samples": samples}
