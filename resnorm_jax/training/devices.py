"""Data-parallel execution: the only file that calls `jax.pmap`.

The state stays replicated in its natural shapes (``in_axes=None``, ``out_axes=None``), rows are
spread over a leading device axis. A pure step goes in; another door (``jit`` with shardings) can stand
beside this one without touching it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnorm_jax.build import DEVICE_AXIS
from resnorm_jax.errors import UserError
from resnorm_jax.training.step import (
    Batch,
    StepOptions,
    TrainState,
    predict_step,
    told,
    train_step,
)


class NotReplicatedError(RuntimeError):
    """Devices disagree on a state that must be equal on all: a sum over devices is missing."""


class Spread(dict[str, Any]):
    """A batch whose rows are spread over a leading device axis."""


class DataParallel:
    """The compiled training and prediction steps over some devices.

    Args:
      options: of the training step.
      devices: the devices; a batch's rows are spread over them in order.
      compiler_options: of XLA, for these programs alone; see `determinism`.
    """

    def __init__(
        self,
        options: StepOptions,
        devices: Sequence[jax.Device],
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.options, self.devices = options, list(devices)
        self.programs = 0  # traced, hence compiled, so far
        # A CPU has the batch already, and takes the host's arrays in a third of a millisecond less.
        self.ahead = self.devices[0].platform != "cpu"
        self._compiler_options = dict(compiler_options or {}) or None
        mesh = Mesh(np.array(self.devices), (DEVICE_AXIS,))
        # As pmap's own outputs lie: a state that lies elsewhere would be compiled for once more.
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._by_row = NamedSharding(mesh, PartitionSpec(DEVICE_AXIS))
        train = partial(train_step, options=options, axis_name=DEVICE_AXIS)
        self._train = self._mapped(train, self._everywhere, out_axes=None, donate_argnums=(0,))
        self._predict = self._mapped(
            partial(predict_step, apply=options.apply), self._by_row, out_axes=0
        )

    @property
    def shares(self) -> int:
        """Over how many parts the rows of a batch are spread: each has its own dropout."""
        return len(self.devices)

    @property
    def split(self) -> int:
        """How many devices share out each parameter: each has all of them."""
        return 1

    def created(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, which makes a state, as one program."""
        return jax.jit(function)

    def replicate(self, tree: Any) -> Any:
        """Return a pytree of arrays with a copy on every device."""
        return jax.device_put(tree, self._everywhere)

    def put(self, batch: Mapping[str, Any]) -> Spread:
        """Begin to bring a global batch ``[B, ...]`` of host arrays to the devices, for `train`."""
        spread = Spread(self._spread(batch))
        return Spread(jax.device_put(dict(spread), self._by_row)) if self.ahead else spread

    def train(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Any]:
        """Do one update with a global batch: host arrays ``[B, ...]``, or what `put` gave.

        The state is donated; it comes from `replicate` or from the update before.
        """
        return self._train(state, dict(batch if isinstance(batch, Spread) else self.put(batch)))

    def lower(self, state: TrainState, batch: Mapping[str, Any]) -> jax.stages.Lowered:
        """Return the program of `train`, not compiled yet."""
        return self._train.lower(state, dict(self.put(batch)))

    def predict(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> np.ndarray:
        """Return log-probabilities of a global batch, ``[B, K]`` on the host.

        ``variables`` are the model's: ``params`` and what it keeps beside them.
        """
        known = told(batch, self.options.by_length)
        names = [name for name in ("x", "mask", "lengths") if name in known]
        inputs: dict[str, Any] = {name: known[name] for name in names}
        out = np.asarray(self._predict(self.replicate(variables), self._spread(inputs)))
        return out.reshape(-1, out.shape[-1])

    def _mapped(self, step: Callable[..., Any], out: NamedSharding, **how: Any) -> Any:
        """Return the step over all devices: of its two arguments the second is spread.

        The ``jit`` around it is for the options of the compiler, which ``pmap`` does not take.
        """
        mapped = jax.pmap(
            step, axis_name=DEVICE_AXIS, in_axes=(None, 0), devices=self.devices, **how
        )

        # jit of `mapped` itself would have pmap's own `lower`, which knows nothing of the options.
        def over_devices(state: Any, batch: Any) -> Any:
            self.programs += 1
            return mapped(state, batch)

        return jax.jit(
            over_devices,
            in_shardings=(self._everywhere, self._by_row),
            out_shardings=out,
            donate_argnums=how.get("donate_argnums"),
            compiler_options=self._compiler_options,
        )

    def _spread(self, batch: Batch) -> dict[str, Any]:
        count = len(self.devices)
        return {k: v.reshape(count, v.shape[0] // count, *v.shape[1:]) for k, v in batch.items()}


def choose_devices(
    count: int, batch_size: int, accumulate: int, tensor: int = 1
) -> list[jax.Device]:
    """Return the first ``count`` local devices (0 for all), checked against the batch.

    Of ``tensor`` devices each has the same rows.

    Raises:
      UserError: if there are fewer, or rows do not divide.
    """
    local = jax.local_devices()
    if count > len(local):
        raise UserError(
            f"config.devices: {count} asked for, {len(local)} found ({local[0].platform})"
        )
    devices = local[: count or len(local)]
    groups = max(1, len(devices) // tensor)
    share = groups * accumulate
    if batch_size % share:
        near = max(1, round(batch_size / share)) * share
        parts = f"{len(devices)} devices" + f" / tensor={tensor}" * (tensor > 1)
        parts += f" x {accumulate} micro-batches" * (accumulate > 1)
        raise UserError(
            f"config.train.batch_size: {batch_size} rows do not divide by {parts}; try {near}"
        )
    return devices


def check_replicated(tree: Any) -> None:
    """Raise NotReplicatedError if any leaf differs between devices that hold the same part of it.

    `jax.pmap` with ``out_axes=None`` does not check: it hands on the first device's values.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        seen: dict[str, bytes] = {}
        shards = getattr(leaf, "addressable_shards", [])
        values = [(str(s.index), np.asarray(s.data).tobytes()) for s in shards]
        if any(seen.setdefault(part, value) != value for part, value in values):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise NotReplicatedError(f"{name} differs between devices: is a psum missing?")
