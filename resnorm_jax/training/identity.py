"""What a run is: its config, its data by content, and what it runs on. What of it may change."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, describe
from resnorm_jax.data.fingerprint import fingerprint
from resnorm_jax.errors import UserError
from resnorm_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# Fields that a run may go on with changed. The change is recorded and stands in the report.
MAY_CHANGE = frozenset({
    "devices", "parallel", "mesh.fsdp", "mesh.tensor", "mesh.sequence",
    "seeds", "profile",
    "train.epochs", "train.steps", "train.log_every", "train.evaluate_every",
    "train.checkpoint_every", "train.keep", "train.keep_every", "train.keep_best",
    "train.watchdog", "train.max_rollbacks", "train.deterministic", "train.any_devices",
    "train.updates_per_call", "model.remat", "model.remat_every", "model.unroll",
})  # fmt: skip
# Defaults that have changed: a run of a version before keeps its own under the same command.
FORMER = {"train.buckets": 3}
ANOTHER = "name a new directory"


@dataclass(frozen=True)
class Identity:
    """What ``config.json`` says of a run.

    Attributes:
      config: nested, of plain values.
      data: what prepares inputs for prediction; see `resnorm_jax.data.describe`.
      content: of the data before scaling; see `resnorm_jax.data.fingerprint`. None in the file of a
        version that did not look.
      runtime: backend, kind and number of devices, versions of packages, and whether the same bits
        come each time: ``yes``, or ``no: why``.
      changes: of what may change, since the run began: ``what``, ``before``, ``after``, and ``steps``
        that each seed had done by then.
      edges: padded lengths of batches, ascending. None in the file of a version that had one rule.
    """

    config: dict[str, Any]
    data: dict[str, Any]
    content: dict[str, Any] | None
    runtime: dict[str, Any]
    changes: tuple[dict[str, Any], ...] = ()
    edges: tuple[int, ...] | None = None


def identify(
    config: Config,
    raw: Dataset,
    dataset: Dataset,
    devices: list[Any],
    edges: tuple[int, ...] | None = None,
    stored: Identity | None = None,
    deterministic: str = "yes",
) -> Identity:
    """Return what a run is, before it has done anything.

    Args:
      config: of the run.
      raw: the data before scaling, which rounds differently on different machines.
      dataset: the same data as they are trained on.
      devices: that the run uses.
      edges: padded lengths of its batches.
      stored: what it is if it has begun.
      deterministic: what `Determinism.told` says.
    """
    runtime = {"backend": devices[0].platform, "kind": devices[0].device_kind}
    versions = {"resnorm_jax": __version__}  # a checkout need not be installed
    versions |= {name: metadata.version(name) for name in PACKAGES}
    return Identity(
        plain(asdict(config)),
        described(dataset, stored),
        plain(fingerprint(raw)),
        {
            **runtime,
            "devices": len(devices),
            "deterministic": deterministic,
            "versions": versions,
        },
        edges=edges,
    )


def described(dataset: Dataset, stored: Identity | None) -> dict[str, Any]:
    """Return what `describe` says of a run's data; a run that has begun keeps its ``stride``."""
    kept = {} if stored is None else {"stride": stored.data.get("stride", 1)}
    return plain({**describe(dataset), **kept})


def going_on(stored: Identity, now: Identity, steps: Mapping[str, int], place: Path) -> Identity:
    """Return what a run is that goes on, with the changes so far.

    Args:
      stored: what its directory says.
      now: what was asked for now.
      steps: that each seed has done.
      place: the run directory, for the message.

    Raises:
      UserError: the data are others, or a field of the config that may not change: named.
    """
    changed = [c for c in _differences(stored.config, now.config) if not _former(stored, *c[:2])]
    fixed = [c for c in changed if c[0] not in MAY_CHANGE]
    if fixed:
        what, before, after = fixed[0]
        more = f" (and {len(fixed) - 1} more)" if len(fixed) > 1 else ""
        raise UserError(
            f"--workdir: {place} holds another run: its config.{what} is {before}, this one's "
            f"{after}{more}; {ANOTHER}"
        )
    check_content(stored.content, now.content, f"--workdir: {place}", ANOTHER)
    # A version that did not know of a thing did not change it.
    runtime = {name: value for name, value in now.runtime.items() if name in stored.runtime}
    changed += [("runtime." + c[0], *c[1:]) for c in _differences(stored.runtime, runtime)]
    new = tuple(
        {"what": what, "before": before, "after": after, "steps": dict(steps)}
        for what, before, after in changed
    )
    return replace(now, changes=stored.changes + new)


def _former(stored: Identity, what: str, before: str) -> bool:
    """Whether a run of a version before has a default of its time."""
    return stored.edges is None and what in FORMER and before == repr(FORMER[what])


def change_line(change: Mapping[str, Any]) -> str:
    """Return a line that says how a run went on differently."""
    at = ", ".join(f"{seed} at step {step}" for seed, step in change["steps"].items())
    return (
        f"note: {change['what']} was {change['before']} and is {change['after']} since "
        f"{at or 'before the first checkpoint'}; the report says so"
    )


def check_content(
    stored: Mapping[str, Any] | None, now: Mapping[str, Any] | None, place: str, fix: str
) -> None:
    """Raise a UserError that says what differs, if data are not those of a run.

    Args:
      stored: of the run; None where it did not look at the content.
      now: of the data at hand.
      place: that comes first in the message.
      fix: that comes last.
    """
    if stored is None or now is None:
        return
    differ = next(_differences(stored, now), None)
    if differ is not None:
        what, before, after = differ
        raise UserError(
            f"{place}: the data are not those of this run: {what} was {before}, and is {after}; {fix}"
        )


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield path, value before and value after of all that differs, those of both sides first."""
    for key in sorted({*before, *after}, key=lambda k: (k not in before or k not in after, k)):
        one, two = (side.get(key, _NOT_SET) for side in (before, after))
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            yield from _differences(one, two, f"{prefix}{key}.")
        elif one != two:
            yield prefix + key, _shown(one), _shown(two)


class _NotSet:
    def __repr__(self) -> str:
        return "not set"


_NOT_SET = _NotSet()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they come back from JSON."""
    return json.loads(json.dumps(values))
