"""Runs a wrong input inside this process, within limits of time and memory, and judges the outcome.

``from reliability.run_cases import run`` works wherever ``tests`` is on the path, as in pytest.
"""

import contextlib
import hashlib
import importlib
import io
import os
import re
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from reliability.case import Case

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
SECONDS = 5.0  # of the processor: the wall clock of a busy machine says little
WALL_SECONDS = 20.0
PATIENT = 600.0  # wall-clock seconds of a call in a test, which must not fail on a busy machine
MEGABYTES = 1000.0
SMALL = {
    "model.width": "8",
    "model.depth": "1",
    "model.heads": "2",
    "train.steps": "1",
    "train.batch_size": "8",
    "devices": "1",
}
OUTCOMES = {
    "right": "one line that names the place, the status, nothing written",
    "traceback": "an error of a library or of Python",
    "hang": f"no answer in {SECONDS:.0f} seconds",
    "memory": f"more than {MEGABYTES:.0f} MB",
    "accepted": "nonsense taken, status 0",
    "refused": "a valid input refused",
    "written": "refused, but files were written or changed",
    "unclear": "a line that does not name the place or the fix, or several lines",
}


@dataclass(frozen=True)
class Result:
    """What came of a case."""

    name: str
    outcome: str
    status: int | None
    line: str  # what was printed to stderr, or the last line of a traceback
    seconds: float
    megabytes: float


class TimeUpError(BaseException):
    """The time of a case is over; no handler of the product catches it."""


class TrainingBeganError(BaseException):
    """All that is checked before training was checked."""


def run(
    case: Case, directory: Path, processor_limit: float = PATIENT, wall_limit: float = PATIENT
) -> Result:
    """Run a case in an empty directory; the product is called as its commands call it.

    The limits are in seconds; ``table.py`` gives SECONDS and WALL_SECONDS.
    """
    if case.files is not None:
        case.files(directory)
    before = snapshot(directory)
    began, processor, memory = time.monotonic(), time.process_time(), _memory_reset()
    # Of a new run no step is waited for: what is being trained was accepted.
    fresh = case.status != 0 and not (directory / "run").exists()
    status, out, err = call(command(case, directory), wall_limit, stop_at_first_step=fresh)
    spent = time.process_time() - processor
    megabytes = max(0.0, _memory("VmHWM") - memory)
    written = sorted(_differ(before, snapshot(directory)))
    outcome = _outcome(case, directory, status, out, err, written)
    if outcome in ("right", "unclear", "written") and case.status:
        outcome = (
            "hang" if spent > processor_limit else "memory" if megabytes > MEGABYTES else outcome
        )
    line = err.strip() if status is not None else (err.strip().splitlines() or [""])[-1]
    line += f" [written: {', '.join(written[:3])}]" if outcome == "written" else ""
    return Result(case.name, outcome, status, line, time.monotonic() - began, megabytes)


def warm() -> None:
    """Import what the product imports late, so that no time limit ends an import halfway."""
    for name in ("resnorm_jax.training.experiment", "matplotlib.pyplot", "tensorboardX"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def command(case: Case, directory: Path) -> list[str]:
    """Return the command line, with the directory and what makes a model small put in."""
    places = {"{d}": str(directory), "{configs}": str(CONFIGS)}
    argv = [re.sub(r"\{d\}|\{configs\}", lambda m: places[m.group()], a) for a in case.argv]
    if argv[0] == "train" and not {"-h", "--help"} & set(argv):
        text = " ".join(argv)
        argv += [] if "--workdir" in text else [f"--workdir={directory}/run"]
        argv += [
            f"--config.{path}={value}"
            for path, value in SMALL.items()
            if not re.search(rf"\b{path.split('.')[-1]}[= ]", text)
            and not (path == "train.steps" and re.search(r"\bepochs[= ]", text))
        ]
    return argv


def call(
    argv: list[str], seconds: float = PATIENT, stop_at_first_step: bool = False
) -> tuple[int | None, str, str]:
    """Call ``train`` or ``resnorm``; return status, stdout, stderr.

    The status is None for an exception that came out, whose traceback is then in stderr; it is 0 for
    a run that was stopped at its first step.
    """
    out, err = io.StringIO(), io.StringIO()
    entry = _entry(argv[0])
    begun = _stopped_at_first_step() if stop_at_first_step else contextlib.nullcontext()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with begun, _limits(seconds):
                status = entry(argv[1:])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except TrainingBeganError:
            status = 0
        except TimeUpError:
            status = None
            err.write("\nTimeUpError")
        except BaseException as error:
            status = None
            name, text = type(error).__name__, " ".join(str(error).split())
            err.write(f"\n{traceback.format_exc()}\n{name}: {text}")
    return status, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _stopped_at_first_step() -> Iterator[None]:
    from resnorm_jax.training.devices import DataParallel

    def begun(*_):
        raise TrainingBeganError

    with mock.patch.object(DataParallel, "train", begun):
        yield


def snapshot(directory: Path) -> dict[str, str]:
    """Return what lies in a directory: each name with the digest of its content."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if "__pycache__" in name or not os.path.lexists(path):
            continue
        content = os.readlink(path) if path.is_symlink() else path.stat().st_mode
        if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = str(content)
    return found


def _differ(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def _entry(name: str) -> Callable[[list[str]], int]:
    if name == "train":
        from resnorm_jax.cli.train import main

        return lambda arguments: main(["train.py", *arguments])
    from resnorm_jax.cli.main import main as resnorm

    return resnorm


def _outcome(case: Case, directory: Path, status, out: str, err: str, written: list[str]) -> str:
    if status is None and err.endswith("TimeUpError"):  # one that is being trained was accepted
        return "accepted" if written else "hang"
    if status is None:
        return "traceback"
    if status == 0 and case.status:
        return "accepted"
    says = case.says.replace("{d}", re.escape(str(directory)))
    if case.status == 0:
        return "right" if status == 0 and re.search(says, out + err) else "refused"
    if written:
        return "written"
    line = err.strip()
    if status != case.status or "\n" in line or not re.search(says, line):
        return "unclear"
    return "right"


@contextlib.contextmanager
def _limits(seconds: float) -> Iterator[None]:
    """Raise TimeUpError when the time is over; refuse memory far beyond the limit."""

    def over(*_):
        raise TimeUpError

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, over)
    resource.setrlimit(resource.RLIMIT_AS, (int((_memory("VmSize") + 4000) * 2**20), hard))
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # and again, if someone swallows it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _memory(key: str) -> float:
    """A figure of this process in MB; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    found = re.search(rf"{key}:\s*(\d+) kB", status.read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def _memory_reset() -> float:
    """Forget the peak so far; return the memory in use."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")
