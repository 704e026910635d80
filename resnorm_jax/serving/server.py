"""The process: a socket, the warmed model, and an end in which those who wait are answered."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvicorn
from rich.console import Console

from resnorm_jax.errors import UserError
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.serving.app import Service
from resnorm_jax.serving.buckets import Buckets
from resnorm_jax.serving.limits import Limits
from resnorm_jax.training.calibration import calibration_line
from resnorm_jax.training.saved_run import Trained

LOCAL = ("127.0.0.1", "localhost", "::1")
LAST_SECONDS = 0.5  # after a signal, in which what was sent before it is still read


class _Server(uvicorn.Server):
    """uvicorn's, whose end by a signal is an end like any other: the process is not killed by it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; but first take the connections that wait to be, which a closed socket would reset."""
        await asyncio.sleep(LAST_SECONDS)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, not yet listening.

    Raises:
      UserError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host={host} --port={port}: {why}; name another port, or 0 for any that is free"
        ) from None
    return bound


def warmed(trained: Trained, limits: Limits, console: Console) -> Service:
    """Return the service of a run whose programs are compiled.

    Args:
      trained: the run.
      limits: of requests.
      console: where the progress is shown.
    """
    buckets = Buckets.of(trained, limits.batch, limits.lengths)
    shapes = list(buckets.shapes())
    told = ", ".join(map(str, buckets.lengths))
    console.print(
        f"compiling {len(shapes)} programs: {', '.join(map(str, buckets.sizes))} rows of {told} "
        "positions", highlight=False, soft_wrap=True,
    )  # fmt: skip
    with Progress("compiling", len(shapes), console=console, rate=False) as progress:
        buckets.warm(lambda number: progress.update(number))
    return Service(
        trained.meta, limits, buckets.lengths[-1], buckets.log_probs, buckets.rows,
        trained.calibrated, calibration_line(trained.calibration), *_labels(trained),
    )  # fmt: skip


def _labels(trained: Trained) -> tuple[Any, np.ndarray | None]:
    """Return what gives the labels of rows that have any number of them, and the labels' thresholds."""
    if trained.task.name == "single_label":
        return None, None
    task, classes = trained.task, trained.classes
    thresholds = np.broadcast_to(np.asarray(trained.thresholds, np.float64), len(classes))
    return lambda log_probs: task.decide(np.exp(log_probs), classes, thresholds), thresholds


def serve(trained: Trained, host: str, port: int, limits: Limits, console: Console) -> None:
    """Serve a run until SIGINT or SIGTERM; who waits then is answered, for ``limits.drain`` seconds.

    Raises:
      UserError: the address cannot be had.
    """
    bound = listen(host, port)
    with contextlib.closing(bound):
        service = warmed(trained, limits, console)
        bound.listen(limits.connections)  # from here on whoever connects is waited for
        name = f"[{host}]" if ":" in host else host
        where = f"http://{name}:{bound.getsockname()[1]}/"
        if host not in LOCAL:
            console.print(f"{host}: whoever reaches this address can ask; there is no password")
        console.print(f"serving at {where} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        _Server(_config(service, limits)).run(sockets=[bound])
    console.print(f"stopped; {service.answered} requests were answered", highlight=False)


def _config(service: Service, limits: Limits) -> Any:
    # No access log: a path may hold what somebody would rather not see written down.
    return uvicorn.Config(
        service.app(), http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None,
        access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=limits.connections, backlog=limits.connections,
        timeout_keep_alive=30, timeout_graceful_shutdown=round(limits.drain),
    )  # fmt: skip
