"""Data-parallel execution: the only file that calls `jax.pmap`.

Where devices belong to several processes, `jax.shard_map` stands in its place: inside ``jit`` a
``pmap`` knows those of its own process only. The steps and their numbers are the same.

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
from resnorm_jax.data.pipeline import Share, cut
from resnorm_jax.errors import UserError
from resnorm_jax.training.determinism import traced_for
from resnorm_jax.training.first_runs import begun_together
from resnorm_jax.training.laid import laid_from_host, several_processes, whole_on_host
from resnorm_jax.training.step import (
    StepOptions,
    TrainState,
    predict_step,
    told,
    train_step,
    train_steps,
)


class NotReplicatedError(RuntimeError):
    """Devices disagree on a state that must be equal on all: a sum over devices is missing."""


class Spread(dict[str, Any]):
    """A batch whose rows are spread over a leading device axis."""


class Several(Spread):
    """Batches of like shapes along a second axis, each for an update of its own."""


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
        self.several = several_processes(self.devices)
        self._count = len(_own(self.devices)) if self.several else len(self.devices)
        # A CPU has the batch already, and takes the host's arrays in a third of a millisecond less.
        self.ahead = self.several or self.devices[0].platform != "cpu"
        self._compiler_options = dict(compiler_options or {}) or None
        self._mesh = mesh = Mesh(np.array(self.devices), (DEVICE_AXIS,))
        # As pmap's own outputs lie: a state that lies elsewhere would be compiled for once more.
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._by_row = NamedSharding(mesh, PartitionSpec(DEVICE_AXIS))
        self._train, self._train_several = (
            self._mapped(
                partial(step, options=options, axis_name=DEVICE_AXIS),
                self._everywhere, out_axes=None, donate_argnums=(0,),
            )
            for step in (train_step, train_steps)
        )  # fmt: skip
        self._predict = self._mapped(
            partial(predict_step, apply=options.apply, log_probs=options.task.log_probs),
            self._everywhere if self.several else self._by_row,  # each process reads all rows
            out_axes=0,
        )

    @property
    def shares(self) -> int:
        """Over how many parts the rows of a batch are spread."""
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
        if not self.several:
            return jax.device_put(tree, self._everywhere)
        return jax.tree.map(partial(laid_from_host, sharding=self._everywhere), tree)

    def host(self, tree: Any) -> Any:
        """Return copies on the host."""
        return whole_on_host(tree)

    def share(self, size: int) -> slice | None:
        """Return which rows of a global batch this process reads; None where it reads all."""
        return own_share(size, self.devices)

    def put(self, batch: Mapping[str, Any]) -> Spread:
        """Begin to bring a global batch ``[B, ...]`` of host arrays to the devices, for `train`.

        Where there are several processes, it may also be the share of this one.
        """
        return Spread(self._brought(self._spread(self._own_rows(batch))))

    def put_several(self, batches: Sequence[Mapping[str, Any]]) -> Several:
        """Begin to bring global batches of like shapes to the devices, as `put` does each."""
        each = [self._spread(self._own_rows(batch)) for batch in batches]
        return Several(
            self._brought({name: np.stack([b[name] for b in each], 1) for name in each[0]})
        )

    def train(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Any]:
        """Do one update with a global batch: host arrays ``[B, ...]``, or what `put` gave.

        With what `put_several` gave, do one with each; the metrics are then those of `train_steps`. The
        state is donated; it comes from `replicate` or from the update before.
        """
        run = self._train_several if isinstance(batch, Several) else self._train
        return run(state, dict(batch if isinstance(batch, Spread) else self.put(batch)))

    def lower(self, state: TrainState, batch: Mapping[str, Any]) -> jax.stages.Lowered:
        """Return the program of `train`, lowered for these arrays; of the state, shapes serve."""
        return self._train.lower(state, self._spread(batch))

    def predict(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> np.ndarray:
        """Return log-probabilities of a global batch, ``[B, K]`` on the host, in every process.

        ``variables`` are the model's: ``params`` and what it keeps beside them.
        """
        known = told(self._own_rows(batch), self.options.by_length)
        names = [name for name in ("x", "mask", "lengths") if name in known]
        spread = self._spread({name: known[name] for name in names})
        rows = self._global(spread) if self.several else spread
        out = np.asarray(self._predict(self.replicate(variables), rows))
        return out.reshape(-1, out.shape[-1])

    def _mapped(self, step: partial[Any], out: NamedSharding, **how: Any) -> Any:
        """Return the step over all devices: of its two arguments the second is spread.

        The ``jit`` around it is for the options of the compiler, which ``pmap`` does not take.
        """
        mapped = (
            self._over_processes(step, how["out_axes"])
            if self.several
            else jax.pmap(
                step, axis_name=DEVICE_AXIS, in_axes=(None, 0), devices=self.devices, **how
            )
        )

        # jit of `mapped` itself would have pmap's own `lower`, which knows nothing of the options.
        def over_devices(state: Any, batch: Any) -> Any:
            self.programs += 1
            return mapped(state, batch)

        compiled = jax.jit(
            traced_for(self._compiler_options, over_devices),
            in_shardings=(self._everywhere, self._by_row),
            out_shardings=out,
            donate_argnums=how.get("donate_argnums"),
            compiler_options=self._compiler_options,
        )
        return begun_together(compiled, step.func.__name__, self.several)

    def _over_processes(self, step: Callable[..., Any], out_axes: int | None) -> Any:
        """Return the step over the devices of all processes, as ``pmap`` maps it."""
        rows = PartitionSpec(DEVICE_AXIS)

        def one(state: Any, batch: Any) -> Any:
            out = step(state, jax.tree.map(lambda leaf: leaf[0], batch))
            return out if out_axes is None else jax.tree.map(lambda leaf: leaf[None], out)

        specs = PartitionSpec() if out_axes is None else rows
        return jax.shard_map(
            one, mesh=self._mesh, in_specs=(PartitionSpec(), rows), out_specs=specs, check_vma=False
        )

    def _global(self, spread: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arrays of all processes, of which ``spread`` is the part of this one."""
        return {
            name: jax.make_array_from_process_local_data(
                self._by_row, part, (len(self.devices), *part.shape[1:])
            )
            for name, part in spread.items()
        }

    def _brought(self, spread: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return host arrays on the devices, if they are to go ahead of their step."""
        if self.several:
            return self._global(spread)
        return jax.device_put(dict(spread), self._by_row) if self.ahead else spread

    def _own_rows(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the rows of this process, if ``batch`` is not its share already."""
        if not self.several or isinstance(batch, Share):
            return batch
        size = len(next(iter(batch.values())))
        return cut(dict(batch), self.share(size) or slice(None))

    def _spread(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        count = self._count
        return {k: v.reshape(count, v.shape[0] // count, *v.shape[1:]) for k, v in batch.items()}


def _own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    here = jax.process_index()
    return [device for device in devices if device.process_index == here]


def own_share(size: int, devices: Sequence[jax.Device], tensor: int = 1) -> slice | None:
    """Return which rows of a global batch this process reads; None where it reads all.

    Args:
      size: of the global batch.
      devices: over which its rows are spread in order; those of a process stand together.
      tensor: how many devices, one after the other, have the same rows.
    """
    owners = [device.process_index for device in devices]
    return share_of(size, owners, jax.process_index(), tensor)


def share_of(size: int, owners: Sequence[int], process: int, tensor: int = 1) -> slice | None:
    """Return the rows of a process, where ``owners`` are the processes of the devices in order.

    >>> share_of(12, [0, 0, 1, 1], 1)
    slice(6, 12, None)
    >>> share_of(12, [0, 1, 2, 3], 1, tensor=2)
    slice(0, 6, None)
    """
    if len(set(owners)) < 2:
        return None
    groups = [owners[first : first + tensor] for first in range(0, len(owners), tensor)]
    own = [number for number, group in enumerate(groups) if process in group]
    each = size // len(groups)
    return slice(each * own[0], each * (own[-1] + 1))


def choose_devices(
    count: int, batch_size: int, accumulate: int, tensor: int = 1, sequence: int = 1
) -> list[jax.Device]:
    """Return the first ``count`` devices (0 for all) of each process, checked against the batch.

    Of ``tensor`` x ``sequence`` devices each has the same rows.

    Raises:
      UserError: if there are fewer, or rows do not divide.
    """
    local = jax.local_devices()
    if count > len(local):
        raise UserError(
            f"config.devices: {count} asked for, {len(local)} found ({local[0].platform})"
        )
    devices = local[: count or len(local)]
    if jax.process_count() > 1:
        devices = _of_all(count)
    groups = max(1, len(devices) // (tensor * sequence))
    share = groups * accumulate
    if batch_size % share:
        near = max(1, round(batch_size / share)) * share
        parts = f"{len(devices)} devices" + f" / tensor={tensor}" * (tensor > 1)
        parts += f" / sequence={sequence}" * (sequence > 1)
        parts += f" x {accumulate} micro-batches" * (accumulate > 1)
        raise UserError(
            f"config.train.batch_size: {batch_size} rows do not divide by {parts}; try {near}"
        )
    return devices


def _of_all(count: int) -> list[jax.Device]:
    """Return the first ``count`` devices of each process (0 for all), process by process.

    Raises:
      UserError: one has fewer or more than process 0.
    """
    by_process: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda d: (d.process_index, d.id)):
        by_process.setdefault(device.process_index, []).append(device)
    own = [devices[: count or len(devices)] for devices in by_process.values()]
    for process, devices in zip(by_process, own, strict=True):
        if len(devices) != len(own[0]):
            few = min(map(len, own))
            raise UserError(
                f"config.devices: process {process} has {len(devices)} devices and process 0 has "
                f"{len(own[0])}; give each process as many, or set devices={few}"
            )
    return [device for devices in own for device in devices]


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
