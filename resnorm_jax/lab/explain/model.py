"""One input through a trained model, with all that an explanation reads on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from resnorm_jax.build import build_model
from resnorm_jax.data import Examples
from resnorm_jax.modules.hooks import WRITES
from resnorm_jax.planning import AttentionPlan, Segment
from resnorm_jax.training.saved_run import Trained


@dataclass
class Seen:
    """What a model did with one row.

    Attributes:
      logits: ``[K]``.
      writes: what the embedding and the branches wrote: a tree, as `interventions` has it.
      attention: weights of each attention in the order of application, ``[H, L, L]``.
      output: ``[L, D]``, the encoder's output.
    """

    logits: np.ndarray
    writes: Mapping[str, Any]
    attention: list[np.ndarray]
    output: np.ndarray


@dataclass
class Case:
    """A model and one row for it, without padding.

    Attributes:
      model: the classifier.
      variables: of the model.
      x: ``[1, L, ...]`` or ``[1, H, W, C]``.
    """

    model: Any
    variables: Mapping[str, Any]
    x: np.ndarray

    def logits(self, writes: Any) -> jax.Array:
        """Return the logits ``[K]`` of the stream with these writes; no branch is run."""
        return self.model.apply({**self.variables, WRITES: writes}, self.x, deterministic=True)[0]


def case_of(trained: Trained, examples: Examples, row: int) -> Case:
    """Return the model and one of the rows, cut to its own length."""
    config = trained.config
    # Nothing is trained, so nothing need be computed again; the parameters are the same.
    config = replace(config, model=replace(config.model, remat="none", remat_every=1))
    x = examples.x[row : row + 1]
    if trained.meta["kind"] != "images":
        x = x[:, : max(1, int(examples.lengths[row]))]
    if np.issubdtype(x.dtype, np.integer):
        x = x.astype(np.int32)
    return Case(build_model(config, trained.meta), trained.variables, x)


def observe_case(case: Case) -> Seen:
    """Run the model once on the row."""

    def run(variables: Any, x: Any) -> Any:
        return case.model.apply(
            variables,
            x,
            deterministic=True,
            return_intermediates=True,
            attention_weights=True,
            capture_intermediates=_encoder_call,
            mutable=[WRITES, "intermediates"],
        )

    (logits, named), kept = jax.jit(run)(case.variables, case.x)
    ((output, _),) = kept["intermediates"]["encoder"]["__call__"]
    return Seen(
        np.asarray(logits[0]),
        kept[WRITES],
        attention_in_order(case.model.encoder.segments(), named),
        np.asarray(output[0]),
    )


def _encoder_call(module: nn.Module, method: str) -> bool:
    return module.name == "encoder" and method == "__call__"


def attention_in_order(segments: Sequence[Segment], named: Mapping[str, Any]) -> list[np.ndarray]:
    """Return each attention's weights ``[H, L, L]`` of the first row, in the order of application.

    Attentions that stand side by side are averaged: they read the same input.
    """
    taken: dict[str, int] = {}
    found = []
    for segment in segments:
        for layer in segment.layers:
            for sublayer in layer.sublayers:
                side_by_side = []
                attentions = [b for b in sublayer.branches if isinstance(b, AttentionPlan)]
                for name in (b.name for b in attentions if not b.cross):
                    index = taken.get(name, 0)
                    taken[name] = index + 1
                    side_by_side.append(np.asarray(named[f"{name}/weights"][index, 0]))
                if side_by_side:
                    found.append(np.mean(side_by_side, axis=0))
    return found


def places_of(model: nn.Module) -> list[tuple[str, int, int, str]]:
    """Return segment, index in it, layer (from 1) and name of every branch that writes, in order."""
    segments = model.encoder.segments()  # type: ignore[attr-defined]
    return [
        (segment.name, index, layer.place.layer, sublayer.name)
        for segment in segments
        for index, layer in enumerate(segment.layers)
        for sublayer in layer.sublayers
    ]
