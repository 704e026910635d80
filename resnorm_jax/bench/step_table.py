"""One row of the training steps' table: times, compile time, memory, utilization, by who it is of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax

from resnorm_jax.bench.cases import Model
from resnorm_jax.bench.model import initial_parameters, random_batch
from resnorm_jax.bench.norm_table import reason
from resnorm_jax.bench.peaks import model_flops, peak_flops, utilization
from resnorm_jax.bench.step_peers import PEERS, Peer, Ready
from resnorm_jax.bench.timing import Budget, comparison, finish, interleave
from resnorm_jax.bench.ways import defaults


def step_row(
    model: Model, budget: Budget, everything: bool = False, peers: Sequence[Peer] = PEERS
) -> dict[str, Any]:
    """Measure a model's training step (forward, backward, AdamW), all peers in turn.

    Args:
      model: sizes and dtype.
      budget: how long to measure.
      everything: whether those are measured that take long to compile here.
      peers: rows of the table of peers.

    Returns:
      ``times``, ``ratios`` and ``rounds``; by peer ``parameters``, ``facts`` (see `Ready`) and
      ``utilization`` of the device's peak; ``flops`` of an update; ``defaults``, how our layers and
      our attention run unless told; and ``skipped``, who was left out and why.
    """
    ready, skipped = _ready(model, everything, peers)
    samples = interleave({name: one.update for name, one in ready.items()}, budget)
    ours = [peer.name for peer in peers if peer.ours and peer.name in ready]
    compared = comparison(samples, ours)
    parameters = {name: one.parameters for name, one in ready.items()}
    flops = model_flops(model.size, max(parameters.values()))
    peak = peak_flops(jax.devices()[0].device_kind, model.dtype)
    return {
        "key": model.key, "model": model.name, "dtype": model.dtype, "size": asdict(model.size),
        **compared,
        "parameters": parameters,
        "facts": {name: one.facts for name, one in ready.items()},
        "flops": flops,
        "peak_flops": peak,
        "utilization": _utilizations(flops, peak, compared["times"]),
        "defaults": defaults(model),
        "skipped": skipped,
    }  # fmt: skip


def _utilizations(
    flops: float, peak: float | None, times: Mapping[str, Any]
) -> dict[str, float | None]:
    return {name: utilization(flops, each["median"], peak) for name, each in times.items()}


def _ready(
    model: Model, everything: bool, peers: Sequence[Peer]
) -> tuple[dict[str, Ready], dict[str, str]]:
    """Return the steps that run, each run once, and name to reason of the others."""
    batch, params = random_batch(model.size), initial_parameters(model.size)
    usual = defaults(model)["layers a step"]
    ready: dict[str, Ready] = {}
    skipped: dict[str, str] = {}
    for peer in peers:
        if peer.unroll and not (model.variants and peer.unroll(model.size) != usual):
            continue  # not wanted, or what is done by default
        why = peer.missing(everything)
        try:
            if why is None:
                made = peer.make(model, params, batch)
                finish(made.update())
                ready[peer.name] = made
        except Exception as error:  # a library that cannot: the others are measured
            why = reason(error)
        if why is not None:
            skipped[peer.name] = why
    return ready, skipped
