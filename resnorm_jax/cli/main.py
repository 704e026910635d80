"""The ``resnorm`` command: one subcommand a file, imported when it is run."""

import os
import sys
from collections.abc import Callable
from importlib import import_module

from resnorm_jax.cli.start import ending_at_once

COMMANDS = {
    "train": "train and score what a config says",
    "list": "arrangements, streams, norms, data sets, configs",
    "show": "what a scheme does, layer by layer: norms, constants, parameters",
    "evaluate": "score a run's checkpoint on its test rows, or on a file",
    "predict": "class and probability for each row of a file, or of texts",
    "convert": "a run as a Hugging Face checkpoint, or a checkpoint in our format",
    "export": "a run's model as StableHLO, safetensors or ONNX",
    "serve": "a page and an HTTP API that predict with a run",
    "lab": "which arrangement will train, and why: measured",
    "plan-run": "memory, bytes on the link and time of a step on N devices, before there are any",
    "launch": "many processes: a file for Slurm or JobSet, or N of them here, restarted",
    "bench": "speed, memory and accuracy beside flax.linen and PyTorch",
}
KEEPING = ("evaluate", "predict", "export", "serve", "lab")  # commands that keep compiled programs
COMPUTING = ("train", "evaluate", "predict", "export", "serve", "lab", "plan-run", "bench")


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    with ending_at_once():
        if argv is None and arguments and arguments[0] in COMPUTING:
            from resnorm_jax.cli.large_pages import start_with_large_pages

            start_with_large_pages()
        from resnorm_jax.cli.errors import guarded
    return guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    from resnorm_jax.cli.arguments import usage
    from resnorm_jax.cli.compilation_cache import OFF, SWITCH
    from resnorm_jax.errors import UserError
    from resnorm_jax.version import __version__

    if not arguments or arguments[0] in ("-h", "--help"):
        more = (
            f"--{OFF}, before {' or '.join(KEEPING)}: compile every program anew, and keep none in\n"
            "the user's cache folder.\n"
            "resnorm COMMAND --help says more."
        )
        print(usage("resnorm COMMAND [ARGUMENTS]", COMMANDS, more))
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] == f"--{OFF}":
        arguments = arguments[1:]
        if not arguments or arguments[0] not in KEEPING:
            raise UserError(f"resnorm --{OFF}: name one of {', '.join(KEEPING)} after it")
        os.environ[SWITCH] = "0"
    return _command(arguments[0])(arguments[1:])


def _command(name: str) -> Callable[[list[str]], int]:
    from resnorm_jax.errors import UserError, nearest

    if name not in COMMANDS:
        raise UserError(f"resnorm: no command {name!r}; {nearest(name, COMMANDS)}")
    # A module called list would hide the type, and a name has no dash.
    modules = {"list": "listing", "plan-run": "plan_run"}
    with ending_at_once():
        if name == "train":
            from resnorm_jax.cli.train import main

            return lambda arguments: main(["resnorm train", *arguments])
        return import_module(f"resnorm_jax.cli.{modules.get(name, name)}").main


if __name__ == "__main__":
    sys.exit(main())
