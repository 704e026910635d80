"""A bit flipped, a file truncated or deleted, in a finished run: the same result or none.

Every single-bit flip of what this package writes, and some of Orbax' files, whose digests the manifest
has, are tried on the function that reads the file, because whole commands would take days:
`CheckpointStore.restore` and `note` for what lies in a checkpoint, `read_run` for config.json,
`MetricsLog.rewind` to the mark of the newest checkpoint for the log. Whole commands (the training
command once more, and ``resnorm evaluate``) are tried for every file truncated or deleted, and for a
sample of flips.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from reliability import made, runs
from reliability.run_cases import call

ARRAY_FLIPS, COMMAND_FLIPS = 50, 20  # of each array file; through whole commands
OURS = ("config.json", "metrics.jsonl", "manifest.json")  # all bits; of Orbax' metadata some
OTHERS = 1500
EVALUATE = ["resnorm", "evaluate"]
BITS_IF_QUICK = 60
Read = Callable[[], Any]


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Flip, truncate and delete; a few dozen of each if quick."""
    rand = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="resnorm-flips-"))
    run = made.place(folder)
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    by_file: dict[str, dict[str, int]] = {}
    for path, read in _readers(run).items():
        name = path.relative_to(run).as_posix()
        bits = _bits(path, rand, quick)
        found = Counter(_flipped(path, bit, read, bad) for bit in each(bits, name[-40:]))
        by_file[name] = dict(found)
        outcomes += found
    whole = _whole_commands(run, rand, quick, each)
    outcomes += Counter(one.split(":")[0] for one in whole.values())
    shutil.rmtree(folder)
    return {
        "outcomes": dict(outcomes),
        "how": __doc__.split("\n\n", 1)[1].strip(),
        "by_file": by_file,
        "whole_commands": dict(Counter(one.split(":")[0] for one in whole.values())),
        "not_right": bad[:50],
        "commands_not_right": {k: v for k, v in whole.items() if v.split(":")[0] in BAD},
    }


BAD = ("changed", "traceback", "hang")


def _readers(run: Path) -> dict[Path, Read]:
    """Return for each file what reads it: a call whose value must not change unless it refuses."""
    from resnorm_jax.reporting.files import MetricsLog
    from resnorm_jax.training.checkpoint import CheckpointStore
    from resnorm_jax.training.run_directory import read_run

    store = CheckpointStore(run / "checkpoints" / "seed_0" / "last", warn=lambda line: None)
    step = store.steps()[-1]
    like = _state(run)

    def checkpoint() -> Any:
        import jax

        tree = store.restore(step, like)
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        seconds = float(store.note(step)["seconds"])
        return [(jax.tree_util.keystr(p), leaf.tobytes()) for p, leaf in leaves], seconds

    def log() -> Any:
        made = MetricsLog(run / "metrics.jsonl")
        made.rewind(0, store.note(step)["log"])
        return made.rows()

    readers: dict[Path, Read] = {
        run / "config.json": lambda: read_run(run),
        run / "metrics.jsonl": log,
    }
    newest = run / "checkpoints" / "seed_0" / "last" / f"step_{step:09d}"
    readers |= {path: checkpoint for path in sorted(newest.rglob("*")) if path.is_file()}
    return readers


def _state(run: Path) -> Any:
    """The structure of the state that the run saved, as its restart makes it."""
    import orbax.checkpoint as ocp

    newest = sorted((run / "checkpoints" / "seed_0" / "last").iterdir())[-1]
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((newest / "state").resolve())


def _bits(path: Path, rand: random.Random, quick: bool) -> Iterable[int]:
    """All bits of a file that this package writes; some of a file of Orbax."""
    size = path.stat().st_size * 8
    if path.parent.name == "d":
        return [rand.randrange(size) for _ in range(10 if quick else ARRAY_FLIPS)]
    some = BITS_IF_QUICK if quick else size if path.name in OURS else OTHERS
    return range(size) if some >= size else rand.sample(range(size), some)


def _flipped(path: Path, bit: int, read: Read, bad: list[str]) -> str:
    """Flip a bit, read, flip it back; return what came of it."""
    wanted = _known(path, read)
    _flip(path, bit)
    try:
        outcome, detail = _read(read, wanted)
    finally:
        _flip(path, bit)
    if outcome in BAD:
        bad.append(f"{path.name} bit {bit}: {outcome} {detail}")
    return outcome


def _read(read: Read, wanted: Any) -> tuple[str, str]:
    from resnorm_jax.errors import UserError
    from resnorm_jax.training.checkpoint import DamagedCheckpointError

    try:
        return ("same" if read() == wanted else "changed"), ""
    except (UserError, DamagedCheckpointError):
        return "found", ""
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"[:150]


_wanted: dict[Path, Any] = {}


def _known(path: Path, read: Read) -> Any:
    if path not in _wanted:
        _wanted[path] = read()
    return _wanted[path]


def _flip(path: Path, bit: int) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(file, 1, bit // 8)[0]
        os.pwrite(file, bytes([byte ^ 1 << bit % 8]), bit // 8)
    finally:
        os.close(file)


def _whole_commands(run: Path, rand: random.Random, quick: bool, each) -> dict[str, str]:
    """Damage a copy of the run, start the training command again, and evaluate it."""
    files = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())
    files = [name for name in files if not name.startswith(("tensorboard", "run.lock"))]
    damages: list[tuple[str, str, Callable[[Path], Any]]] = []
    for name in files:
        size = (run / name).stat().st_size
        cut = rand.randrange(size)
        damages.append((name, f"cut at {cut}", lambda p, cut=cut: os.truncate(p, cut)))
        damages.append((name, "deleted", Path.unlink))
    for _ in range(COMMAND_FLIPS):
        name = rand.choice(files)
        bit = rand.randrange((run / name).stat().st_size * 8)
        damages.append((name, f"bit {bit}", lambda p, bit=bit: _flip(p, bit)))
    if quick:
        damages = rand.sample(damages, 4)
    wanted = runs.left_behind(run)
    return {
        f"{name} {what}": _restarted(run, name, damage, wanted)
        for name, what, damage in each(damages, "whole commands")
    }


def _restarted(run: Path, name: str, damage: Callable[[Path], Any], wanted: Any) -> str:
    """Return ``same``, ``found`` (refused), or what is wrong with a restart after damage."""
    folder = Path(tempfile.mkdtemp(prefix="resnorm-flip-"))
    try:
        copy = shutil.copytree(run, folder / "run")
        damage(copy / name)
        status, _, err = call([*EVALUATE, str(copy)])
        if status is None:
            return f"traceback: evaluate: {err.strip().splitlines()[-1][:150]}"
        status, out, err = call(list(made.command(workdir=str(copy))))
        if status is None:
            return f"traceback: train: {err.strip().splitlines()[-1][:150]}"
        if status == 2:
            return "found"
        differ = runs.differences(wanted, runs.left_behind(copy))
        if status or differ:
            return f"changed: status {status}, {differ[:3]}"
        return "fell back" if "set aside" in out else "same"
    finally:
        shutil.rmtree(folder)
