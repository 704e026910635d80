"""Probe every arrangement on the model and the data of a config, and rank them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.build import build_model, check_names
from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, TrainBatches, describe
from resnorm_jax.lab.certify.probe import Probe, as_probe, make_probe
from resnorm_jax.lab.certify.score import Certificate, judge
from resnorm_jax.training.model_state import STATISTICS

DRAWS = 3  # of the parameters
ROWS = 64  # of the training rows
WORKERS = 2  # compilation uses one core; the programs are small


@dataclass(frozen=True)
class Case:
    """What all arrangements are probed on: the config, and training rows."""

    config: Config
    meta: Mapping[str, Any]
    batch: Mapping[str, np.ndarray]

    @property
    def rows(self) -> int:
        """How many rows are looked at."""
        return int((self.batch["weight"] > 0).sum())

    @property
    def classes(self) -> int:
        """How many classes the rows have."""
        return len(self.meta["classes"])


def make_case(config: Config, dataset: Dataset) -> Case:
    """Return the case of a config: `ROWS` of its training rows, padded to the longest."""
    longest = (int(dataset.train.lengths.max()),)
    rows = min(ROWS, len(dataset.train))
    batch = TrainBatches(dataset.train, rows, longest, config.seed).batch_at(0)
    return Case(config, describe(dataset), batch)


def with_model(config: Config, **model: Any) -> Config:
    """Return a config with other settings of its model."""
    return replace(config, model=replace(config.model, **model))


def probe(case: Case, arrangement: str) -> Probe:
    """Return what is seen of one arrangement at initialization."""
    quiet = with_model(
        case.config, arrangement=arrangement, dropout=0.0, attention_dropout=0.0, drop_path=0.0
    )
    check_names(quiet.model)
    model = build_model(quiet, dict(case.meta))
    # Nothing is spread over devices here: norms whose statistics run over rows have all of them.
    model = model.clone(encoder=model.encoder.clone(axis_name=None))

    def apply(variables: Any, x: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
        options: dict[str, Any] = {"deterministic": True}
        if STATISTICS in variables:  # as in training: the rows' own statistics
            options = {"deterministic": False, "mutable": [STATISTICS]}
            options["rngs"] = {"dropout": jax.random.key(0)}
        out = model.apply(variables, x, mask, return_intermediates=True, **options)
        logits, named = out[0] if STATISTICS in variables else out
        return logits, named["pooled"]

    measure = make_probe(model.init, apply, case.config.optimizer)
    keys = jax.random.split(jax.random.key(case.config.seed), DRAWS)
    batch = {name: jnp.asarray(value) for name, value in case.batch.items()}
    return as_probe(jax.tree.map(np.asarray, measure(keys, batch)))


def certify(
    case: Case,
    arrangements: Sequence[str],
    told: Callable[[str], None] = lambda name: None,
) -> list[tuple[Certificate, Probe]]:
    """Probe arrangements; return what is to be expected of each and why, the best first.

    Args:
      case: model and data.
      arrangements: by name.
      told: called with a name when it was probed.
    """

    def one(name: str) -> tuple[Certificate, Probe]:
        seen = probe(case, name)
        told(name)
        return judge(name, seen, case.rows, case.classes), seen

    with ThreadPoolExecutor(WORKERS) as pool:
        made = list(pool.map(one, arrangements))
    return sorted(made, key=lambda pair: -pair[0].score)


def as_records(certificates: Sequence[Certificate]) -> list[dict[str, Any]]:
    """Return certificates as plain dictionaries, ranks from 1."""
    return [{"rank": n, **asdict(c)} for n, c in enumerate(certificates, start=1)]
