"""One row of the norms' table: each peer's times in each direction, as shares of the copy."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from resnorm_jax.bench.cases import NormCase
from resnorm_jax.bench.copy_speed import share_of_copy
from resnorm_jax.bench.norm_peers import PEERS, VARIANTS, Peer, present
from resnorm_jax.bench.norm_works import Works, random_arrays
from resnorm_jax.bench.speed_report import DIRECTIONS
from resnorm_jax.bench.timing import Budget, Samples, comparison, finish, interleave


def norm_row(
    case: NormCase,
    budget: Budget,
    copy: float,
    everything: bool = False,
    peers: Sequence[Peer] = PEERS,
    turn: AbstractContextManager = nullcontext(),  # noqa: B008  # it has no state
) -> dict[str, Any]:
    """Measure a norm, all peers in turn.

    Args:
      case: norm, shape and dtype.
      budget: for each direction.
      copy: bytes a second of the device's copy, measured in the same run.
      everything: whether those are measured that take long to compile here.
      peers: rows of the table of peers.
      turn: entered once all programs are compiled, for as long as they are timed.

    Returns:
      ``passes``: direction to ``bytes`` that have to be moved, ``times``, ``ratios``, ``rounds`` and
      ``share_of_copy``, by peer; and ``skipped``, who was left out and why.
    """
    works, skipped = _ready(case, *present(case, everything, peers))
    with turn:
        passes = {way: _direction(works, way, budget) for way in DIRECTIONS}
    for way, row in passes.items():
        row["bytes"] = case.moved(way)
        row["share_of_copy"] = {
            name: share_of_copy(row["bytes"], times["median"], copy)
            for name, times in row["times"].items()
        }
    return {
        "key": case.key, "norm": case.norm, "shape": list(case.shape), "dtype": case.dtype,
        "copy": copy, "passes": passes, "skipped": skipped,
    }  # fmt: skip


def _ready(
    case: NormCase, there: Sequence[Peer], skipped: dict[str, str]
) -> tuple[dict[str, Works], dict[str, str]]:
    """Return what is timed, by peer, each program run once; and who failed or is not there."""
    inputs, cotangent = random_arrays(case)
    works: dict[str, Works] = {}
    for peer in there:
        try:
            found = peer.works(peer.function(case), inputs, cotangent)
            for program in (p for programs in found.values() for p in programs):
                finish(program())
            works[peer.name] = found
        except Exception as error:  # a library that cannot: the others are measured
            skipped[peer.name] = reason(error)
    return works, skipped


def reason(error: Exception) -> str:
    """Return what an error says, in one short line."""
    lines = str(error).strip().splitlines() or [""]
    return f"failed: {type(error).__name__}: {lines[0]}"[:200]


def _direction(works: Mapping[str, Works], way: str, budget: Budget) -> dict[str, Any]:
    """Time every program of a direction; return the comparison of each peer's fastest."""
    programs: dict[str, Callable[[], object]] = {
        f"{name}/{number}": program
        for name, found in works.items()
        for number, program in enumerate(found[way])
    }
    samples = fastest(interleave(programs, budget))
    return comparison(samples, [name for name in VARIANTS if name in samples])


def fastest(samples: Samples) -> Samples:
    """Return the samples of each name's fastest program, of samples by ``name/number``."""
    best: Samples = {}
    for program, seconds in samples.items():
        name = program.rpartition("/")[0]
        if name not in best or statistics.median(seconds) < statistics.median(best[name]):
            best[name] = seconds
    return best
