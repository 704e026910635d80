"""How the processes of a run find one another, and how they leave together."""

import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from resnorm_jax.errors import DivergedError, Preempted, UserError
from resnorm_jax.training.overheard import Overheard
from resnorm_jax.training.peers import AGAIN, MISTAKE, STATUS, Watch, _on_abort
from resnorm_jax.training.processes import Processes, current, set_current

MARGIN = 10  # seconds: the runtime's own abort, which names nobody, comes after `Watch`
WEEK = 7 * 24 * 3600
LEAVING = 30  # seconds to leave together
NAMED = 8  # processes that did not come
REFUSED = {  # what the coordinator says to one that comes, and the mistake
    "incarnation": "another process of this run has that number; give each its own, from 0",
    "Unexpected task": "the coordinator expects fewer; give all processes the same --processes",
}


@dataclass(frozen=True)
class Launch:
    """What the command line says of a run's processes.

    Attributes:
      coordinator: where process 0 listens, ``HOST:PORT``; None where the cluster says it.
      processes: how many there are in all.
      process_id: which one this is, from 0.
      start_timeout: seconds until all have to be there.
      peer_timeout: seconds without a sign of life after which a process is taken for gone.
    """

    coordinator: str | None = None
    processes: int | None = None
    process_id: int | None = None
    start_timeout: float = 60.0
    peer_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("start_timeout", "peer_timeout"):
            if not 1 <= getattr(self, name) <= WEEK:
                raise UserError(
                    f"--{name.replace('_', '-')}: {getattr(self, name):g}; give 1 second or more"
                )
        told = {
            "coordinator": self.coordinator,
            "processes": self.processes,
            "process-id": self.process_id,
        }
        missing = [name for name, value in told.items() if value is None]
        if missing and len(missing) < len(told):
            raise UserError(
                f"--{missing[0]}: missing; give --coordinator=HOST:PORT --processes=N --process-id=I "
                "together, or none of them where the cluster says it"
            )
        if self.coordinator is None:
            return
        assert self.processes is not None
        assert self.process_id is not None
        if self.processes < 1:
            raise UserError(f"--processes: {self.processes}; give 1 or more")
        if not 0 <= self.process_id < self.processes:
            raise UserError(
                f"--process-id: {self.process_id} of {self.processes} processes; "
                f"give 0 to {self.processes - 1}"
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"--coordinator: {self.coordinator}; give HOST:PORT, e.g. node0:9911")

    @property
    def several(self) -> bool:
        """Whether there are other processes, by the command line or by the cluster."""
        return (self.processes if self.coordinator else cluster_processes()) > 1  # type: ignore[operator]


def cluster_processes() -> int:
    """Return how many processes the cluster has started for this run; 1 where there is no cluster.

    ``jax.distributed.initialize`` finds the same. It is asked first how many there are, because for
    one process of Slurm alone it would take all GPUs but one away.
    """
    try:
        from jax._src.clusters import ClusterEnv

        known = [e for e in ClusterEnv._cluster_types if not e.opt_in_only_method]
        found = next((e for e in known if e.is_env_present()), None)
        return 1 if found is None else int(found.get_process_count())
    except Exception:  # not a public part of JAX, and each cluster asks the environment its own way
        return 1


