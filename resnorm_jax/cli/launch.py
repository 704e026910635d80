"""``resnorm launch slurm | jobset | local -- train ARGUMENTS``: one run in many processes."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnorm_jax.cli.arguments import Parser, usage
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.schema import between, from_zero, told

KINDS = {
    "local": "N processes on this machine, started again when one of them dies",
    "slurm": "a batch file for sbatch",
    "jobset": "a JobSet for kubectl (GKE, TPU, GPU)",
}
# Whoever launches a process tells it where it is.
PLACE = ("coordinator", "processes", "process-id")
END = "What follows -- is what each process does: the arguments of `resnorm train`."
MACHINES, MANY = between(1, 100_000), between(1, 64)


def main(argv: list[str]) -> int:
    """Write a launch file, or run processes here; return the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage("resnorm launch KIND [OPTIONS] -- train ARGUMENTS", KINDS, END))
        return 0
    commands: dict[str, Callable[[list[str], list[str]], int]] = {
        "local": _local, "slurm": _slurm, "jobset": _jobset,
    }  # fmt: skip
    if argv[0] not in commands:
        raise UserError(f"resnorm launch: no kind {told(argv[0])!r}; {nearest(argv[0], KINDS)}")
    own, dashes, theirs = _parted(argv[1:])
    if not {"-h", "--help"} & set(own):
        check_training(theirs if dashes else [])
    return commands[argv[0]](own, theirs)


