"""Files of a run that survive a kill at any moment: JSON documents and the log of metrics."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnorm_jax.errors import UserError

ROW_KEYS = ("seed", "split", "step")
"""What each row of a metrics log must hold."""


def to_plain(value: Any) -> Any:
    """Return ``value`` in terms of JSON: arrays as lists, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return to_plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON: {value!r}")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace a file as a whole: a reader, or a kill, sees the old content or the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same directory, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, obj: Any) -> None:
    """Write ``obj`` as JSON with sorted keys, atomically."""
    text = json.dumps(to_plain(obj), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def _line(row: Mapping[str, Any]) -> bytes:
    plain = to_plain(row)
    return (json.dumps(plain, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


class MetricsLog:
    """A log of metrics in JSON lines, each row with ``seed``, ``step`` and ``split``.

    Rows hold only values that the config and the seed determine (no times of day, no durations), so
    that two runs of one config write the same bytes. A kill in the middle of a write leaves half a
    line at the end of the file; every method ignores or removes it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._whole = False

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row with one write, and hand it to the operating system at once."""
        missing = [key for key in ROW_KEYS if key not in row]
        if missing:
            raise ValueError(f"a row of {self.path.name} lacks {', '.join(missing)}: {dict(row)}")
        if not self._whole:
            self._repair()
        with self.path.open("ab", buffering=0) as file:
            file.write(_line(row))

    def rows(self) -> list[dict[str, Any]]:
        """Return all whole rows, in the order of writing; none when there is no file."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        found = []
        for number, line in enumerate(lines, start=1):
            row = _parse(line)
            if row is not None:
                found.append(row)
            elif line.strip() and number < len(lines):  # past the last newline: half-written
                raise UserError(f"{self.path}:{number}: not a row of metrics; remove this line")
        return found

    def truncate(self, seed: int, step: int) -> None:
        """Drop the rows of ``seed`` past ``step``, and a half-written last line, atomically."""
        if self.path.exists():
            kept = [row for row in self.rows() if row["seed"] != seed or row["step"] <= step]
            self._rewrite(kept)

    def _repair(self) -> None:
        """End the file with a whole line, so that the next row starts a line of its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            self._rewrite(self.rows())
        self._whole = True

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_bytes(self.path, b"".join(map(_line, rows)))
        self._whole = True


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the row on this line, or None if it is not one."""
    try:
        row = json.loads(line)
    except ValueError:  # covers broken JSON and half of a UTF-8 character
        return None
    return row if isinstance(row, dict) and all(key in row for key in ROW_KEYS) else None
