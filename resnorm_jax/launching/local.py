"""Processes of one run on this machine: their output, their signals, and starting them again."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from resnorm_jax.launching.statuses import (
    DONE,
    FINAL,
    PEER_LOST,
    helps,
    shell_status,
    status_text,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
POLL = 0.05  # seconds


def free_port() -> int:
    """Return a port of this machine that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def with_place(command: Sequence[str], port: int, processes: int, index: int) -> list[str]:
    """Return the command of one process: where the coordinator is, and which process it is."""
    place = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}", f"--process-id={index}"]
    return [*command, *place]


@dataclass
class Local:
    """Runs N processes until they are done, or until starting them again helps no more.

    When a process ends with a status other than 0, the others have ``grace`` seconds to end by
    themselves; those that are still there are killed, because one that is frozen answers nothing. Then
    all start again, with a new port, at most ``restarts`` times.

    Attributes:
      command: of a process, without its place.
      processes: how many.
      restarts: how often all are started again.
      grace: seconds that the others have after one has ended.
      everything: whether each process' output is shown, with its number before each line; if not,
        output is that of process 0, and the errors of all.
      say: told of starts and ends.
    """

    command: Sequence[str]
    processes: int
    restarts: int = 3
    grace: float = 90.0
    everything: bool = False
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
    _received: list[int] = field(default_factory=list)
    _children: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _told: list[int] = field(
        default_factory=list
    )  # of the signals received, how many each child has

    def run(self) -> int:
        """Return the exit status.

        0 if all are done; else that of the first process that ended otherwise, one that says why before
        one that lost its peer. After a signal to this process, 128 and its number.
        """
        with self._forwarding():
            for attempt in range(self.restarts + 1):
                ended = self._once()
                status = cause(ended)
                if status == DONE:
                    return DONE
                if self._received:
                    said = next((s for s in ended.values() if s in FINAL), None)
                    return 128 + self._received[0] if said is None else said
                self.say(f"launch: {_ended_text(ended)}")
                if not helps(status):
                    return status
                if attempt < self.restarts:
                    self.say(f"launch: starting all again, {attempt + 1} of {self.restarts}")
        self.say(f"launch: not started again: {self.restarts} restarts are used up")
        return status

    def _once(self) -> dict[int, int]:
        """Start all processes and wait for them; return their statuses in the order of their ends."""
        readers = self._start(free_port())
        ended: dict[int, int] = {}
        try:
            self._wait(ended)
        finally:
            for child in self._children:
                if child.poll() is None:
                    child.kill()
                child.wait()
            for reader in readers:
                reader.join(timeout=5.0)  # a grandchild may hold the pipe
        return ended

    def _start(self, port: int) -> list[threading.Thread]:
        self._children.clear()
        self._told = [0] * self.processes
        readers = []
        for index in range(self.processes):
            # A session of its own: Ctrl-C reaches it through this process alone, and once.
            child = subprocess.Popen(
                with_place(self.command, port, self.processes, index),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
            self._children.append(child)
            shown = self.everything or index == 0
            before = f"[{index}] " if self.everything else ""
            for stream, out in ((child.stdout, sys.stdout if shown else None),
                                (child.stderr, sys.stderr)):  # fmt: skip
                mark = f"[{index}] " if index and out is sys.stderr else before
                reader = threading.Thread(target=_copy, args=(stream, out, mark), daemon=True)
                reader.start()
                readers.append(reader)
        self._send()  # what came while they were started
        return readers

    def _wait(self, ended: dict[int, int]) -> None:
        until = float("inf")
        while len(ended) < self.processes:
            for index, child in enumerate(self._children):
                code = child.poll()
                if code is None or index in ended:
                    continue
                ended[index] = shell_status(code)
                if code and until == float("inf"):
                    until = time.monotonic() + self.grace
            if time.monotonic() > until:
                late = [i for i in range(self.processes) if i not in ended]
                names = ", ".join(map(str, late))
                self.say(
                    f"launch: killing {names}: still there {self.grace:g} s after another ended"
                )
                for index in late:
                    self._children[index].kill()
                until = float("inf")
                for index in late:
                    ended[index] = shell_status(self._children[index].wait())
                return
            time.sleep(POLL)

    @contextmanager
    def _forwarding(self) -> Iterator[None]:
        """Send signals on to all processes; the second one too, which ends them without a save."""

        def receive(number: int, frame: Any) -> None:
            if number == signal.SIGHUP and self._received:  # a terminal that closes sends several
                return
            self._received.append(number)
            self._send()

        before = {number: signal.signal(number, receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _send(self) -> None:
        """Send each child what it does not have: a signal once, for a second one ends it at once."""
        for index, child in enumerate(self._children):
            while self._told[index] < len(self._received):
                self._told[index] += 1  # before it is sent: another signal may come meanwhile
                if child.poll() is None:
                    child.send_signal(self._received[self._told[index] - 1])


def cause(ended: dict[int, int]) -> int:
    """Return the status that says why processes ended: the first, but rather not that a peer was lost.

    A status that a restart does not help stands before all others.
    """
    bad = [status for status in ended.values() if status != DONE]
    final = [status for status in bad if status in FINAL]
    own = [status for status in bad if status not in (PEER_LOST, 128 + signal.SIGABRT)]
    return next(iter([*final, *own, *bad]), DONE)


def _ended_text(ended: dict[int, int]) -> str:
    return ", ".join(f"process {i} ended with {status_text(s)}" for i, s in ended.items() if s)


_LOCK = threading.Lock()


def _copy(stream: IO[bytes] | None, out: Any, before: str) -> None:
    """Copy lines as they come, each in one piece, with a prefix; without ``out`` they are only read."""
    assert stream is not None
    with stream:
        for line in iter(stream.readline, b""):
            if out is None:
                continue
            text = before + line.decode(errors="replace")
            with _LOCK:
                try:
                    out.write(text if text.endswith("\n") else f"{text}\n")
                    out.flush()
                except (BrokenPipeError, ValueError, OSError):  # nobody reads any more
                    out = None


def python_command() -> list[str]:
    """Return the `resnorm` command of this Python."""
    return [sys.executable, "-u", "-m", "resnorm_jax"]
