"""Compiled programs are kept between runs, in a folder of the user's.

jax has a store of its own. In jax 0.10 a process that is killed while it writes leaves half an entry
there, and damaged entries stay; some changed bits are not seen; and the folder grows without end, or,
with a bound, takes no more once a small file is missing. So jax is given the store below.
"""

import hashlib
import os
import platform
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import write_bytes

OFF = "no-compilation-cache"  # the option of the commands
SWITCH = "JAX_ENABLE_COMPILATION_CACHE"
LIMIT = 2**29  # bytes of a folder
SHORTEST = 0.3  # seconds of compiling that are worth a file
_DIGEST = hashlib.sha256


class Store:
    """Entries by key, each with a digest; the ones used longest ago make room.

    Nothing here fails: an entry that cannot be read, or is not as it was written, is not there, and
    one that cannot be written is not kept. Several processes may use one folder.

    Args:
      folder: of the entries.
      limit: bytes of all of them.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._path, self._limit = folder, limit  # jax names _path when it forgets a store

    def get(self, key: str) -> bytes | None:
        """Return what was put, or None; a damaged entry is removed, so that it is put again."""
        path = self._file(key)
        with suppress(OSError):
            data = path.read_bytes()
            size = _DIGEST().digest_size
            if _DIGEST(data[size:]).digest() == data[:size]:
                os.utime(path)
                return data[size:]
            path.unlink()
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keep an entry, unless it is larger than all of them may be."""
        data = _DIGEST(value).digest() + value
        if len(data) <= self._limit:
            with suppress(OSError, UserError):
                self._make_room(self._limit - len(data))
                write_bytes(self._file(key), data)

    def _file(self, key: str) -> Path:
        return self._path / f"{_DIGEST(key.encode()).hexdigest()}.program"

    def _make_room(self, limit: int) -> None:
        """Remove files, oldest first, until ``limit`` bytes are left at most."""
        files = [(e.stat().st_mtime_ns, e.stat().st_size, e.path) for e in os.scandir(self._path)]
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= limit:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


def keep_programs() -> None:
    """Have jax keep compiled programs, or say on stderr why it does not.

    A folder that the user chose (``JAX_COMPILATION_CACHE_DIR``), and the user's wish for none
    (``JAX_ENABLE_COMPILATION_CACHE=0``, or the option of a command), stand as they are.
    """
    import jax

    config: Any = jax.config
    off = os.environ.get(SWITCH, "1").lower() in ("0", "false", "off", "n", "no", "f")
    if off or not config.jax_enable_compilation_cache:
        config.update("jax_enable_compilation_cache", False)
    elif config.jax_compilation_cache_dir is None:
        try:
            folder = _made(user_folder() / "resnorm_jax" / "programs" / processor())
            _give(Store(folder))
        except (OSError, RuntimeError, ImportError) as error:
            why = " ".join(str(error).split())
            print(f"note: compiled programs are not kept: {why}", file=sys.stderr)


def _give(store: Store) -> None:
    """Have jax use a store."""
    import jax
    from jax._src import compilation_cache  # there is no public way to name a store

    if not hasattr(compilation_cache, "get_file_cache"):
        raise ImportError(f"jax {jax.__version__} takes no other store than its own")
    compilation_cache.get_file_cache = lambda path: (store, path)  # type: ignore
    jax.config.update("jax_compilation_cache_dir", str(store._path))
    # Files of XLA's beside the programs would be without digest and bound.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def user_folder() -> Path:
    """Return the folder where programs of this user may keep what they can make again."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given
    names = {"darwin": ("Library", "Caches"), "win32": ("AppData", "Local")}
    return Path.home().joinpath(*names.get(sys.platform, (".cache",)))


def processor() -> str:
    """Return a name of this kind of processor and number of cores: code for one may fail on another."""
    from resnorm_jax.reporting.environment import cores

    told = [str(cores())]
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        names = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        told += sorted({line for line in lines if line.startswith(names)})
    except OSError:
        told.append(platform.processor())
    return f"{platform.machine()}-{_DIGEST(repr(told).encode()).hexdigest()[:16]}"


def _made(folder: Path) -> Path:
    """Return a folder into which this user alone can write: what is read from there is run.

    Raises:
      OSError: it cannot be made, or others could have written into it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    others = os.name == "posix" and (
        found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
    if others:
        raise PermissionError(f"others than this user may write into {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written into")
    return folder
