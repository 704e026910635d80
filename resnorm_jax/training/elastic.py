"""What of a run depends on the number of devices, so that it cannot go on with another one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from resnorm_jax.config import Config
from resnorm_jax.errors import UserError
from resnorm_jax.ops.keys import WRITTEN_OUT, implementation
from resnorm_jax.training.identity import Identity
from resnorm_jax.training.model_state import STATISTICS

Rule = Callable[[Config, Mapping[str, Any]], str]


def _draws(config: Config, kept: Mapping[str, Any]) -> str:
    """Random numbers that are not a function of their place are drawn anew by each device."""
    model = config.model
    options: Any = jax.config
    plain = getattr(options, "jax_threefry_partitionable", True)
    if implementation() is WRITTEN_OUT and plain:
        return ""
    rates = {name: getattr(model, name) for name in ("dropout", "attention_dropout", "drop_path")}
    drawn = [f"model.{name}={rate:g}" for name, rate in rates.items() if rate]
    if config.pretrain.updates:
        drawn.append("masked pretraining")
    other = f"jax_default_prng_impl={options.jax_default_prng_impl}"
    other = other if plain else "jax_threefry_partitionable=False"
    return f"{drawn[0]} draws by device with {other}" if drawn else ""


def _batch_statistics(config: Config, kept: Mapping[str, Any]) -> str:
    count = config.train.accumulate
    if count == 1 or STATISTICS not in kept:
        return ""
    return f"which rows share batch statistics depends on it with train.accumulate={count}"


RULES: tuple[Rule, ...] = (_draws, _batch_statistics)


def by_devices(config: Config, variables: Mapping[str, Any]) -> str:
    """Return why a run's numbers depend on the number of devices by more than rounding; else "".

    Args:
      config: of the run.
      variables: of its model, by collection; their shapes serve.
    """
    return next(filter(None, (rule(config, variables) for rule in RULES)), "")


def check_devices(
    stored: Identity, now: Identity, steps: Mapping[str, int], why: str, place: Any
) -> None:
    """Refuse to go on with another number of devices where that changes the numbers.

    Args:
      stored: what the run is.
      now: what was asked for.
      steps: that each seed has done.
      why: of `by_devices`.
      place: the run directory, for the message.

    Raises:
      UserError: both numbers, the reason, and the field that has the run go on.
    """
    before, after = _shares(stored), _shares(now)
    if not why or not steps or before in (None, after) or now.config["train"]["any_devices"]:
        return
    raise UserError(
        f"--workdir: {place} has begun on {_told(before)}, and now has {_told(after)}; its losses "
        f"would be others, because {why}; give it as many, or go on with "
        "--config.train.any_devices=True"
    )


def _shares(run: Identity) -> int | None:
    """Return over how many devices the rows of a batch are spread, if the file of a run says it."""
    devices = run.runtime.get("devices")
    mesh = run.config["mesh"] if run.config["parallel"] == "sharded" else {}
    return devices and devices // (mesh.get("tensor", 1) * mesh.get("sequence", 1))


def _told(count: int | None) -> str:
    return "1 device" if count == 1 else f"{count} devices"
