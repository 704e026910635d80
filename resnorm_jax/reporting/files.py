"""Files of a run that survive a kill at any moment: JSON documents and the log of metrics."""

import errno
import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnorm_jax.errors import UserError

ROW_KEYS = {"seed": int, "split": str, "step": int}
"""What each row of a metrics log must hold."""
TEMPORARY = ".{}.{}.tmp"
"""A file that is being written: its name, and who writes it."""
SEAL = "sha256"
Mark = dict[str, Any]


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


class DamagedFileError(ValueError):
    """A file that this package wrote is not as it was written."""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Tell what the operating system refuses as one line that names the file.

    Raises:
      UserError: no space is left, no permission, a name that is too long, and the like.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error


def cannot_write(path: str | Path, why: str) -> UserError:
    """Return the error of a file that could not be written."""
    return UserError(
        f"{path}: cannot be written ({why}); what was saved before is whole: mend this and start the "
        "same command again"
    )


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace a file as a whole: a reader, or a kill, sees the old content or the new.

    Raises:
      UserError: it cannot be written.
    """
    path = Path(path)
    # In the same directory, because a rename is atomic only within one file system.
    temporary = path.with_name(TEMPORARY.format(path.name[:150], os.getpid()))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk, where the file system can."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, obj: Any) -> None:
    """Write ``obj`` as JSON with sorted keys, atomically."""
    text = json.dumps(to_plain(obj), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_sealed(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object with a digest of itself, which `read_sealed` checks."""
    plain = to_plain(values)
    write_json(path, {**plain, SEAL: _digest(plain)})


def read_sealed(path: str | Path, unsealed: frozenset[str]) -> dict[str, Any]:
    """Return the object that `write_sealed` wrote.

    Args:
      path: of the file.
      unsealed: the exact keys of such files from before there were digests, which have none.

    Raises:
      FileNotFoundError: there is none.
      DamagedFileError: it is not what was written.
    """
    try:
        values = json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise DamagedFileError(f"holds a JSON {type(values).__name__}, not an object")
    if frozenset(values) == unsealed:
        return values
    seal = values.pop(SEAL, None)
    if seal != _digest(values):
        raise DamagedFileError(
            f"its digest {SEAL} does not fit: it was changed after it was written"
        )
    return values


def read_regular(path: str | Path) -> bytes:
    """Return what a file holds.

    Raises:
      FileNotFoundError: there is none.
      DamagedFileError: it cannot be read, or is a directory or a pipe, which would not end.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DamagedFileError("cannot be read: it is no regular file")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(*error.args) from None
    except OSError as error:
        raise DamagedFileError(f"cannot be read: {error.strerror}") from error


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _line(row: Mapping[str, Any]) -> bytes:
    plain = to_plain(row)
    return (json.dumps(plain, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _mark(rows: list[dict[str, Any]]) -> Mark:
    """Chain the rows: the digest of each covers the one before, so that one more row is cheap."""
    return functools.reduce(_next_mark, map(_line, rows), {"rows": 0, "sha256": ""})


def _next_mark(mark: Mark | None, line: bytes) -> Mark:
    mark = mark or _mark([])
    chained = hashlib.sha256(mark["sha256"].encode() + line).hexdigest()
    return {"rows": mark["rows"] + 1, "sha256": chained}


class MetricsLog:
    """A log of metrics in JSON lines, each row with ``seed``, ``step`` and ``split``.

    Rows hold only values that the config and the seed determine (no times of day, no durations), so
    that two runs of one config write the same bytes. A kill in the middle of a write leaves half a
    line at the end of the file; every method ignores or removes it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._whole = False
        self._marks: dict[int, Mark] = {}

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row with one write, and hand it to the operating system at once."""
        missing = [key for key in ROW_KEYS if key not in row]
        if missing:
            raise ValueError(f"a row of {self.path.name} lacks {', '.join(missing)}: {dict(row)}")
        if not self._whole:
            self._repair()
        line = _line(row)
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            if file.write(line) < len(line):  # as much as fits on a full disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._marks[row["seed"]] = _next_mark(self._marks.get(row["seed"]), line)

    def rows(self) -> list[dict[str, Any]]:
        """Return all whole rows, in the order of writing; none when there is no file."""
        try:
            lines = read_regular(self.path).split(b"\n")
        except FileNotFoundError:
            return []
        except DamagedFileError as error:
            raise UserError(f"{self.path}: {error}; restore it from a copy") from None
        found = []
        for number, line in enumerate(lines, start=1):
            row = _parse(line)
            if row is not None:
                found.append(row)
            elif line.strip() and number < len(lines):  # past the last newline: half-written
                raise UserError(
                    f"{self.path}:{number}: not a row of metrics; restore the file from a copy, or "
                    "name a new --workdir"
                )
        return found

    def mark(self, seed: int) -> Mark:
        """Return what stands for all rows of a seed so far: ``rows``, their number, and ``sha256``."""
        return self._marks.get(seed) or _mark([])

    def rewind(self, seed: int, mark: Mark) -> None:
        """Drop the rows of a seed that were written after its log was marked.

        Raises:
          UserError: those before are missing, or not what they were. Nothing is changed.
        """
        rows = [row for row in self.rows() if row["seed"] == seed]
        if _mark(rows[: mark["rows"]]) != mark:
            raise UserError(
                f"{self.path}: its first {mark['rows']} rows of seed {seed} are not those that the "
                f"checkpoint was saved with ({len(rows)} found); restore the file from a copy, or "
                "name a new --workdir"
            )
        if len(rows) > mark["rows"]:
            number = itertools.count()
            self._rewrite(
                [r for r in self.rows() if r["seed"] != seed or next(number) < mark["rows"]]
            )
        self._marks[seed] = mark

    def truncate(self, seed: int, step: int) -> None:
        """Drop the rows of ``seed`` past ``step``, and a half-written last line, atomically."""
        if self.path.exists():
            kept = [row for row in self.rows() if row["seed"] != seed or row["step"] <= step]
            self._rewrite(kept)
            self._marks[seed] = _mark([row for row in kept if row["seed"] == seed])

    def _repair(self) -> None:
        """End the file with a whole line, so that the next row starts a line of its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            self._rewrite(self.rows())
        self._whole = True

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_bytes(self.path, b"".join(map(_line, rows)))
        self._whole = True


class SilentLog(MetricsLog):
    """The log of a process that leaves writing to another."""

    def append(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def rows(self) -> list[dict[str, Any]]:
        """Return none."""
        return []

    def rewind(self, seed: int, mark: Mark) -> None:
        """Do nothing."""

    def truncate(self, seed: int, step: int) -> None:
        """Do nothing."""


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the row on this line, or None if it is not one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # covers broken JSON and half of a UTF-8 character
        return None
    whole = isinstance(row, dict) and all(type(row.get(k)) is t for k, t in ROW_KEYS.items())
    return row if whole else None
