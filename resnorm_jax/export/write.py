"""``resnorm export``: a folder that is there only once it was loaded again and checked."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnorm_jax.data import Examples
from resnorm_jax.errors import UserError
from resnorm_jax.export.check import (
    MOST,
    as_parameters,
    largest_difference,
    random_rows,
    real_rows,
)
from resnorm_jax.export.description import NAME, describe_export, digests
from resnorm_jax.export.formats import FORMATS
from resnorm_jax.export.loaded import load_exported
from resnorm_jax.export.program import program
from resnorm_jax.reporting.files import write_sealed, writing
from resnorm_jax.training.saved_run import Trained


@dataclass(frozen=True)
class Checked:
    """What was found: rows by kind, and the largest difference of log-probabilities."""

    rows: dict[str, int]
    difference: float
    most: float

    def line(self) -> str:
        """Return it in words."""
        counts = " and ".join(f"{n} {kind}" for kind, n in self.rows.items())
        return (
            f"loaded again and checked on {counts} rows: log-probabilities differ by "
            f"{self.difference:.1e} at most (allowed: {self.most:g})"
        )


def export(trained: Trained, folder: Path, form: str, rows: Examples | None = None) -> Checked:
    """Export a run's model.

    Args:
      trained: the run.
      folder: new or empty; written as a whole, after the check.
      form: one of `FORMATS`.
      rows: to check on beside random ones; the run's test rows if None.

    Raises:
      UserError: a library is missing, the data are not there, or what was written does not compute
        what the model computes. There is no folder then.
    """
    made = program(trained)
    examples = {"random": random_rows(trained, made), "real": rows or real_rows(trained)}
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", dir=folder.parent))
    try:
        about = describe_export(trained, made, form) | FORMATS[form].write(made, place)
        about["files"] = digests(place)
        write_sealed(place / NAME, about)
        found = _check(trained, place, about, examples)
        write_sealed(place / NAME, about | {"checked": vars(found)})
        with writing(folder):
            place.chmod(0o755)
            place.rename(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return found


def _check(
    trained: Trained, place: Path, about: dict[str, Any], examples: dict[str, Examples]
) -> Checked:
    exported = (
        as_parameters(trained, place, about)
        if FORMATS[about["format"]].read is None
        else load_exported(place)
    )
    found = Checked(
        {kind: len(rows) for kind, rows in examples.items()},
        max(largest_difference(trained, exported, rows) for rows in examples.values()),
        MOST[trained.config.train.precision],
    )
    if not found.difference <= found.most:
        raise UserError(
            f"--format={about['format']}: {found.line()}; nothing is kept: export another format, and "
            "report this"
        )
    return found
