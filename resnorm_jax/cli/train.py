"""``python train.py --config=FILE.py[:ARGUMENT] --workdir=DIR [--config.path.to.field=value]``."""

import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags
from rich.console import Console

from resnorm_jax.cli.errors import guarded
from resnorm_jax.config import from_dict
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.training.experiment import run_experiment


def main(argv: list[str]) -> int:
    """Train as the command line says; return the exit status."""
    return guarded(lambda: _train(argv))


def _train(argv: list[str]) -> None:
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", "configs/japanese_vowels.py", "Config file, with :ARGUMENT if wished.",
        flag_values=values,
    )  # fmt: skip
    workdir = flags.DEFINE_string(
        "workdir", "", "Directory of the run; a run found there goes on.", flag_values=values
    )
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    _parse(values, argv)
    if values.help:
        print(f"usage: {__doc__}\n\n{values.main_module_help() or values.get_help()}")
        return
    if not workdir.value:
        raise UserError("--workdir: missing; name a directory for the run, e.g. --workdir=runs/a")
    checked = from_dict(config.value.to_dict())
    run_experiment(checked, Path(workdir.value), Console())


def _parse(values: flags.FlagValues, argv: list[str]) -> None:
    """Parse flags; turn what absl and ml_collections raise into one line."""
    _check_config_file(argv)
    try:
        rest = values(argv)
    except UserError:
        raise
    except flags.Error as error:
        raise UserError(_one_line(str(error))) from None
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"--config: {_one_line(str(error))}") from None
    if len(rest) > 1:
        raise UserError(
            f"unexpected argument {rest[1]!r}; settings are written --config.NAME=VALUE"
        )


def _check_config_file(argv: list[str]) -> None:
    for index, argument in enumerate(argv):
        match = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if not match:
            continue
        text = match.group(1)
        if text is None:
            text = argv[index + 1] if index + 1 < len(argv) else ""
        path = Path(text.partition(":")[0])
        if not path.is_file():
            folder = path.parent if path.parent.is_dir() else Path("configs")
            known = [p.as_posix() for p in folder.glob("*.py")]
            raise UserError(f"--config: no file {path}; {nearest(path.as_posix(), known)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