def _parted(argv: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in argv:
        return argv, False, []
    place = argv.index("--")
    return argv[:place], True, argv[place + 1 :]


def check_training(arguments: list[str]) -> None:
    """Check what each process is to do, before anything waits in a queue; the config is read.

    Raises:
      UserError: it is not `train` with arguments that are right.
    """
    if not arguments or arguments[0] != "train":
        found = f"{told(arguments[0])!r} is no such thing" if arguments else "nothing is there"
        raise UserError(f"resnorm launch: {found}; write -- train --config=... --workdir=...")
    names = [m[1] for a in arguments if (m := re.match(r"--?([\w.-]+)", a))]
    for name in PLACE:
        if name in names:
            raise UserError(f"--{name}: each process gets its own from the launcher; leave it out")
    # Imported here: --help should not wait for it.
    with ending_at_once():
        from resnorm_jax.cli.train import DEFAULT, _chosen
        from resnorm_jax.config import override
        from resnorm_jax.config_file import read_config
        from resnorm_jax.interop.init_from import checked_config

    named, settings = _chosen(arguments[1:])
    if "workdir" not in named:
        raise UserError("--workdir: missing; name a directory that all processes see")
    config = read_config(named.get("config", DEFAULT))
    for path, value in settings.items():
        override(config, path.removeprefix("config."), value)
    checked_config(config.to_dict())


def _local(own: list[str], theirs: list[str]) -> int:
    parser = Parser(prog="resnorm launch local", description=KINDS["local"], epilog=END)
    parser.add_number("--processes", int, MANY, required=True, metavar="N", help="how many")
    parser.add_number("--restarts", int, from_zero(1e6), default=3, metavar="N",
                      help="start all again at most so often (default: 3)")  # fmt: skip
    parser.add_number("--grace", float, from_zero(1e6), default=90.0, metavar="S",
                      help="seconds the others have after one has ended (default: 90)")  # fmt: skip
    parser.add_argument(
        "--show", choices=("first", "all"), default="first",
        help="the output of process 0, and all errors (default); or of all, numbered",
    )  # fmt: skip
    chosen = parser.parse_args(own)
    from resnorm_jax.launching.local import Local, python_command

    return Local(
        [*python_command(), *theirs], chosen.processes, chosen.restarts, chosen.grace,
        chosen.show == "all",
    ).run()  # fmt: skip


def _slurm(own: list[str], theirs: list[str]) -> int:
    parser = Parser(prog="resnorm launch slurm", description=KINDS["slurm"], epilog=END)
    parser.add_number("--nodes", int, MACHINES, required=True, metavar="N", help="machines")
    parser.add_number("--tasks", int, MANY, metavar="N",
                      help="processes on each (default: a process a GPU, or one)")  # fmt: skip
    parser.add_number("--gpus", int, between(0, 64), default=0, metavar="N",
                      help="GPUs of each machine (default: 0)")  # fmt: skip
    parser.add_number("--cpus", int, between(0, 4096), default=0, metavar="N",
                      help="cores of each process (default: Slurm's)")  # fmt: skip
    parser.add_argument("--time", type=_slurm_time, default="24:00:00", help="limit, HH:MM:SS")
    _common(parser)
    chosen = parser.parse_args(own)
    if chosen.tasks and chosen.gpus and chosen.tasks != chosen.gpus:
        raise UserError(
            f"--tasks: {chosen.tasks} processes for {chosen.gpus} GPUs; under Slurm JAX gives each "
            "process one GPU, so leave --tasks out"
        )
    from resnorm_jax.launching.slurm import Slurm

    tasks = chosen.tasks or chosen.gpus or 1
    text = Slurm(theirs, chosen.nodes, tasks, chosen.gpus, chosen.cpus, chosen.time,
                 chosen.restarts, chosen.name).text()  # fmt: skip
    return _written(chosen, text, "sbatch", ".sh")


def _jobset(own: list[str], theirs: list[str]) -> int:
    parser = Parser(prog="resnorm launch jobset", description=KINDS["jobset"], epilog=END)
    parser.add_number("--processes", int, MACHINES, required=True, metavar="N", help="pods")
    parser.add_argument("--image", required=True, help="container image that has resnorm")
    parser.add_argument("--claim", required=True, type=_name, metavar="NAME",
                        help="PersistentVolumeClaim that all pods write")  # fmt: skip
    parser.add_argument("--mount", default="/runs", help="where it is (default: /runs)")
    parser.add_number("--gpus", int, between(1, 64), metavar="N", help="GPUs of each pod")
    parser.add_number("--tpus", int, between(1, 64), metavar="N", help="TPU chips of each pod")
    parser.add_argument("--tpu", metavar="KIND", help="e.g. tpu-v5p-slice; with --tpus")
    parser.add_argument("--topology", metavar="AxB", help="e.g. 2x2x4; with --tpus")
    _common(parser)
    chosen = parser.parse_args(own)
    _check_pods(parser, chosen, theirs)
    from resnorm_jax.launching.jobset import GPU, TPU, JobSet

    accelerator = TPU if chosen.tpus else GPU if chosen.gpus else None
    made = JobSet(
        theirs, chosen.processes, chosen.image, chosen.claim, accelerator,
        chosen.tpus or chosen.gpus or 0, chosen.tpu, chosen.topology, chosen.mount,
        chosen.restarts, chosen.name,
    )  # fmt: skip
    return _written(chosen, made.text(), "kubectl apply -f", ".yaml")


def _check_pods(parser: Parser, chosen: Any, theirs: list[str]) -> None:
    if chosen.tpus and chosen.gpus:
        parser.error("--tpus and --gpus: a pod has one kind; keep one")
    if bool(chosen.tpus) != bool(chosen.tpu) or bool(chosen.tpus) != bool(chosen.topology):
        parser.error("--tpus, --tpu and --topology go together; give all three, or none")
    if not chosen.mount.startswith("/"):
        parser.error(f"--mount: {told(chosen.mount)!r} is no absolute path, e.g. /runs")
    from resnorm_jax.cli.train import _chosen

    workdir = Path(_chosen(theirs[1:])[0]["workdir"])
    if Path(chosen.mount) not in workdir.parents:
        parser.error(
            f"--workdir: {workdir} is not inside --mount={chosen.mount}, which all pods share; write "
            f"--workdir={Path(chosen.mount) / workdir.name}"
        )


def _common(parser: Parser) -> None:
    parser.add_number("--restarts", int, from_zero(1e6), default=100, metavar="N",
                      help="start again at most so often (default: 100)")  # fmt: skip
    parser.add_argument("--name", type=_name, default="resnorm", help="of the job")
    parser.add_argument("--output", type=Path, metavar="FILE", help="file (default: print it)")


def _name(text: str) -> str:
    import argparse

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"{told(text)!r}: give up to 42 of a-z, 0-9 and -, none of - at an end"
        )
    return text


def _slurm_time(text: str) -> str:
    import argparse

    if not re.fullmatch(r"(\d{1,3}-)?\d{1,3}:[0-5]\d:[0-5]\d", text):
        raise argparse.ArgumentTypeError(f"{told(text)!r}: write HH:MM:SS or D-HH:MM:SS")
    return text


def _written(chosen: Any, text: str, submit: str, suffix: str) -> int:
    if chosen.output is None:
        print(text, end="")
        return 0
    from resnorm_jax.reporting.files import write_bytes

    check_file("--output", chosen.output, (suffix,))
    write_bytes(chosen.output, text.encode())
    print(f"{chosen.output}: {submit} {chosen.output}", file=sys.stderr)
    return 0
