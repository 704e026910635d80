"""Training from the command line: see `HELP`, and train.py beside the package."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from resnorm_jax.cli.compilation_cache import OFF, SWITCH, keep_programs
from resnorm_jax.cli.errors import guarded
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.config_file import read_config
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.schema import told

FLAGS = ("require-accelerator", OFF)
PROCESSES = {  # options of several processes: the type of each, and its field in `Launch`
    "coordinator": str,
    "processes": int,
    "process-id": int,
    "start-timeout": float,
    "peer-timeout": float,
}
NAMES = ("config", "workdir", *PROCESSES, *FLAGS)
DEFAULT = "japanese_vowels"
HELP = """\
usage: resnorm train --config=CONFIG[:ARGUMENT] --workdir=DIR [--config.path.to.field=value ...]

  --config   FILE.py, or the name of a config of the package (digits); ARGUMENT is comma-separated
             presets (smoke, validate) and settings (arrangement=post_ln,depth=6,seeds=5).
             Default: japanese_vowels. The file is run: it is code, so name none that you would
             not run yourself
  --workdir  directory of the run; a run of the same config found there goes on
  --require-accelerator  end with status 2 if jax finds no GPU or TPU, in place of training on the CPU
  --coordinator=HOST:PORT --processes=N --process-id=I  one of N processes of this run; process 0
             listens at HOST:PORT, and writes. Not needed where the cluster says it (Slurm, Open MPI,
             TPU pods). train.batch_size is that of all, config.devices counts those of a process
  --start-timeout=60  seconds until all processes have to be there
  --peer-timeout=60   seconds without a sign of life after which a process is taken for gone: the
             others end with status 76 and name it
  --no-compilation-cache  compile every program anew, and keep none in the user's cache folder

In a checkout `python train.py` does the same. `resnorm list` shows what can be named; the fields
are those of resnorm_jax/config_fields.py."""


def main(argv: list[str]) -> int:
    """Train as the command line says; return the exit status."""
    status = 1
    try:
        status = guarded(lambda: _train(argv))
    finally:
        if joining := sys.modules.get("resnorm_jax.training.joining"):
            joining.leave(status)
    return status


def _train(argv: list[str]) -> None:
    if {"-h", "--help", "-help"} & set(argv[1:]):
        print(HELP)
        return
    named, settings = _chosen(argv[1:])
    if OFF in named:
        os.environ[SWITCH] = "0"
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.config import override
        from resnorm_jax.interop.init_from import checked_config
        from resnorm_jax.reporting.terminal import Lasting
        from resnorm_jax.training.experiment import run_experiment
        from resnorm_jax.training.joining import Launch, joined
        from resnorm_jax.training.processes import current
        from resnorm_jax.training.run_directory import kept_config

    config = read_config(named.get("config", DEFAULT))
    for path, value in settings.items():
        override(config, path.removeprefix("config."), value)
    workdir = named.get("workdir")
    begun = None if workdir is None else kept_config(Path(workdir))
    checked = checked_config(config.to_dict(), begun)
    if workdir is None:
        raise UserError("--workdir: missing; name a directory, e.g. --workdir=runs/first")
    with joined(Launch(**_of_processes(named))):
        if "require-accelerator" in named:
            check_accelerator()
        keep_programs()
        console = Console(file=Lasting(sys.stdout), quiet=not current().first)  # type: ignore[arg-type]
        run_experiment(checked, Path(workdir), console)


def _of_processes(named: dict[str, str]) -> dict[str, Any]:
    """Return what the command line says of several processes."""
    found: dict[str, Any] = {}
    for name, kind in PROCESSES.items():
        if name in named:
            try:
                found[name.replace("-", "_")] = kind(named[name])
            except ValueError:
                kinds = {int: "a whole number", float: "seconds"}
                raise UserError(f"--{name}: {told(named[name])!r}; give {kinds[kind]}") from None
    return found


def _chosen(argv: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the options by name, and the settings ``config.PATH``; each is there once."""
    named: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name, value in _arguments(argv):
        if name not in NAMES and not name.startswith("config."):
            raise UserError(f"--{told(name)}: unknown option; {nearest(name, NAMES)}")
        kept = settings if name.startswith("config.") else named
        if kept.setdefault(name, value) != value:
            raise UserError(f"--{name}: given twice, {kept[name]!r} and {value!r}; keep one")
    return named, settings


def _arguments(argv: list[str]) -> list[tuple[str, str]]:
    """Return ``(name, value)`` of each ``--name=value`` or ``--name value``."""
    pairs, rest = [], iter(argv)
    for argument in rest:
        match = re.fullmatch(r"--?(\w[\w.-]*)(?:=(.*))?", argument, re.DOTALL)
        if match is None:
            raise UserError(
                f"unexpected argument {told(argument)!r}; write --config.path.to.field=value"
            )
        name, value = match.groups()
        if name in FLAGS and value is not None:
            raise UserError(f"--{name}: takes no value; write --{name} alone")
        if value is None:
            value = "" if name in FLAGS else next(rest, "")
        if name not in FLAGS and (not value or value.startswith("--")):
            raise UserError(f"--{told(name)}: no value; write --{told(name)}=VALUE")
        pairs.append((name, value))
    return pairs


def check_accelerator() -> None:
    """Raise UserError, saying what jax found, unless there is a device that is no CPU."""
    with ending_at_once():
        import jax

    try:
        devices = jax.local_devices()
    except RuntimeError as error:  # a platform asked for by JAX_PLATFORMS that is not there
        found = " ".join(str(error).split())
    else:
        if devices[0].platform != "cpu":
            return
        found = f"{len(devices)} x {devices[0].device_kind}"
    raise UserError(
        f"--require-accelerator: jax {jax.__version__} found no GPU or TPU: {told(found, 300)}; "
        'install jax for it, e.g. pip install "jax[cuda13]", or leave the option out'
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
