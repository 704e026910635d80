"""Tiny runs in processes of their own, what they leave behind, and whether two of them are equal."""

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TIMES = ("train_seconds", "examples_per_second", "seconds", "phases", "compiled_programs")
"""Keys of a report that tell of time, or of how many programs one sitting compiled."""


def environment(devices: int = 1) -> dict[str, str]:
    """The variables of a run on some fake devices; compiled programs are kept between runs."""
    cache = Path(tempfile.gettempdir()) / "resnorm_jax-reliability"
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": f"{cache}-{os.getuid()}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)]),
        "COLUMNS": "200",
    }


def arguments(preset: str, workdir: Path, *more: str) -> list[str]:
    """The command line of a tiny run, for `Server.start` or `process`."""
    return ["train", f"--config={HERE / 'config_tiny.py'}:{preset}", f"--workdir={workdir}", *more]


@dataclass
class Ended:
    """How a run ended; a negative status is the signal that ended it."""

    status: int
    text: str
    seconds: float


class Server:
    """Forks runs from a process that has imported everything; see server.py. One at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment()},
            bufsize=0,
        )
        self._read = b""

    def _line(self, timeout: float | None) -> int | None:
        """Return the next number that the server wrote; None if there is none in time."""
        while b"\n" not in self._read:
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                return None
            self._read += os.read(self._process.stdout.fileno(), 4096)
        line, self._read = self._read.split(b"\n", 1)
        return int(line)

    def send(self, argv: list[str], out: Path, devices: int = 1, pause: Any = None) -> None:
        """Ask for a run; `started` says its process id."""
        request = {"argv": argv, "env": environment(devices), "out": str(out), "pause": pause}
        self._out, self._began = out, time.monotonic()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def started(self) -> int:
        """Wait until the run that was asked for has started; return its process id."""
        self.pid = self._line(None)
        return self.pid

    def start(self, argv: list[str], out: Path, devices: int = 1, pause: Any = None) -> int:
        """Start a run; return its process id.

        ``pause`` is ``(module, attribute, call, marker)``: at the n-th call of a function the run
        makes the file ``marker`` and waits until it is removed.
        """
        self.send(argv, out, devices, pause)
        return self.started()

    def running(self) -> bool:
        """Whether the run that was started last has not ended yet."""
        return b"\n" not in self._read and not select.select([self._process.stdout], [], [], 0)[0]

    def wait(self, timeout: float = 120) -> Ended:
        """Wait for the run's end; kill it when it takes longer (status -9)."""
        status = self._line(timeout)
        if status is None:
            os.kill(self.pid, 9)
            status = self._line(None)
        text = self._out.read_text(errors="replace")
        return Ended(status, text, time.monotonic() - self._began)

    def run(self, argv: list[str], out: Path, devices: int = 1) -> Ended:
        """Start a run and wait for its end."""
        self.start(argv, out, devices)
        return self.wait()

    def close(self) -> None:
        """End the server; a run that goes on is not ended."""
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def process(argv: list[str], out: Path, devices: int = 1) -> subprocess.Popen:
    """Start ``python train.py`` or ``resnorm`` as a user would: imports included."""
    name, *rest = argv
    start = [str(ROOT / "train.py")] if name == "train" else ["-m", "resnorm_jax.cli.main"]
    with out.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *start, *rest],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env={**os.environ, **environment(devices)},
        )


def left_behind(workdir: Path) -> dict[str, Any]:
    """What a run gives, but for times: parameters and optimizer state by leaf, log, report.

    Reads the arrays of the newest checkpoints themselves, not the product's word for them.
    """
    found: dict[str, Any] = {}
    for name in ("metrics.jsonl", "config.json"):
        with contextlib.suppress(FileNotFoundError):
            found[name] = (workdir / name).read_text()
    with contextlib.suppress(FileNotFoundError):
        found["report.json"] = _without_times(json.loads((workdir / "report.json").read_text()))
    for file in sorted((workdir / "checkpoints").glob("seed_*/*.json")):  # how it is calibrated
        found[file.relative_to(workdir).as_posix()] = file.read_text()
    for kind in sorted(p for p in (workdir / "checkpoints").glob("seed_*/*") if p.is_dir()):
        steps = sorted(p for p in kind.iterdir() if p.name.startswith("step_") and not p.suffix)
        where = kind.relative_to(workdir).as_posix()
        if steps:
            found[where] = (steps[-1].name, leaves(steps[-1]))
    return found


def arrays(checkpoint: Path) -> dict[str, Any]:
    """Every array of a checkpoint by its path in the tree, on the host, whoever wrote which part."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    place = (checkpoint / "state").resolve()
    with ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.metadata(place).item_metadata.tree
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found)
        tree = checkpointer.restore(place, restore_args=args)
    known = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in known}


def leaves(checkpoint: Path) -> dict[str, str]:
    """The digest of every array of a checkpoint, by its path in the tree."""
    digests = {}
    for path, array in arrays(checkpoint).items():
        text = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
        digests[path] = hashlib.sha256(text).hexdigest()
    return digests


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of what differs, leaf by leaf for checkpoints; empty if all is equal, bit for bit."""
    differ = []
    for name in sorted({*wanted, *found}):
        a, b = wanted.get(name), found.get(name)
        if a == b:
            continue
        if isinstance(a, tuple) and isinstance(b, tuple):
            differ += [f"{name}: {a[0]} != {b[0]}"] if a[0] != b[0] else []
            paths = sorted({*a[1], *b[1]})
            differ += [f"{name}{p}" for p in paths if a[1].get(p) != b[1].get(p)]
        else:
            differ.append(name)
    return differ


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value
