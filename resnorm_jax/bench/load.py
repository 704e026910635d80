"""`resnorm serve` under load: many connections that ask as fast as they are answered."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data.preprocess import saved_scaling
from resnorm_jax.training.saved_run import Trained

JSON = {"Content-Type": "application/json"}
# What is no good, and the status that says so: for every kind of model.
BAD: dict[str, tuple[bytes, dict[str, str], int]] = {
    "no JSON": (b"{", JSON, 400),
    "NaN": (b'{"rows": [[NaN]]}', JSON, 400),
    "another type": (b"rows=1", {"Content-Type": "text/plain"}, 415),
    "no rows": (b"{}", JSON, 422),
    "unknown field": (b'{"rows": [[1]], "tpo": 1}', JSON, 422),
    "null": (b'{"rows": [null]}', JSON, 422),
    "an object": (b'{"rows": [{}]}', JSON, 422),
    "top of 0": (b'{"rows": [[1]], "top": 0}', JSON, 422),
    "too many rows": (json.dumps({"rows": [[1]] * 65}).encode(), JSON, 413),
    "too many bytes": (b" " * (2**20 + 1), JSON, 413),
}


@dataclass(frozen=True)
class Load:
    """How much is asked: requests in all, and connections at a time."""

    requests: int = 10_000
    connections: int = 16


QUICK = Load(200, 4)


def questions(trained: Trained) -> tuple[list[bytes], list[str]]:
    """Return a request for each test row, as the data had it, and the class that is right.

    Right is what the model says without a server.
    """
    test, scaling = trained.dataset().test, saved_scaling(trained.meta)
    rows = [x if trained.meta["kind"] == "images" else x[:n]
            for x, n in zip(test.x, test.lengths, strict=True)]  # fmt: skip
    if scaling is not None:
        mean, scale = scaling
        rows = [(row.astype(np.float64) * scale + mean).astype(np.float32) for row in rows]
    bodies = [json.dumps({"rows": [row.tolist()], "top": 1}).encode() for row in rows]
    return bodies, [trained.classes[i] for i in trained.log_probs(test).argmax(-1)]


@contextlib.contextmanager
def server(run: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Start ``resnorm serve`` on a free port; yield the process and the port."""
    command = [sys.executable, "-m", "resnorm_jax", "serve", str(run), "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"serving at http://127\.0\.0\.1:(\d+)/", line):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield process, int(found[1])
                return
        raise RuntimeError(f"the server ended with status {process.wait()}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def ask(
    connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str] = JSON
) -> tuple[int, Any]:
    """Return the status of an answer to ``POST /predict``, and what it says."""
    connection.request("POST", "/predict", body, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def load_row(trained: Trained, run: Path, load: Load) -> dict[str, Any]:
    """Return what a server did under a load, with bad requests, and at a signal amid a load."""
    bodies, classes = questions(trained)
    with server(run) as (process, port):
        began = time.perf_counter()
        seconds, outcomes = _asked(port, bodies, classes, load)
        whole = time.perf_counter() - began
        refused = {name: _refused(port, *bad) for name, bad in BAD.items()}
        stopped = _stopped(process, port, bodies, classes, load.connections)
    p50, p99, most = np.percentile(seconds, [50, 99, 100]) if seconds else (np.nan,) * 3
    return {
        "key": trained.meta["name"],
        "requests": load.requests,
        "connections": load.connections,
        "answers": dict(outcomes),
        "errors": load.requests - outcomes["200"],
        "milliseconds": {
            "p50": round(1e3 * float(p50), 2),
            "p99": round(1e3 * float(p99), 2),
            "most": round(1e3 * float(most), 2),
        },
        "requests_per_second": round(load.requests / whole, 1),
        "bad_requests": refused,
        "at_a_signal": stopped,
    }


def _asked(
    port: int, bodies: Sequence[bytes], classes: Sequence[str], load: Load
) -> tuple[list[float], Counter[str]]:
    """Ask from several threads; return the seconds of each answer, and how often each came."""
    seconds: list[float] = []
    outcomes: Counter[str] = Counter()
    numbers = iter(range(load.requests))

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in numbers:  # an iterator's step is atomic
            at = number % len(bodies)
            began = time.perf_counter()
            outcome = _outcome(connection, bodies[at], classes[at])
            seconds.append(time.perf_counter() - began)
            outcomes[outcome] += 1
        connection.close()

    _together(work, load.connections)
    return seconds, outcomes


def _outcome(connection: http.client.HTTPConnection, body: bytes, wanted: str) -> str:
    """Return ``"200"``, another status, ``"another class"``, or an error's name."""
    try:
        status, said = ask(connection, body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        return type(error).__name__
    if status == 200 and said["predictions"][0]["class"] != wanted:
        return "another class"
    return str(status)


def _refused(port: int, body: bytes, headers: dict[str, str], wanted: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        status, said = ask(connection, body, headers)
    return {"status": status, "as_it_should": status == wanted, "error": said["error"]}


def _stopped(
    process: subprocess.Popen, port: int, bodies: Sequence[bytes], classes: Sequence[str], many: int
) -> dict[str, Any]:
    """End the server while each of several connections waits; return what they were told."""
    outcomes: Counter[str] = Counter()
    sent = threading.Barrier(many + 1)

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/predict", bodies[0], JSON)
        sent.wait()
        try:
            answer = connection.getresponse()
            outcomes[str(answer.status)] += 1
        except (OSError, http.client.HTTPException) as error:
            outcomes[type(error).__name__] += 1
        connection.close()

    def end() -> None:
        sent.wait()
        process.send_signal(signal.SIGTERM)

    ender = threading.Thread(target=end)
    ender.start()
    _together(work, many)
    ender.join()
    return {"waiting": many, "answers": dict(outcomes), "exit_status": process.wait(60)}


def _together(work: Any, many: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def load_lines(row: dict[str, Any]) -> list[str]:
    """Return what `load_row` found, in words."""
    times = row["milliseconds"]
    bad = row["bad_requests"]
    right = sum(one["as_it_should"] for one in bad.values())
    return [
        f"{row['key']}: {row['requests']} requests over {row['connections']} connections: "
        f"p50 {times['p50']} ms, p99 {times['p99']} ms, longest {times['most']} ms, "
        f"{row['requests_per_second']} requests/s, {row['errors']} errors",
        f"bad requests: {right} of {len(bad)} refused as they should be",
        f"SIGTERM with {row['at_a_signal']['waiting']} requests sent: answers "
        f"{row['at_a_signal']['answers']}, exit status {row['at_a_signal']['exit_status']}",
    ]
