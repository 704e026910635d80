"""Whether the other processes of a run are alive; a process whose peer is gone ends, and names it.

A collective waits for ever for a process that is frozen, and the runtime ends a process by an abort of
its own, without a word that a person can use. So every process says in the coordination service that it
lives, each second from a thread of its own, and looks whether the others did.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from resnorm_jax.training.ending import end as end_process
from resnorm_jax.training.processes import PREFIX, name_of_this

STATUS = 76  # sysexits.h calls it a fault of a protocol: a peer does not answer
AGAIN = "start all processes again: they go on from the last checkpoint"
MISTAKE = 2
GRACE = 15.0  # seconds in which a process ends by itself as another did: all do the same


class Signs:
    """When each process was last heard of; no threads, no store.

    Args:
      index: of this process.
      count: of all.
      timeout: seconds without a sign after which a process is taken for gone.
      now: seconds from any fixed moment.
    """

    def __init__(self, index: int, count: int, timeout: float, now: float) -> None:
        self.index, self.timeout = index, timeout
        self.beats: dict[int, str] = dict.fromkeys(range(count), "")
        self.heard = dict.fromkeys(range(count), now)
        self.answered = self.looked = now

    def hear(self, beats: Mapping[int, str], now: float) -> None:
        """Note the beats that the coordinator gave: what changed is a sign of life."""
        self.answered = now
        for index, beat in beats.items():
            if beat != self.beats.get(index):
                self.beats[index], self.heard[index] = beat, now

    def silent(self, now: float) -> tuple[int, float] | None:
        """Return the process that was not heard of for longest, and the seconds, if too long.

        Process 0 holds the coordinator: where that does not answer, the others cannot be judged. A
        process that was itself frozen gives the others their time anew.
        """
        frozen = now - self.looked > self.timeout / 2
        self.looked = now
        if frozen:
            self.answered = now
            self.heard = dict.fromkeys(self.heard, now)
        if now - self.answered >= self.timeout:
            return 0, now - self.answered
        if now - self.answered >= self.timeout / 2:
            return None
        last = {i: when for i, when in self.heard.items() if i != self.index}
        index = min(last, key=lambda i: last[i])
        waited = now - last[index]
        return (index, waited) if waited >= self.timeout else None


class Watch:
    """Tells the other processes that this one lives, and ends it when one of them does not.

    Args:
      client: of the coordination service.
      index: of this process.
      count: of all.
      timeout: seconds without a sign after which a process is taken for gone.
      end: ends this process with a status, at once.
    """

    def __init__(
        self,
        client: Any,
        index: int,
        count: int,
        timeout: float,
        end: Callable[[int], Any] = end_process,
    ) -> None:
        self.index, self.count, self.timeout, self._end = index, count, timeout, end
        self._client = client
        self.signs = Signs(index, count, timeout, time.monotonic())
        self.names: dict[int, str] = {}
        self.ends: dict[int, dict[str, Any]] = {}
        self._mine: dict[str, Any] | None = None
        self._seen: dict[int, float] = {}
        self._told, self._stop = threading.Event(), threading.Event()
        self._interval = min(1.0, timeout / 10)

    def start(self) -> None:
        """Start the threads: one speaks with the coordinator, and may wait for it; one judges."""
        self._client.key_value_set(f"{PREFIX}name/{self.index}", name_of_this())
        for name, work in (("beats", self._speak), ("peers", self._judge)):
            threading.Thread(target=self._every, args=(work,), name=name, daemon=True).start()
        self._keep = _on_abort(self._aborted)

    def stop(self) -> None:
        """Take no process for gone any more: the run is done."""
        self._stop.set()

    def tell(self, status: int, line: str) -> None:
        """Tell the others how this process ends; process 0, which they need for it, waits for them."""
        self._mine = {"status": status, "line": line}
        self._told.wait(2.0)
        until = time.monotonic() + min(GRACE, self.timeout)
        while self.index == 0 and len(self.ends) < self.count and time.monotonic() < until:
            time.sleep(0.1)
        self._stop.set()

    def wait_for_blame(self) -> None:
        """Wait as long as a dead process stays unnoticed: what failed here may be its fault."""
        time.sleep(self.timeout + 2 * self._interval)

    def _every(self, work: Callable[[], None]) -> None:
        while not self._stop.wait(self._interval):
            work()

    def _speak(self) -> None:
        client = self._client
        try:
            beat = f"{PREFIX}beat/{self.index}"
            client.key_value_set(beat, str(time.monotonic()), allow_overwrite=True)
            if self._mine is not None and not self._told.is_set():
                client.key_value_set(f"{PREFIX}end/{self.index}", json.dumps(self._mine))
                self._told.set()
            self.ends |= {i: json.loads(text) for i, text in self._read("end").items()}
            if len(self.names) < self.count:
                self.names = self._read("name")
            self.signs.hear(self._read("beat"), time.monotonic())
        except Exception:  # whatever the runtime raises: the coordinator did not answer
            return

    def _read(self, kind: str) -> dict[int, str]:
        found = self._client.key_value_dir_get(f"{PREFIX}{kind}/")
        return {int(key.rpartition("/")[2]): value for key, value in found}

    def _judge(self) -> None:
        now = time.monotonic()
        for index, end in list(self.ends.items()):
            since = self._seen.setdefault(index, now)
            if index != self.index and now - since >= self._patience(end["status"]):
                self._follow(index, end)
        found = self.signs.silent(now)
        if found is not None and found[0] not in self.ends:
            index, waited = found
            line = (
                f"process {self.called(index)} gave no sign of life for {waited:.0f} s "
                f"(--peer-timeout={self.timeout:g})"
            )
            self._say(f"{line}; {AGAIN}")
            self._mine = {"status": STATUS, "line": line}
            self._told.wait(2.0)
            if self.index == 0:  # with it goes the coordinator, through which the others hear of it
                self._stop.wait(2 * self._interval)
            self._end(STATUS)

    def _patience(self, status: int) -> float:
        """Seconds until this process follows one that has ended: process 0 may have to write."""
        if status in (MISTAKE, STATUS):
            return 0.0
        return self.timeout if self.index == 0 else GRACE

    def _follow(self, index: int, end: dict[str, Any]) -> None:
        if self._mine is None:
            self._mine = {"status": end["status"], "line": f"as process {index} did"}
            self._say(f"process {self.called(index)} ended: {end['line']}")
            self._told.wait(2.0)
            self._end(end["status"] or STATUS)

    def called(self, index: int) -> str:
        """Return how people find a process: ``"1 (pid 4711 on host)"``."""
        return f"{index} ({self.names[index]})" if index in self.names else str(index)

    def _say(self, line: str) -> None:
        print(f"error: {line}", file=sys.__stderr__, flush=True)

    def _aborted(self) -> None:
        """The runtime aborts this process, because the coordinator or another process is gone."""
        if self._mine is not None or self._stop.is_set():
            self._end((self._mine or {"status": 0})["status"])
        gone = self.signs.silent(time.monotonic()) or (0, 0.0)
        for index, end in self.ends.items():
            if index != self.index:
                self._say(f"process {self.called(index)} ended: {end['line']}")
                self._end(end["status"] or STATUS)
        self._say(
            f"process {self.called(gone[0])} is gone, or one was started twice, says the runtime; "
            f"{AGAIN}"
        )
        self._end(STATUS)


def _on_abort(work: Callable[[], None]) -> Any:
    """Have ``work`` done where the runtime aborts; return what must be kept as long.

    Python's own handlers would never run: the thread that aborts is none of Python's, and is the last
    to do anything. The signal comes inside ``abort()``, where nothing of Python's is half done.
    """
    if os.name != "posix":
        return None
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: work())
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(int(signal.SIGABRT), handler)
    return handler
