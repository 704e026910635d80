"""A trained model, loaded from its run directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from resnorm_jax.build import build_model
from resnorm_jax.config import Config
from resnorm_jax.data import Examples
from resnorm_jax.errors import UserError
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.training.checkpoint import CheckpointStore, DamagedCheckpointError
from resnorm_jax.training.devices import DataParallel, choose_devices
from resnorm_jax.training.evaluation import predict
from resnorm_jax.training.initial import variables_like
from resnorm_jax.training.model_state import packed, unpacked
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.run_directory import read_run, seed_directory
from resnorm_jax.training.step import StepOptions, create_state, scored_variables


@dataclass
class Trained:
    """A run's model with the variables of one seed.

    Attributes:
      config: of the run.
      meta: of its data; `resnorm_jax.data.inputs.read_inputs` takes it.
      variables: ``params``, and what the model keeps beside them.
      step: updates behind them.
      kind: ``"best"`` or ``"last"``.
    """

    config: Config
    meta: dict[str, Any]
    variables: dict[str, Any]
    step: int
    kind: str
    parallel: DataParallel

    @property
    def params(self) -> Any:
        """The parameters of ``variables``."""
        return self.variables["params"]

    def log_probs(self, examples: Examples) -> np.ndarray:
        """Return log-probabilities ``[N, K]`` of rows prepared as the training rows were.

        Raises:
          UserError: for a row that is longer than the model's learned positions.
        """
        self.check_lengths(examples)
        buckets = (int(examples.lengths.max()),) if len(examples) else (1,)
        size = self.config.train.batch_size
        return predict(self.parallel, self.variables, examples, size, buckets)

    def check_lengths(self, examples: Examples) -> None:
        """Raise UserError for a row that is longer than the model's learned positions."""
        longest = self.config.model.max_length or self.meta["max_length"]
        limited = POSITIONS.get(self.config.model.positions).limited
        if limited and self.meta["kind"] != "images" and (examples.lengths > longest).any():
            row = int((examples.lengths > longest).argmax())
            raise UserError(
                f"row {row + 1} has {examples.lengths[row]} positions, the model learned {longest}; "
                "train with a larger model.max_length, or positions=sinusoidal"
            )


def load_trained(workdir: Path, seed: int | None = None, kind: str | None = None) -> Trained:
    """Load a run's variables.

    Args:
      workdir: the run directory.
      seed: which seed's; the run's first if None.
      kind: ``"best"`` or ``"last"``; the one that the run was scored on if None.

    Raises:
      UserError: if there is no run, or no sound checkpoint of that seed.
    """
    config, meta = read_run(workdir)
    seed = config.seed if seed is None else seed
    kind = kind or config.train.select
    model = build_model(config, meta)
    optimizer, _ = make_optimizer(config.optimizer, 10**9)
    like = jax.eval_shape(
        lambda: create_state(variables_like(model, meta), optimizer, seed, config.train.ema)
    )
    like = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), like)
    wanted = scored_variables(like)
    store = CheckpointStore(seed_directory(workdir, seed, kind))
    if not store.steps():
        seeds = sorted(p.name for p in (workdir / "checkpoints").glob("seed_*"))
        raise UserError(f"{workdir}: no {kind} checkpoint of seed {seed}; it holds {seeds}")
    step = store.steps()[-1]
    try:
        found = store.restore(step, packed(wanted) if kind == "best" else like)
    except DamagedCheckpointError as error:
        raise UserError(f"damaged checkpoint: {error}; run the training command again") from None
    devices = choose_devices(1, config.train.batch_size, 1)
    parallel = DataParallel(StepOptions(model.apply, optax.identity()), devices)
    variables = unpacked(found, wanted) if kind == "best" else scored_variables(found)
    return Trained(config, meta, variables, step, kind, parallel)
