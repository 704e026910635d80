"""Training and prediction from Python, as `train.py` and ``resnorm predict`` do them.

>>> import resnorm_jax as rn
>>> config = rn.load_config("digits:smoke", {"model.arrangement": "deepnorm"})
>>> config.model.arrangement
'deepnorm'
"""

import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from resnorm_jax.config import Config, override
from resnorm_jax.config_file import read_config
from resnorm_jax.interop.init_from import checked_config
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.run_directory import kept_config
from resnorm_jax.training.saved_run import Trained, load_trained

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def load_config(name: str, settings: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, which is code and is run, and check it.

    Args:
      name: ``FILE.py``, ``FILE.py:ARGUMENT``, or the name of one that the package has, such as
        ``digits:depth=6``; ARGUMENT is comma-separated presets and settings, as for ``--config``.
      settings: field to value beside them: ``{"model.width": 64, "seed": 3}``.

    Raises:
      UserError: naming the file and line, or the field, the value and the likely fix.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; give a config file's name, such as 'digits:smoke'")
    config = read_config(name)
    for path, value in (settings or {}).items():
        override(config, path, "none" if value is None else str(value))
    return checked_config(config.to_dict())


def train(
    config: "Config | ConfigDict", workdir: str | Path, console: Console | None = None
) -> dict[str, Any]:
    """Train and score every seed of a config; return the report, which ``report.json`` holds too.

    Args:
      config: from `load_config`, or a `ConfigDict` of `resnorm_jax.config.experiment`.
      workdir: the run's directory; a run of the same config found there goes on.
      console: where progress and tables are printed; None prints nothing.

    Raises:
      UserError: for a mistake in the config, the data or the directory. Nothing is overwritten.
      DivergedError: a loss is not finite.
      Preempted: after SIGTERM or SIGINT; what was to be saved is saved.
    """
    if not hasattr(config, "to_dict"):
        raise TypeError(f"config is a {type(config).__name__}; give what rn.load_config returns")
    _check_folder(workdir)
    kept = kept_config(Path(workdir))
    checked = config if isinstance(config, Config) else checked_config(config.to_dict(), kept)
    quiet = Console(file=io.StringIO())
    return run_experiment(checked, Path(workdir), console or quiet)


def load_run(workdir: str | Path, seed: int | None = None, kind: str | None = None) -> Trained:
    """Load what a run has trained; ``load_run(dir).predict(x)`` names the class of each row.

    Args:
      workdir: the run's directory.
      seed: which seed's; the run's first if None.
      kind: ``"best"`` or ``"last"``; the one that the run was scored on if None.

    Raises:
      UserError: there is no run, or no sound checkpoint of that seed.
    """
    _check_folder(workdir)
    return load_trained(Path(workdir), seed, kind)


def _check_folder(workdir: object) -> None:
    if not isinstance(workdir, str | PathLike):
        raise TypeError(f"workdir is {workdir!r}; give the path of a folder")
