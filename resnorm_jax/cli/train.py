"""Training from the command line: see `HELP`, and train.py beside the package."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.cli.errors import guarded
from resnorm_jax.errors import UserError, nearest

if TYPE_CHECKING:
    from ml_collections import ConfigDict

DEFAULT = "configs/japanese_vowels.py"
HELP = """\
usage: python train.py --config=FILE.py[:ARGUMENT] --workdir=DIR [--config.path.to.field=value ...]

  --config   config file; ARGUMENT is comma-separated presets (smoke, validate) and settings
             (arrangement=post_ln,depth=6,seeds=5). Default: configs/japanese_vowels.py
  --workdir  directory of the run; a run of the same config found there goes on

`resnorm list` shows what can be named; the fields are those of resnorm_jax/config.py."""


def main(argv: list[str]) -> int:
    """Train as the command line says; return the exit status."""
    return guarded(lambda: _train(argv))


def _train(argv: list[str]) -> None:
    if {"-h", "--help", "-help"} & set(argv[1:]):
        print(HELP)
        return
    given = _arguments(argv[1:])
    settings = [(n.removeprefix("config."), v) for n, v in given if n.startswith("config.")]
    named = {"config": DEFAULT, "workdir": ""}
    for name, value in given:
        if name in named:
            named[name] = value
        elif not name.startswith("config."):
            raise UserError(f"--{name}: unknown option; {nearest(name, named)}")
    # Imported here: --help and mistakes should not wait for jax.
    from rich.console import Console

    from resnorm_jax.config import from_dict, override
    from resnorm_jax.training.experiment import run_experiment

    config = load_config(named["config"])
    for path, value in settings:
        override(config, path, value)
    if not named["workdir"]:
        raise UserError("--workdir: missing; name a directory, e.g. --workdir=runs/first")
    run_experiment(from_dict(config.to_dict()), Path(named["workdir"]), Console())


def load_config(name: str) -> "ConfigDict":
    """Run a config file's ``get_config``; ``name`` is ``FILE.py`` or ``FILE.py:ARGUMENT``."""
    file, _, argument = name.partition(":")
    path = Path(file)
    spec = importlib.util.spec_from_file_location("resnorm_config", path)
    if not path.is_file() or spec is None or spec.loader is None:
        folder = path.parent if path.parent.is_dir() else Path("configs")
        known = [p.as_posix() for p in folder.glob("*.py")]
        raise UserError(f"--config: no config file {file}; {nearest(path.as_posix(), known)}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def _arguments(argv: list[str]) -> list[tuple[str, str]]:
    """Return ``(name, value)`` of each ``--name=value`` or ``--name value``."""
    pairs, rest = [], iter(argv)
    for argument in rest:
        match = re.fullmatch(r"--?([\w.]+)(?:=(.*))?", argument, re.DOTALL)
        if match is None:
            raise UserError(f"unexpected argument {argument!r}; write --config.path.to.field=value")
        name, value = match.groups()
        pairs.append((name, next(rest, "") if value is None else value))
    return pairs


if __name__ == "__main__":
    sys.exit(main(sys.argv))
