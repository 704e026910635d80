"""From an estimator's parameters to the config of a run, and the run's errors in their words."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any

from resnorm_jax.arrangements import DEFAULT
from resnorm_jax.config import Config, experiment, from_dict, override
from resnorm_jax.errors import DivergedError, UserError
from resnorm_jax.schema import KEY_SEED

# Parameters that are a field of the config.
FIELDS = {
    "arrangement": "model.arrangement",
    "norm": "model.norm",
    "depth": "model.depth",
    "width": "model.width",
    "heads": "model.heads",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "optimizer.learning_rate",
}
# Those of configs/series.py, but for pooling, which configs/japanese_vowels.py chose on training rows,
# and for positions: the rows to predict may be longer than those of training.
RECIPE: dict[str, Any] = {
    "model": {"dropout": 0.2, "pooling": "max", "positions": "sinusoidal"},
    "optimizer": {"warmup": 0.1, "weight_decay": 0.05},
    "train": {"log_every": 100, "checkpoint_every": 10**6},
    "devices": 1,
}
READ = re.compile(r"(model|optimizer|train)\..+|devices")
_NAMES = {path: name for name, path in FIELDS.items()}
_PATH = re.compile(r"(?<!')\b(?:config\.)?((?:model|optimizer|train)\.\w+)|\bconfig\.(\w+)")


class Parameters:
    """What both estimators are made with; `TransformerClassifier` says what each is."""

    def __init__(
        self,
        arrangement: str = DEFAULT,
        norm: str = "layer",
        depth: int = 3,
        width: int = 64,
        heads: int = 8,
        epochs: int = 60,
        batch_size: int = 16,
        learning_rate: float = 1e-3,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.arrangement = arrangement
        self.norm = norm
        self.depth = depth
        self.width = width
        self.heads = heads
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.settings = settings
        self.random_state = random_state
        super().__init__()


def config_of(given: Mapping[str, Any], seed: int) -> Config:
    """Return the checked config of an estimator's parameters.

    Args:
      given: by name: those of `FIELDS`, and ``settings``, path to value or None.
      seed: of the run.

    Raises:
      UserError: naming the parameter, or the path of the setting, its value and the likely fix.
    """
    config = experiment("", data={"source": "arrays"}, **RECIPE, seed=seed)
    settings = given["settings"] or {}
    if not isinstance(settings, Mapping) or not all(isinstance(path, str) for path in settings):
        raise UserError(
            f"settings: {settings!r}; give a mapping from fields to values, such as "
            "{'model.pooling': 'mean'}"
        )
    for path in settings:
        if path in _NAMES:
            raise UserError(f"settings[{path!r}]: give it as {_NAMES[path]}=")
        if not READ.fullmatch(path):
            fix = "; give random_state=" if path in ("seed", "seeds") else ""
            raise UserError(f"settings[{path!r}]: not read by an estimator{fix}")
    for path, value in {**{p: given[n] for n, p in FIELDS.items()}, **settings}.items():
        override(config, path, "none" if value is None else str(value))
    return from_dict(config.to_dict())


def seed_of(random_state: Any) -> int:
    """Return the seed: a whole number itself, or what a generator (None: NumPy's own) draws.

    Raises:
      UserError: it is neither, or out of range.
    """
    from sklearn.utils import check_random_state

    if isinstance(random_state, Integral):
        KEY_SEED.check("random_state", int(random_state))
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31))
    except ValueError as error:
        raise UserError(f"random_state: {error}") from None


@contextmanager
def in_its_words() -> Iterator[None]:
    """Raise a run's errors again with an estimator's parameters in place of the config's fields."""
    try:
        yield
    except (UserError, DivergedError) as error:
        raise type(error)(_PATH.sub(_name, str(error))) from None


def _name(found: re.Match[str]) -> str:
    path = found[1] or found[2]
    return _NAMES.get(path, f"settings[{path!r}]")
