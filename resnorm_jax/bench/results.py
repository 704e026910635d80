"""Files of results: rows are saved as they come, an interrupted run goes on, old files are read."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import write_json

FORMAT = 2
# What must be the same for rows to stand in one file.
SAME = ("backend", "device", "versions", "settings", "format")
Document = dict[str, Any]


def slug(device: str) -> str:
    """Return a device's name as part of a file's: ``nvidia_h100_80gb_hbm3``."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def read(path: Path) -> Document:
    """Return the results in a file, those of earlier versions in today's form.

    Raises:
      UserError: there is none, or it holds something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        upgraded = upgrade(document) if "format" not in document else document
        if not isinstance(upgraded, dict) or upgraded["format"] != FORMAT:
            raise KeyError("format")
        return upgraded
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; name a file of results"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: no results of resnorm bench; name a file that it wrote") from None


def measured(document: Mapping[str, Any]) -> str:
    """Return the line that says where, when and by what a file's results were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    of = document.get("settings", {}).get("data")
    data = "" if of is None else f"; data: {of}"
    return f"measured on {document['device']}, {document['date'][:10]}, {versions}{data}"


def upgrade(old: Mapping[str, Any]) -> Document:
    """Return results of the first format, which had one dtype and no copy, in today's."""
    new: Document = {**old, "format": FORMAT}
    if any(name in old for name in ("digits", "vowels", "depth")):  # these are as they were
        return new
    dtype = old["settings"]["dtype"]
    if "norm" in old:
        new["norm"] = [_old_norm(row, dtype) for row in old["norm"]]
    if "step" in old:
        model = {"model": "{depth}x{width}".format(**old["step"]["size"]), "dtype": dtype}
        new["step"] = [{**old["step"], **model, "key": "{model} {dtype}".format(**model)}]
    return new


def _old_norm(row: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    shape = "x".join(map(str, row["shape"]))
    return {
        "key": f"{row['norm']} {shape} {dtype}",
        "dtype": dtype,
        **{name: row[name] for name in ("norm", "shape", "skipped")},
        "passes": {"both": {name: row[name] for name in ("times", "ratios", "rounds")}},
    }


class Results:
    """A document that is written after each row.

    Args:
      path: of the file; what is there already is taken over.
      about: date, device, versions and settings of this run.

    Raises:
      UserError: the file holds results of another device, other versions or other settings.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.document: Document = {**about, "format": FORMAT, "runs": []}
        if path.exists():
            found = read(path)
            for name in SAME:
                if found.get(name) != json.loads(json.dumps(self.document[name])):
                    raise UserError(
                        f"--output: {path} holds other results: {name} is another; name another file"
                    )
            self.document = found
        run = {name: about[name] for name in ("date", "load_average")}
        self.document["runs"] = [*self.document["runs"], run]

    def holds(self, section: str, key: str | None) -> bool:
        """Whether a row is there, or, without a key, the section."""
        found = self.document.get(section, ())
        return section in self.document if key is None else any(r["key"] == key for r in found)

    def add(self, section: str, key: str | None, value: Any) -> None:
        """Add a row, or, without a key, a whole section, and write the file."""
        if key is None:
            self.document[section] = value
        else:
            self.document.setdefault(section, []).append(value)
        write_json(self.path, self.document)
