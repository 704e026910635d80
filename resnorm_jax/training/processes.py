"""Several processes of one run: how they start, and what they tell one another on the host.

Arrays travel between devices by XLA's collectives. What decides where a run goes (the step to go on
from, what a checkpoint's note holds) is found by process 0 alone and told to the others through the
key-value store of JAX's coordination service, so that no two processes read a directory at different
moments and differ.
"""

import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import to_plain

PREFIX = "resnorm/"
LONG = 7 * 24 * 3600 * 1000  # milliseconds: who waits is ended by `Watch` if the other is gone
KEPT = 1000  # answers that stay in the store: all have read them when so many came after


class Processes:
    """The processes of a run: the one that this is, and how many there are.

    Args:
      index: of this process, from 0.
      count: of all.
      client: of the coordination service; None for a process alone.
    """

    def __init__(self, index: int = 0, count: int = 1, client: Any = None) -> None:
        self.index, self.count, self._client = index, count, client
        self._asked = 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def shared(self, make: Callable[[], Any]) -> Any:
        """Return, in every process, what ``make`` gives in process 0: values of JSON.

        All processes call this in the same order. It is a process alone that gets the value itself.
        """
        if not self.several:
            return make()
        self._asked += 1
        key = f"{PREFIX}told/{self._asked}"
        if not self.first:
            return json.loads(self._client.blocking_key_value_get(key, LONG))
        text = json.dumps(to_plain(make()))
        self._client.key_value_set(key, text)
        if self._asked > KEPT:
            self._client.key_value_delete(f"{PREFIX}told/{self._asked - KEPT}")
        return json.loads(text)

    def barrier(self, name: str) -> None:
        """Wait until all processes are here."""
        if self.several:
            self._asked += 1
            self._client.wait_at_barrier(f"{PREFIX}{name}/{self._asked}", LONG)

    def agree(self, what: str, mine: Mapping[str, Any]) -> None:
        """Make sure that all processes have the same.

        Args:
          what: they are, for the message.
          mine: values of JSON by name; large ones as digests.

        Raises:
          UserError: in a process that differs from process 0: what differs is named.
        """
        theirs = self.shared(lambda: dict(mine))
        found = difference(theirs, json.loads(json.dumps(to_plain(dict(mine)))))
        if found is not None:
            name, first, own = found
            raise UserError(
                f"process {self.index} has {what} other than process 0: {name} is {own} here and "
                f"{first} there; start all processes with the same command, code and data"
            )
        self.barrier("agreed")


def difference(
    first: Mapping[str, Any], own: Mapping[str, Any], prefix: str = ""
) -> tuple[str, str, str] | None:
    """Return path and both values of the first difference, or None."""
    for name in sorted({*first, *own}):
        one, two = first.get(name, "not set"), own.get(name, "not set")
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            if (deeper := difference(one, two, f"{prefix}{name}.")) is not None:
                return deeper
        elif one != two:
            return prefix + name, repr(one)[:60], repr(two)[:60]
    return None


_current = [Processes()]


def current() -> Processes:
    """Return the processes of this run; a process alone unless `set_current` told of others."""
    return _current[0]


def set_current(processes: Processes) -> None:
    """Have `current` return these."""
    _current[0] = processes


def name_of_this() -> str:
    """Return how people find this process: its number on its host."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def sha256(values: Any) -> str:
    """Return a digest of values of JSON."""
    text = json.dumps(to_plain(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """Return a digest of the package's code, which a version alone does not tell apart."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()
