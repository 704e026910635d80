"""Requests that wait while the model computes are computed together next."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from resnorm_jax.serving.limits import BUSY, Refused

Compute = Callable[[Sequence[Any]], np.ndarray]


class Batcher:
    """A queue before a model, which computes in one thread; use as an async context manager.

    Nothing is waited for: a row that finds the model idle is computed alone at once, rows that come
    meanwhile are the next batch.

    Args:
      compute: from at most ``batch`` rows to log-probabilities ``[n, K]``.
      batch: most rows together.
      queue: most rows that wait.
    """

    def __init__(self, compute: Compute, batch: int, queue: int) -> None:
        self._compute, self._batch, self._queue = compute, batch, queue
        self._waiting: deque[tuple[Any, asyncio.Future[np.ndarray]]] = deque()
        self._wake = asyncio.Event()
        self.batches = 0

    @property
    def waiting(self) -> int:
        """How many rows wait."""
        return len(self._waiting)

    async def log_probs(self, rows: Sequence[Any]) -> np.ndarray:
        """Return log-probabilities ``[N, K]``; rows of a request that is cancelled are passed over.

        Raises:
          Refused: 503, too many rows wait.
        """
        if self.waiting + len(rows) > self._queue:
            raise Refused(503, f"{self.waiting} rows wait already; try again later", headers=BUSY)
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        self._waiting.extend(zip(rows, futures, strict=True))
        self._wake.set()
        return np.stack(await asyncio.gather(*futures))

    async def __aenter__(self) -> "Batcher":
        self._thread = ThreadPoolExecutor(1, "model")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._next()
            if not batch:
                self._wake.clear()
                continue
            await self._answer(batch)

    def _next(self) -> list[tuple[Any, asyncio.Future[np.ndarray]]]:
        taken: list[tuple[Any, asyncio.Future[np.ndarray]]] = []
        while self._waiting and len(taken) < self._batch:
            row, future = self._waiting.popleft()
            if not future.done():
                taken.append((row, future))
        return taken

    async def _answer(self, batch: list[tuple[Any, asyncio.Future[np.ndarray]]]) -> None:
        rows, futures = [row for row, _ in batch], [future for _, future in batch]
        self.batches += 1
        loop = asyncio.get_running_loop()
        try:
            found: list[Any] = list(await loop.run_in_executor(self._thread, self._compute, rows))
        except Exception as error:
            found = [error] * len(rows)
        for future, value in zip(futures, found, strict=True):
            if future.done():  # its request was given up meanwhile
                continue
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)
