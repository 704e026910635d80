"""Texts in a folder: one folder a class, one ``.txt`` file a row."""

from collections.abc import Iterator
from pathlib import Path

from resnorm_jax.data.csv_format import Row
from resnorm_jax.data.text_lines import text_lines
from resnorm_jax.errors import UserError

SUFFIX = ".txt"


def class_folders(folder: Path) -> list[Path]:
    """Return the folders inside that hold a ``.txt`` file, by name."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return [path for path in inside if any(path.glob(f"*{SUFFIX}"))]


def folder_table(folder: str | Path, text: str, label: str, encoding: str) -> Iterator[Row]:
    """Yield ``(file, {text: content, label: class})`` of each file, by class and by name.

    Args:
      folder: with a folder for each class; or, for rows to predict, with the files themselves.
      text: what to call the text.
      label: what to call the class.
      encoding: of the files.

    Raises:
      UserError: the folder cannot be read, holds no such files, or a file holds no text.
    """
    folder = Path(folder)
    try:
        classes = class_folders(folder)
        flat = [] if classes else sorted(folder.glob(f"*{SUFFIX}"))
        files = [(path, c.name) for c in classes for path in sorted(c.glob(f"*{SUFFIX}"))]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check the path") from error
    if not files and not flat:
        raise UserError(
            f"{folder}: a folder without classes: no folder inside holds {SUFFIX} files; make one a "
            f"class, e.g. {folder.name}/positive/1{SUFFIX}, or give a file, or a saved data set"
        )
    for path, name in files:
        yield str(path), {text: _content(path, encoding), label: name}
    for path in flat:
        yield str(path), {text: _content(path, encoding)}


def _content(path: Path, encoding: str) -> str:
    return "".join(text_lines(path, encoding)).removesuffix("\n")
