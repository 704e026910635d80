"""Norm surgery measured: agreement and score of the model before, after, and after some steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

from resnorm_jax.build import build_model, slot_norms, told_lengths
from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, TrainBatches
from resnorm_jax.data.pipeline import eval_batches
from resnorm_jax.errors import UserError
from resnorm_jax.lab.surgery.change import Change
from resnorm_jax.lab.surgery.compare import compared, of_probabilities, of_vectors
from resnorm_jax.lab.surgery.distill import Recipe, all_outputs, distilled, outputs
from resnorm_jax.lab.surgery.parameters import RELATIVES, Made, copied, to_rms, to_wide_rms
from resnorm_jax.lab.surgery.pointwise import fitted, function_of, norm_sums
from resnorm_jax.ops.activations import ACTIVATIONS
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.evaluation import predict
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.step import StepOptions

ROWS = 1000  # of the training rows, most that a point-wise norm is fitted on


@dataclass
class Patient:
    """The trained model, and the data that it was trained on.

    Attributes:
      config: of its run.
      meta: what its data say of themselves.
      variables: ``params`` and nothing beside them.
      dataset: prepared; training rows are learned from, test rows scored.
      buckets: padded lengths.
      told: given steps done in all, and the rows of the last one.
      vectors: whether the model has no classes: its outputs are vectors, and compared as such.
    """

    config: Config
    meta: dict[str, Any]
    variables: Mapping[str, Any]
    dataset: Dataset
    buckets: tuple[int, ...]
    told: Callable[[int, int], None] = field(default=lambda step, rows: None)
    vectors: bool = False

    def __post_init__(self) -> None:
        kept = sorted(set(self.variables) - {"params"})
        if kept:
            raise UserError(
                f"the run's model keeps {', '.join(kept)} beside its parameters; surgery changes "
                "models of parameters alone"
            )

    def answers(self, model: Any, params: Any) -> np.ndarray:
        """Return a model's log-probabilities ``[N, K]``, or vectors, of the test rows."""
        size = self.config.train.batch_size
        if self.vectors:
            return all_outputs(model, {"params": params}, self.dataset.test, size, self.buckets)
        options = StepOptions(model.apply, optax.identity(), by_length=told_lengths(model))
        parallel = DataParallel(options, jax.local_devices()[:1])
        return predict(parallel, {"params": params}, self.dataset.test, size, self.buckets)


def operate(patient: Patient, change: Change, recipe: Recipe, seeds: int) -> dict[str, Any]:
    """Return the report: each row of the table, and how the changed model was made."""
    config = change.config(patient.config)
    old, new = (build_model(c, patient.meta) for c in (patient.config, config))
    params = patient.variables["params"]
    before = patient.answers(old, params)
    teacher = partial(outputs, old, patient.variables)
    after, recovered, curves, made = [], [], [], None
    first = patient.config.seed
    for index, seed in enumerate(range(first, first + seeds)):
        if made is None or made.random:
            made = changed(patient, old, new, config, change, seed)
            # Values are compared, where nothing is random, once for all seeds.
            after.append(patient.answers(new, made.params))
        batches = TrainBatches(
            patient.dataset.train, config.train.batch_size, patient.buckets, seed
        )
        told = partial(_told, patient, index * recipe.steps)
        learned, losses = distilled(new, made.params, teacher, batches, recipe, told)
        curves.append(losses)
        if recipe.steps:
            recovered.append(patient.answers(new, learned))
    assert made is not None
    labels, classes = patient.dataset.test.y, patient.meta["classes"]
    how = of_vectors if patient.vectors else of_probabilities(labels, classes)
    stages = {
        "unchanged model": [before],
        "after surgery": after,
        f"after {recipe.steps} steps": recovered,
    }
    return {
        "change": str(change),
        "how": made.how,
        "fresh": made.fresh,
        "stages": [
            {"model": name, **compared(before, found, how)}
            for name, found in stages.items()
            if found
        ],
        "losses": curves,
    }


def _told(patient: Patient, before: int, step: int, rows: int) -> None:
    patient.told(before + step, rows)


def changed(
    patient: Patient, old: Any, new: Any, config: Config, change: Change, seed: int
) -> Made:
    """Return the changed model's parameters before it learns anything."""
    params, dataset = patient.variables["params"], patient.dataset
    like = init_variables(new, dataset, patient.buckets, seed)
    if set(like) != {"params"}:
        raise UserError(f"--to: {change}: it keeps more than parameters; name another norm")
    model, phi = patient.config.model, None
    shared = model.layer_groups not in (None, model.depth)
    if change.widen and shared:
        raise UserError(
            f"--widen: the model's layers share parameters (layer_groups={model.layer_groups}), and "
            "each would need its own; leave it out"
        )
    if change.widen:
        function = ACTIVATIONS.get(model.activation).function
        return to_wide_rms(params, old.pooling, old.positions, function)
    if change.field == "norm":
        if RELATIVES.get(model.norm) == change.value and _all_same(model):
            exact = to_rms(params, old.pooling, old.positions, shared)
            if exact is not None and _shapes(exact.params) == _shapes(like["params"]):
                return exact
        phi = function_of(change.value)
    if phi is None:
        return copied(params, like["params"])
    rows = dataset.train.take(np.arange(min(ROWS, len(dataset.train))))
    batches = eval_batches(rows, config.train.batch_size, patient.buckets)
    real = (_real(batches[i]) for i in range(len(batches)))
    return fitted(norm_sums(old, patient.variables, real, phi), params, like["params"])


def _real(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch whose fillers have no valid position, so that no sum counts a row twice."""
    weight = batch["weight"] > 0
    mask = batch.get("mask", np.ones((len(weight), 1), bool)) & weight[:, None]
    return {"x": batch["x"], "mask": mask}


def _all_same(model: Any) -> bool:
    """Whether no slot has a norm of its own that is another than ``model.norm``."""
    return set(slot_norms(model).values()) <= {model.norm}


def _shapes(tree: Any) -> Any:
    return jax.tree.map(np.shape, tree)
