"""From the bytes of a request to rows that a model can take."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from resnorm_jax.data import Examples
from resnorm_jax.data.given import check_text
from resnorm_jax.data.inputs import given_inputs, read_inputs
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.schema import told
from resnorm_jax.serving.limits import Limits, Refused

SUFFIXES = (".csv", ".jsonl", ".ts")  # .npz is packed: what it unpacks to is not told by its size
TEXTS = (".csv", ".jsonl")  # of those, for texts
FIELDS = ("rows", "top", "calibrated")


@dataclass(frozen=True)
class Question:
    """What is asked: rows, prepared; how many classes to tell; whether to calibrate."""

    examples: Examples
    top: int
    calibrated: bool


@dataclass(frozen=True)
class Reader:
    """Reads questions for one model.

    Attributes:
      meta: what prepares inputs.
      limits: of a request.
      longest: most positions of a row.
    """

    meta: Mapping[str, Any]
    limits: Limits
    longest: int

    @property
    def texts(self) -> bool:
        """Whether a text is a row."""
        return bool(self.meta["encoding"])

    @property
    def pairs(self) -> bool:
        """Whether a row is two texts."""
        return bool(self.texts and self.meta["encoding"].get("pair_column"))

    def json(self, body: bytes) -> Question:
        """Read ``{"rows": [...], "top": 3, "calibrated": true}``.

        Raises:
          Refused: 400 for what is no JSON, 422 for what is not as it should be, naming the field.
        """
        values = parsed(body)
        if not isinstance(values, dict):
            raise Refused(422, 'give an object {"rows": [...]}', "body")
        for name in values:
            if name not in FIELDS:
                raise Refused(422, f"unknown; {nearest(name, FIELDS)}", told(name))
        if "rows" not in values:
            raise Refused(422, "missing; give a list of rows", "rows")
        calibrated = values.get("calibrated", True)
        if not isinstance(calibrated, bool):
            raise Refused(422, f"{told(repr(calibrated))}; give true or false", "calibrated")
        return Question(self.rows(values["rows"]), self.top(values.get("top")), calibrated)

    def top(self, value: Any) -> int:
        """Return how many classes are to be told: all if None."""
        most = len(self.meta["classes"])
        if value is None:
            return most
        if type(value) is not int or not 1 <= value <= most:
            raise Refused(422, f"{told(repr(value))}; give a whole number from 1 to {most}", "top")
        return value

    def rows(self, values: Any, field: str = "rows") -> Examples:
        """Return rows given as texts or numbers, prepared."""
        if not isinstance(values, list) or not values:
            raise Refused(422, "give a list of at least one row", field)
        self._count(len(values), field)
        try:
            for number, value in enumerate(values, start=1):
                for text in texts_of(value):
                    self._text(f"row {number}", text, field)
            return self._fitting(given_inputs(values, self.meta), field)
        except UserError as error:
            raise Refused(422, str(error), field) from None

    def file(self, name: str, content: bytes) -> Examples:
        """Return the rows of a file that was sent; of its name only the suffix is used."""
        suffix, known = Path(name).suffix.lower(), suffixes(self.meta)
        if suffix not in known:
            raise Refused(422, f"send a {', '.join(known[:-1])} or {known[-1]} file", "file")
        with tempfile.TemporaryDirectory(prefix="resnorm-serve-") as folder:
            path = Path(folder) / f"file{suffix}"
            path.write_bytes(content)
            try:
                examples = read_inputs(path, self.meta)
            except UserError as error:
                line = str(error).replace(f"{folder}/", "").replace(folder, "")
                raise Refused(422, line, "file") from None
        self._count(len(examples), "file")
        return self._fitting(examples, "file")

    def _count(self, rows: int, field: str) -> None:
        if rows > self.limits.rows:
            raise Refused(413, f"{rows} rows; send at most {self.limits.rows} at a time", field)

    def _text(self, where: str, text: str, field: str) -> None:
        if not self.texts:
            self._wrong_kind(where, field)
        if len(text) > self.limits.characters:
            raise Refused(
                413,
                f"{where}: {len(text)} characters; send at most {self.limits.characters}",
                field,
            )
        check_text(where, text)

    def _wrong_kind(self, where: str, field: str) -> NoReturn:
        raise Refused(422, f"{where}: a text; this model reads {self.meta['kind']}", field)

    def _fitting(self, examples: Examples, field: str) -> Examples:
        if self.meta["kind"] != "images" and (examples.lengths > self.longest).any():
            row = int(np.argmax(examples.lengths > self.longest))
            raise Refused(
                422, f"row {row + 1} has {examples.lengths[row]} positions; at most {self.longest} "
                "are served", field,
            )  # fmt: skip
        return examples


def suffixes(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the kinds of files that a model takes rows from."""
    return TEXTS if meta["encoding"] else SUFFIXES


def texts_of(value: Any) -> list[str]:
    """Return the texts of a row: one, or those of a pair; none where it is no text."""
    if isinstance(value, str):
        return [value]
    pair = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    return value if pair else []


def parsed(body: bytes | str, field: str = "body") -> Any:
    """Return what JSON says.

    Raises:
      Refused: 400, it is not JSON, or holds NaN or Infinity.
    """

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(body, parse_constant=constant)
    except RecursionError:
        raise Refused(400, "not JSON: nested too deep", field) from None
    except UnicodeDecodeError:
        raise Refused(400, "not JSON: not in UTF-8", field) from None
    except ValueError as error:
        raise Refused(400, f"not JSON: {told(str(error))}", field) from None
