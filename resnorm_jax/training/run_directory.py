"""The run directory: what is in it, and whose it is."""

import json
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from resnorm_jax.config import Config, from_dict
from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import write_json

CONFIG = "config.json"
PACKAGES = ("resnorm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide a run's numbers."""
    return {name: metadata.version(name) for name in PACKAGES}


def open_run(workdir: Path, config: Config, meta: dict[str, Any], devices: list[Any]) -> None:
    """Claim a directory for a run, or check that it holds this very run.

    Args:
      workdir: new, empty, or the directory of a run with the same config.
      config: of the run.
      meta: of the data, needed to prepare inputs for prediction.
      devices: that the run uses.

    Raises:
      UserError: if the directory holds something else. Nothing is written then.
    """
    path = workdir / CONFIG
    if path.exists():
        _check_same(path, config)
        return
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(f"--workdir: {workdir} holds other files; name a new directory")
    workdir.mkdir(parents=True, exist_ok=True)
    runtime = {"backend": devices[0].platform, "kind": devices[0].device_kind}
    write_json(
        path,
        {
            "config": asdict(config),
            "data": meta,
            "runtime": {**runtime, "devices": len(devices), "versions": versions()},
        },
    )


def read_run(workdir: Path) -> tuple[Config, dict[str, Any]]:
    """Return the config and the data's metadata of a finished or running run.

    Raises:
      UserError: if there is no run in the directory.
    """
    path = workdir / CONFIG
    try:
        stored = json.loads(path.read_text())
        return from_dict(stored["config"]), stored["data"]
    except FileNotFoundError:
        raise UserError(f"{workdir}: not a run directory: it has no {CONFIG}") from None
    except (ValueError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read as a run's config ({error})") from None


def _check_same(path: Path, config: Config) -> None:
    try:
        stored = _flat(json.loads(path.read_text())["config"])
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a run's config ({error})") from None
    wanted = _flat(json.loads(json.dumps(asdict(config))))
    differ = [k for k in sorted({*stored, *wanted}) if stored.get(k) != wanted.get(k)]
    if differ:
        key = differ[0]

        def shown(values: dict[str, Any]) -> str:
            return repr(values[key]) if key in values else "not set"

        more = f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""
        raise UserError(
            f"--workdir: {path.parent} holds another run: its config.{key} is {shown(stored)}, "
            f"this one's {shown(wanted)}{more}; name a new directory"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def seed_directory(workdir: Path, seed: int, kind: str) -> Path:
    """Return where a seed's checkpoints lie; ``kind`` is ``"last"`` or ``"best"``."""
    return workdir / "checkpoints" / f"seed_{seed}" / kind
