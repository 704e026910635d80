"""The second door: `jax.jit` over a mesh, where each device has its share of parameters and state.

A step gathers each parameter once, does on each device's rows what a step under `jax.pmap` does, with
the same random numbers, and leaves each device the sum of its share of the gradient: one all-gather and
one reduce-scatter for each array of a stack of layers (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054,
section 5, with the parameters gathered for the whole step). The update then touches shares alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnorm_jax.build import DEVICE_AXIS
from resnorm_jax.config import MeshConfig
from resnorm_jax.data.pipeline import Share, cut
from resnorm_jax.ops.layout import Inside, Positions, inside_over, positions_over, standing_for
from resnorm_jax.training.determinism import traced_for
from resnorm_jax.training.devices import Spread, own_share
from resnorm_jax.training.first_runs import begun_together
from resnorm_jax.training.laid import laid_from_host, several_processes, whole_on_host
from resnorm_jax.training.mesh import POSITIONED, filled, mesh_shape, whole_shares
from resnorm_jax.training.partition import AXES, FSDP, ROWS, SEQUENCE, TENSOR, only, specs_of
from resnorm_jax.training.shares import gathered, summed_shares
from resnorm_jax.training.step import (
    StepOptions,
    TrainState,
    device_sums,
    learned_part,
    predict_step,
    told,
    updated_state,
)
from resnorm_jax.training.summing import summed

EVERYWHERE, BY_ROW = PartitionSpec(), PartitionSpec(ROWS)


class Sharded:
    """The compiled training and prediction steps over a mesh of devices; as `DataParallel`.

    Args:
      options: of the training step.
      devices: the devices, along ``sequence`` first, then ``tensor``, ``fsdp`` and ``data``.
      compiler_options: of XLA, for these programs alone; see `determinism`.
      mesh: how the devices are arranged.

    Raises:
      UserError: if the mesh does not divide the devices.
    """

    def __init__(
        self,
        options: StepOptions,
        devices: Sequence[jax.Device],
        compiler_options: Mapping[str, Any] | None = None,
        mesh: MeshConfig = MeshConfig(),  # noqa: B008 (frozen)
    ) -> None:
        self.options, self.devices = options, list(devices)
        self.programs = 0  # traced, hence compiled, so far
        self.several = several_processes(self.devices)
        self.mesh = Mesh(np.array(self.devices).reshape(mesh_shape(mesh, len(devices))), AXES)
        self._compiler_options = dict(compiler_options or {}) or None
        self._compiled: dict[Any, Any] = {}

    @property
    def shares(self) -> int:
        """Over how many parts the rows of a batch are spread: each has its own dropout."""
        return len(self.devices) // self.alike

    @property
    def alike(self) -> int:
        """How many devices, one after the other, have the same rows."""
        return self.mesh.shape[TENSOR] * self.mesh.shape[SEQUENCE]

    @property
    def split(self) -> int:
        """How many devices share out each parameter, and what the optimizer keeps of it."""
        return self.mesh.shape[FSDP] * self.mesh.shape[TENSOR]

    def created(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, which makes a state, as a program that leaves each device its share."""

        def create(*arguments: Any) -> Any:
            out = self.shardings(jax.eval_shape(function, *arguments))
            compiled = jax.jit(function, out_shardings=out)
            return begun_together(compiled, "create", self.several)(*self.replicate(arguments))

        return create

    def replicate(self, tree: Any) -> Any:
        """Return a state, or variables, with each parameter laid over the devices."""
        if not self.several:
            return jax.device_put(tree, self.shardings(tree))
        return jax.tree.map(laid_from_host, tree, self.shardings(tree))

    def host(self, tree: Any) -> Any:
        """Return copies on the host, whole in every process; all processes call it alike."""
        return whole_on_host(tree)

    def share(self, size: int) -> slice | None:
        """Return which rows of a global batch this process reads; None where it reads all."""
        return own_share(size, self.devices, self.alike)

    def put(self, batch: Mapping[str, Any]) -> Spread:
        """Begin to bring a global batch ``[B, ...]`` of host arrays to the devices, for `train`.

        Where there are several processes, it may also be the share of this one.
        """
        return self._laid_by_row(self._own_rows(batch))

    def _own_rows(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the rows of this process, if ``batch`` is not its share already."""
        if not self.several or isinstance(batch, Share):
            return batch
        size = len(next(iter(batch.values())))
        return cut(dict(batch), self.share(size) or slice(None))

    def _laid_by_row(self, rows: Mapping[str, Any]) -> Spread:
        rows = whole_shares(rows, self.mesh.shape[SEQUENCE])
        laid = {name: self._laid_as(name, part) for name, part in rows.items()}
        if not self.several:
            return Spread(jax.device_put(dict(rows), laid))
        own = self.share(self.shares)  # one row for each group of devices
        times = self.shares // len(range(self.shares)[own or slice(None)])
        return Spread({
            name: jax.make_array_from_process_local_data(
                laid[name], part, (times * len(part), *part.shape[1:])
            )
            for name, part in rows.items()
        })  # fmt: skip

    def _laid_as(self, name: str, rows: np.ndarray) -> NamedSharding:
        """Return how rows lie: by row and, what has positions, by position."""
        cut = name in POSITIONED and self.mesh.shape[SEQUENCE] > 1
        return NamedSharding(self.mesh, PartitionSpec(ROWS, SEQUENCE) if cut else BY_ROW)

    def put_several(self, batches: Sequence[Mapping[str, Any]]) -> Spread:
        """Refuse: this door does one update a call, as `doors.door_of` has told by then."""
        raise NotImplementedError("several updates a call are for parallel=pmap")

    def train(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Any]:
        """Do one update with a global batch: host arrays ``[B, ...]``, or what `put` gave.

        The state is donated; it comes from `replicate` or from the update before.
        """
        batch = batch if isinstance(batch, Spread) else self.put(batch)
        return self._program(state)(state, dict(batch))

    def lower(self, state: TrainState, batch: Mapping[str, Any]) -> jax.stages.Lowered:
        """Return the program of `train`, not compiled yet."""
        return self._program(state).lower(state, dict(self.put(batch)))

    def _program(self, state: TrainState) -> Any:
        def how() -> dict[str, Any]:
            laid = self.shardings(state)
            told = NamedSharding(self.mesh, EVERYWHERE)  # each process reads the metrics
            return {
                "in_shardings": (laid, None), "out_shardings": (laid, told), "donate_argnums": (0,)
            }  # fmt: skip

        return self._once(self._train, state, how)

    def predict(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> np.ndarray:
        """Return log-probabilities of a global batch, ``[B, K]`` on the host, in every process.

        A process alone may give any number of rows: the last is repeated until they divide.

        ``variables`` are the model's: ``params`` and what it keeps beside them.
        """
        known = told(self._own_rows(batch), self.options.by_length)
        names = [name for name in ("x", "mask", "lengths") if name in known]
        count = len(known["x"]) if not self.several else None
        rows: dict[str, Any] = {n: filled(known[n], count, self.shares) for n in names}
        run = self._predicting(variables)
        return np.asarray(run(self.replicate(variables), dict(self._laid_by_row(rows))))[:count]

    def _predicting(self, variables: Any) -> Any:
        """Return the program of `predict`, which XLA divides: no device ever has all parameters."""

        def how() -> dict[str, Any]:
            out = NamedSharding(self.mesh, EVERYWHERE if self.several else BY_ROW)
            return {"in_shardings": (self.shardings(variables), None), "out_shardings": out}

        return self._once(self._predict, variables, how)

    def specs(self, tree: Any) -> Any:
        """Return how each leaf of a state, of variables or of parameters is laid over the mesh."""
        sizes = self.mesh.shape
        if isinstance(tree, TrainState):
            laid = {name: specs_of(getattr(tree, name), sizes) for name in ("params", "opt_state")}
            plain = jax.tree.map(lambda _: EVERYWHERE, tree)
            return plain.replace(ema=specs_of(tree.ema, sizes), **laid)
        if isinstance(tree, Mapping) and "params" in tree:
            plain = jax.tree.map(lambda _: EVERYWHERE, dict(tree))
            return {**plain, "params": specs_of(tree["params"], sizes)}
        return specs_of(tree, sizes)

    def shardings(self, tree: Any) -> Any:
        """Return `specs` as JAX's shardings."""
        return jax.tree.map(partial(NamedSharding, self.mesh), self.specs(tree))

    def _once(
        self, step: Callable[..., Any], tree: Any, how: Callable[[], Mapping[str, Any]]
    ) -> Any:
        """Return the step compiled for trees of one structure; shapes of batches are jit's own."""
        key = (step.__name__, jax.tree.structure(tree))
        if key not in self._compiled:

            def over_devices(tree: Any, batch: Any) -> Any:
                self.programs += 1
                return step(tree, batch)

            told = self._compiler_options
            compiled = jax.jit(
                traced_for(told, over_devices, divided=True), compiler_options=told, **how()
            )
            self._compiled[key] = begun_together(compiled, step.__name__, self.several)
        return self._compiled[key]

    def _train(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Any]:
        bare = state.replace(opt_state=(), ema=None, sums={})
        specs = self.specs(bare)

        def on_device(bare: TrainState, batch: Any) -> Any:
            whole = bare.replace(params=gathered(bare.params, specs.params, self.mesh))
            sums, gradient, kept = device_sums(whole, batch, self.options, ROWS)
            return summed(sums, ROWS), summed_shares(gradient, part, self.mesh), kept

        part = self.specs(jax.eval_shape(partial(learned_part, options=self.options), state.params))
        out = (EVERYWHERE, self._mapped_only(part), EVERYWHERE)
        sums, gradient, kept = self._over_rows(on_device, specs, out)(bare, batch)
        gradient = lax.with_sharding_constraint(gradient, self.shardings(gradient))
        return updated_state(state, sums, gradient, kept, self.options)

    def _predict(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
        with positions_over(self._positions(self.mesh)):
            return predict_step(variables, batch, self.options.apply, self.options.task.log_probs)

    def _over_rows(self, function: Callable[..., Any], specs: Any, out: Any) -> Any:
        """Return ``function(tree, batch)`` done on each device's rows.

        XLA divides what is left, the work along ``tensor`` and ``sequence``; where that is one device
        nothing is, and the kernels of norms serve as under `jax.pmap`.
        """
        names = set(AXES if self.alike == 1 else ROWS)

        def on_device(tree: Any, batch: Any) -> Any:
            with (
                standing_for(DEVICE_AXIS, ROWS),
                positions_over(self._positions()),
                inside_over(self._inside()),
            ):
                return function(tree, batch)

        return jax.shard_map(
            on_device, mesh=self.mesh, in_specs=(self._mapped_only(specs), BY_ROW), out_specs=out,
            axis_names=names, check_vma=False,
        )  # fmt: skip

    def _positions(self, mesh: Mesh | None = None) -> Positions | None:
        size = self.mesh.shape[SEQUENCE]
        return Positions(SEQUENCE, size, mesh) if size > 1 else None

    def _inside(self) -> Inside | None:
        size = self.mesh.shape[TENSOR]
        return Inside(TENSOR, size) if size > 1 else None

    def _mapped_only(self, specs: Any) -> Any:
        return jax.tree.map(partial(only, axis=FSDP), specs)
