"""Names of classes: different names stay different, and none is taken for another in silence."""

import reprlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from resnorm_jax.errors import UserError

MOST_SHOWN = 20
# Names of files that do not tell one from another.
GENERAL = ("train", "training", "data", "dataset")


def shown(value: object, most: int = 40) -> str:
    """Return a value as a message shows it: one line, cut where it is long."""
    text = reprlib.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def shown_names(names: Sequence[str]) -> str:
    """Return names as a list in a message: one line, the first ones where they are many."""
    listed = [n[:40] if n.isprintable() else repr(n[:40]) for n in names[:MOST_SHOWN]]
    return ", ".join([*listed, f"... ({len(names)})"] if len(names) > MOST_SHOWN else listed)


def data_name(path: str | Path) -> str:
    """Return what data are called in reports: the name of their file.

    Where that says no more than ``train``, it is the name of the folder, if the path has it.
    """
    given = Path(str(path).replace("\\", "/"))
    name, folder = given.stem.removesuffix("_TRAIN"), given.parent.name
    return folder if name.lower() in GENERAL and folder not in ("", "..") else name


def is_unicode(text: str) -> bool:
    """Return whether a text can be written: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def one_form(name: str) -> str:
    """Return a name's composed Unicode form (NFC): equal for names that are written alike."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_distinct(names: Sequence[str], where: Sequence[str]) -> None:
    """Check that names which must all be different are so, in any Unicode form.

    Names that differ in blanks, case, width or accents are different. Two that differ only in how
    an accented letter is composed look the same everywhere, and are refused.

    Args:
      names: of classes.
      where: the place of each.

    Raises:
      UserError: with the later place.
    """
    seen: dict[str, int] = {}
    for i, (name, place) in enumerate(zip(names, where, strict=True)):
        first = seen.setdefault(one_form(name), i)
        if first == i:
            continue
        if names[first] == name:
            raise UserError(f"{place}: the class {shown(name)} stands twice; name each class once")
        other = "" if where[first] == place else f" of {where[first]}"
        raise UserError(
            f"{place}: the label {ascii(name)[:60]} differs from {ascii(names[first])[:60]}{other} "
            "only in its Unicode form; write both the same"
        )
