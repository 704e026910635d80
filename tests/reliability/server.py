"""A process that has imported the trainer and forks a run for each request: saves the imports' seconds.

No backend of JAX runs in it, so forking is safe. One run at a time. A request is a line of JSON on
stdin; the answers are two lines on stdout: the run's process id, then its exit status as
`os.waitstatus_to_exitcode` gives it.
"""

import importlib
import json
import os
import sys


def serve() -> None:
    from resnorm_jax.cli.main import main as resnorm
    from resnorm_jax.cli.train import main as train
    from resnorm_jax.training import experiment, saved_run  # noqa: F401  imported once, here

    for name in ("matplotlib.pyplot", "tensorboardX"):  # imported late by the product
        importlib.import_module(name)

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.update(request["env"])
            _redirect(request["out"])
            name, *arguments = request["argv"]
            status = train(["train.py", *arguments]) if name == "train" else resnorm(arguments)
            sys.stdout.flush()
            sys.exit(status)
        print(child, file=answers, flush=True)
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), file=answers, flush=True)


def _redirect(path: str) -> None:
    """Let stdout and stderr, those of C++ too, go to a file, and nothing come from stdin."""
    file, nothing = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, 0)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)


if __name__ == "__main__":
    serve()
