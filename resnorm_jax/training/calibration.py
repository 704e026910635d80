"""The temperature of a run's seed: fitted when it is scored, kept beside its checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import DamagedFileError, read_sealed, write_sealed
from resnorm_jax.training.run_directory import seed_directory

NAME = "calibration.json"
AGAIN = "start the training command again"


def calibration_file(workdir: Path, seed: int) -> Path:
    """Return where a seed's temperature lies."""
    return seed_directory(workdir, seed, NAME)


def write_calibration(
    workdir: Path, seed: int, step: int, kind: str, found: Mapping[str, Any]
) -> None:
    """Keep what `resnorm_jax.reporting.calibration.calibration` found for a checkpoint."""
    write_sealed(calibration_file(workdir, seed), {**found, "step": step, "kind": kind})


def read_calibration(workdir: Path, seed: int, step: int, kind: str) -> dict[str, Any] | None:
    """Return what was found for a checkpoint; None where nothing was, or for another one.

    Raises:
      UserError: the file is damaged.
    """
    path = calibration_file(workdir, seed)
    try:
        found = read_sealed(path, frozenset())
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        raise UserError(f"{path}: {error}; remove it, and {AGAIN}") from None
    return found if (found.get("step"), found.get("kind")) == (step, kind) else None


def calibration_line(found: Mapping[str, Any] | None) -> str:
    """Return one line on a temperature, or on why there is none."""
    if found is None:
        return (
            "not calibrated: no temperature was fitted for this checkpoint; train with "
            f"train.validation=0.2 or, if the run has validation rows, {AGAIN}"
        )
    rows = f"{found['rows']} validation rows"
    if found["temperature"] is None:
        return f"not calibrated: no temperature is best for the {rows}"
    before, after = (found[k]["expected_calibration_error"] for k in ("before", "after"))
    return (
        f"calibrated by temperature {found['temperature']:.3f}, fitted on {rows}: their expected "
        f"calibration error was {before:.4f}, is {after:.4f}"
    )
