"""Config files. They are code: what one does when it is run, it may do."""

import inspect
import os
import stat
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.errors import UserError, nearest
from resnorm_jax.schema import told

PACKAGED = Path(__file__).parent / "configs"  # of a checkout: a link to its folder

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def read_config(name: str) -> "ConfigDict":
    """Run a config file's ``get_config``; ``name`` is ``FILE.py`` or ``FILE.py:ARGUMENT``.

    ``digits`` or ``digits:ARGUMENT`` is the file of that name which the package has. The file's code
    is run. Name no file that is not to be trusted.

    Raises:
      UserError: there is no such file; or, with its name and line, whatever goes wrong in it.
    """
    file, _, argument = name.partition(":")
    path = _packaged(file) or Path(file)
    text = _read(path)
    module: dict[str, Any] = {"__name__": "resnorm_config", "__file__": str(path)}
    try:
        exec(compile(text, str(path), "exec", dont_inherit=True), module)
        made = _call(path, module.get("get_config"), argument)
    except UserError:
        raise
    # Whatever a person's code raises is theirs to mend; an exit would be one without a word.
    except (Exception, SystemExit) as error:
        raise UserError(_told(path, error)) from error
    from ml_collections import ConfigDict  # here, so that mistakes in the file do not wait for it

    if not isinstance(made, ConfigDict):
        raise UserError(
            f"config file {path}: get_config returns {type(made).__name__}, not a ConfigDict; "
            "return resnorm_jax.config.experiment(argument, ...)"
        )
    return made


def packaged_configs() -> list[str]:
    """Return the names of the configs that the package has."""
    return sorted(path.stem for path in PACKAGED.glob("*.py"))


def _packaged(name: str) -> Path | None:
    """Return the package's config of a plain name, such as ``digits``."""
    return PACKAGED / f"{name}.py" if name in packaged_configs() else None


def _read(path: Path) -> bytes:
    """Return what a config file holds; nothing else than a file ``.py`` is opened."""
    if not os.path.exists(path):
        folder = path.parent if os.path.isdir(path.parent) else Path("configs")
        known = [p.as_posix() for p in folder.glob("*.py")] or packaged_configs()
        hint = nearest(path.as_posix(), known)
        raise UserError(f"--config: no config file {told(str(path))}; {hint}")
    if not stat.S_ISREG(os.stat(path).st_mode) or path.suffix != ".py":
        raise UserError(f"--config: {path} is not a file FILE.py; name one, e.g. configs/digits.py")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"--config: {path} cannot be read: {error.strerror}") from None


def _call(path: Path, get_config: Any, argument: str) -> Any:
    if not callable(get_config):
        raise UserError(f'config file {path}: no get_config; define get_config(argument: str = "")')
    given = (argument,) if argument else ()
    for arguments in dict.fromkeys(((argument,), given)):  # one that takes none is fine without any
        try:
            inspect.signature(get_config).bind(*arguments)
        except TypeError:
            continue
        return get_config(*arguments)
    raise UserError(
        f"config file {path}: get_config does not take the argument {told(argument)!r}; "
        'define get_config(argument: str = "")'
    )


def _told(path: Path, error: BaseException) -> str:
    """Return a person's own error as one line: file and line, kind, message."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = lines[-1] if lines else None
    message = str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, message = error.lineno, error.msg
    where = f"{path}:{line}" if line else str(path)
    said = told(" ".join(message.split()), 300)
    return f"config file {where}: {type(error).__name__}{': ' * bool(said)}{said}"
