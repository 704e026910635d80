"""Finished tiny runs, made once for this state of the code and copied into a case's directory."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from reliability import runs
from reliability.run_cases import ROOT, call

STEPS = {"short": 2, "short_best": 2}


def command(preset: str = "short", workdir: str = "{d}/run") -> tuple[str, ...]:
    """The command that made a run; the same command again goes on with it."""
    config = f"--config={runs.HERE / 'config_tiny.py'}:{preset},steps={STEPS[preset]}"
    small = ("model.width=8", "model.depth=1", "model.heads=2", "train.batch_size=8", "devices=1")
    return ("train", config, f"--workdir={workdir}", *(f"--config.{setting}" for setting in small))


def place(directory: Path, preset: str = "short") -> Path:
    """Copy a finished run to ``directory/run`` and return that path."""

    def train(workdir: Path) -> None:
        status, out, err = call(list(command(preset, str(workdir))))
        assert status == 0, out + err

    return shutil.copytree(kept(preset, train), directory / "run", symlinks=True)


def kept(name: str, train: Callable[[Path], None]) -> Path:
    """Return a run directory that ``train`` made, now or earlier for this state of the code."""
    made = _cache() / name
    if not made.exists():
        partial = Path(tempfile.mkdtemp(dir=_cache()))
        train(partial / "run")
        try:
            os.replace(partial / "run", made)
        except OSError:  # another process was faster
            assert made.exists()
        shutil.rmtree(partial)
    return made


def _cache() -> Path:
    """A folder for runs of this very code."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "resnorm_jax").rglob("*.py"), runs.HERE / "config_tiny.py"]):
        digest.update(path.read_bytes())
    name = f"resnorm_jax-runs-{os.getuid()}-{digest.hexdigest()[:16]}"
    cache = Path(tempfile.gettempdir()) / name
    cache.mkdir(exist_ok=True)
    return cache