@contextmanager
def joined(launch: Launch) -> Iterator[None]:
    """Be one of a run's processes inside the block; all leave it together.

    Where one leaves it by an error, the others end with its status, and say what it said.

    Raises:
      UserError: the coordinator's port is taken, its host has no address, or another process has the
        number of this one.
    """
    if not launch.several:
        yield
        return
    watch = _start(launch)
    try:
        current().agree("options", {"--processes": launch.processes})
        yield
    except (UserError, DivergedError, Preempted) as error:
        watch.tell(*_ending(error))
        raise
    except Exception as error:
        watch.wait_for_blame()
        watch.tell(1, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise
    current().barrier("end")
    watch.stop()
    jax.distributed.shutdown()


def leave(status: int) -> None:
    """End the process where it has been one of several; do nothing where it was alone.

    An orderly end would wait for processes that are gone, and be aborted by the runtime for it.
    """
    if current().several:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _ending(error: BaseException) -> tuple[int, str]:
    if isinstance(error, Preempted):
        return 128 + error.number, error.saved or "a signal"
    return (2 if isinstance(error, UserError) else 1), str(error)


def _start(launch: Launch) -> Watch:
    _check_host(launch)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    arrived = threading.Event()
    with Overheard() as heard:
        timer = threading.Thread(target=_give_up, args=(launch, arrived, heard), daemon=True)
        timer.start()
        kept = _on_abort(partial(_aborted, launch, heard))
        try:
            jax.distributed.initialize(
                launch.coordinator, launch.processes, launch.process_id,
                # The flags leave nothing to be found but devices: a process has those that it sees.
                cluster_detection_method="deactivate" if launch.coordinator else None,
                initialization_timeout=WEEK,  # the timer ends it earlier, with a line
                heartbeat_timeout_seconds=int(2 * launch.peer_timeout + MARGIN),
                shutdown_timeout_seconds=LEAVING,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise _mistake(launch, str(error)) or UserError(
                f"--coordinator: {launch.coordinator or 'of the cluster'} cannot be used ({why}); "
                "name a port that is free on the host of process 0"
            ) from None
        finally:
            arrived.set()
    index, count, client = _runtime()
    watch = Watch(client, index, count, launch.peer_timeout)
    watch.start()
    del kept
    set_current(Processes(index, count, client))
    return watch


def _mistake(launch: Launch, said: str) -> UserError | None:
    """Return the mistake behind what JAX's runtime said, if it is one."""
    for word, mistake in REFUSED.items():
        if word in said:
            return UserError(f"--process-id: {launch.process_id}: {mistake}")
    return None


def _aborted(launch: Launch, heard: Overheard) -> None:
    """The runtime aborts this process, because the coordinator does not take it."""
    mistake = _mistake(launch, heard.text())
    heard.give_back(silent=mistake is not None)
    if mistake is not None:
        print(f"error: {mistake}", file=sys.__stderr__, flush=True)
        os._exit(MISTAKE)
    print(f"error: the coordinator is gone; {AGAIN}", file=sys.__stderr__, flush=True)
    os._exit(STATUS)


def _runtime() -> tuple[int, int, Any]:
    from jax._src.distributed import global_state

    return global_state.process_id, global_state.num_processes, global_state.client


def _check_host(launch: Launch) -> None:
    if launch.coordinator is None:
        return
    host, _, port = launch.coordinator.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise UserError(
            f"--coordinator: {host} has no address ({error.strerror}); name the host of process 0"
        ) from None
    if launch.process_id == 0:
        _check_port(int(port))


def _check_port(port: int) -> None:
    """Refuse a port that somebody listens at: two coordinators would share it without a word."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UserError(
            f"--coordinator: port {port} of this host cannot be used ({why}); name one that is free, "
            "and start only one process with --process-id=0"
        ) from None


def _who_is_missing(launch: Launch, heard: Overheard) -> str:
    where = launch.coordinator or "the coordinator"
    count = launch.processes or cluster_processes()
    came = heard.came()
    if launch.process_id != 0 and not came:  # a cluster's process does not know its number yet
        if launch.coordinator and not _answers(launch.coordinator):
            return f"process 0 does not answer at {where}"
        return f"not all of {count} processes came to process 0 at {where} (which names them)"
    missing = [str(number) for number in range(count) if number not in came]
    if not came or not missing:
        return f"not all of {count} processes came to {where}"
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    noun = "process" if len(missing) == 1 else "processes"
    return f"{noun} {', '.join(missing[:NAMED])}{more} of {count} did not come to {where}"


def _answers(coordinator: str) -> bool:
    host, _, port = coordinator.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _give_up(launch: Launch, arrived: threading.Event, heard: Overheard) -> None:
    if arrived.wait(launch.start_timeout):
        return
    line = _who_is_missing(launch, heard)
    heard.give_back()
    print(
        f"error: {line} within {launch.start_timeout:g} s (--start-timeout); {AGAIN}",
        file=sys.__stderr__,
        flush=True,
    )
    os._exit(STATUS)
