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
from resnorm_jax.errors import UserError
from resnorm_jax.ops.layout import standing_for
from resnorm_jax.training.devices import Spread
from resnorm_jax.training.partition import AXES, DATA, FSDP, ROWS, TENSOR, along, only, specs_of
from resnorm_jax.training.step import (
    StepOptions,
    TrainState,
    device_sums,
    learned_part,
    predict_step,
    told,
    updated_state,
)

EVERYWHERE, BY_ROW = PartitionSpec(), PartitionSpec(ROWS)


class Sharded:
    """The compiled training and prediction steps over a mesh of devices; as `DataParallel`.

    Args:
      options: of the training step.
      devices: the devices, along ``tensor`` first, then ``fsdp``, then ``data``.
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
        self.mesh = Mesh(np.array(self.devices).reshape(mesh_shape(mesh, len(devices))), AXES)
        self._compiler_options = dict(compiler_options or {}) or None
        self._compiled: dict[Any, Any] = {}

    @property
    def shares(self) -> int:
        """Over how many parts the rows of a batch are spread: each has its own dropout."""
        return len(self.devices) // self.mesh.shape[TENSOR]

    @property
    def split(self) -> int:
        """How many devices share out each parameter, and what the optimizer keeps of it."""
        return self.mesh.shape[FSDP] * self.mesh.shape[TENSOR]

    def created(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, which makes a state, as a program that leaves each device its share."""

        def create(*arguments: Any) -> Any:
            out = self.shardings(jax.eval_shape(function, *arguments))
            return jax.jit(function, out_shardings=out)(*self.replicate(arguments))

        return create

    def replicate(self, tree: Any) -> Any:
        """Return a state, or variables, with each parameter laid over the devices."""
        return jax.device_put(tree, self.shardings(tree))

    def put(self, batch: Mapping[str, Any]) -> Spread:
        """Begin to bring a global batch ``[B, ...]`` of host arrays to the devices, for `train`."""
        return Spread(jax.device_put(dict(batch), NamedSharding(self.mesh, BY_ROW)))

    def put_several(self, batches: Sequence[Mapping[str, Any]]) -> Spread:
        """Raise an error: one update a call is all that is done here; see `door_of`."""
        raise NotImplementedError

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
        laid = self.shardings(state)
        return self._once(
            self._train, state, out_shardings=(laid, None), in_shardings=(laid, None),
            donate_argnums=(0,),
        )  # fmt: skip

    def predict(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> np.ndarray:
        """Return log-probabilities of a global batch, ``[B, K]`` on the host.

        ``variables`` are the model's: ``params`` and what it keeps beside them.
        """
        known = told(batch, self.options.by_length)
        names = [name for name in ("x", "mask", "lengths") if name in known]
        inputs: dict[str, Any] = {name: known[name] for name in names}
        out = NamedSharding(self.mesh, BY_ROW)
        run = self._once(self._predict, variables, out_shardings=out)
        return np.asarray(run(self.replicate(variables), dict(self.put(inputs))))

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

    def _once(self, step: Callable[..., Any], tree: Any, **how: Any) -> Any:
        """Return the step compiled for trees of one structure; shapes of batches are jit's own."""
        key = (step.__name__, jax.tree.structure(tree))
        if key not in self._compiled:

            def over_devices(tree: Any, batch: Any) -> Any:
                self.programs += 1
                return step(tree, batch)

            self._compiled[key] = jax.jit(
                over_devices, compiler_options=self._compiler_options, **how
            )
        return self._compiled[key]

    def _train(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Any]:
        bare = state.replace(opt_state=(), ema=None, sums={})
        specs = self.specs(bare)

        def on_device(bare: TrainState, batch: Any) -> Any:
            whole = bare.replace(params=self._gathered(bare.params, specs.params))
            sums, gradient, kept = device_sums(whole, batch, self.options, ROWS)
            return *self._summed(sums, gradient), kept

        part = self.specs(jax.eval_shape(partial(learned_part, options=self.options), state.params))
        out = (EVERYWHERE, self._mapped_only(part), EVERYWHERE)
        sums, gradient, kept = self._over_rows(on_device, specs, out)(bare, batch)
        gradient = lax.with_sharding_constraint(gradient, self.shardings(gradient))
        return updated_state(state, sums, gradient, kept, self.options)

    def _predict(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
        specs = self.specs(variables)

        def on_device(variables: Mapping[str, Any], batch: Any) -> jax.Array:
            whole = {**variables, "params": self._gathered(variables["params"], specs["params"])}
            return predict_step(whole, batch, self.options.apply, self.options.task.log_probs)

        return self._over_rows(on_device, specs, BY_ROW)(variables, batch)

    def _over_rows(self, function: Callable[..., Any], specs: Any, out: Any) -> Any:
        """Return ``function(tree, batch)`` done on each device's rows.

        XLA divides what is left, the work along ``tensor``; where that is one device nothing is, and
        the kernels of norms serve as under `jax.pmap`.
        """
        names = set(AXES if self.mesh.shape[TENSOR] == 1 else ROWS)

        def on_device(tree: Any, batch: Any) -> Any:
            with standing_for(DEVICE_AXIS, ROWS):
                return function(tree, batch)

        return jax.shard_map(
            on_device, mesh=self.mesh, in_specs=(self._mapped_only(specs), BY_ROW), out_specs=out,
            axis_names=names, check_vma=False,
        )  # fmt: skip

    def _mapped_only(self, specs: Any) -> Any:
        return jax.tree.map(partial(only, axis=FSDP), specs)

    def _gathered(self, params: Any, specs: Any) -> Any:
        """Return whole parameters of a device's shares, along ``tensor`` laid out as they were."""

        def gather(share: jax.Array, spec: PartitionSpec) -> jax.Array:
            axis = along(spec, FSDP)
            return share if axis is None else lax.all_gather(share, FSDP, axis=axis, tiled=True)

        return self._along_tensor(lambda shares: jax.tree.map(gather, shares, specs), specs)(params)

    def _summed(self, sums: Any, gradient: Any) -> tuple[Any, Any]:
        """Return sums over all rows: of the gradient this device's share, of what is not cut all."""
        specs = self.specs(gradient)

        def scatter(whole: jax.Array, spec: PartitionSpec) -> jax.Array:
            axis = along(spec, FSDP)
            if axis is None:
                return whole
            return lax.psum_scatter(whole, FSDP, scatter_dimension=axis, tiled=True)

        def sum_up(gradient: Any) -> Any:
            leaves, structure = jax.tree.flatten(jax.tree.map(scatter, gradient, specs))
            cut = [along(spec, FSDP) is not None for spec in jax.tree.leaves(specs)]
            found = _summed_together(leaves, cut, DATA if self.mesh.shape[DATA] > 1 else None)
            return jax.tree.unflatten(structure, found)

        return lax.psum(sums, ROWS), self._along_tensor(sum_up, specs)(gradient)

    def _along_tensor(self, function: Callable[[Any], Any], specs: Any) -> Callable[[Any], Any]:
        """Return a function of trees done on what each device along ``tensor`` has of them.

        XLA knows no way for what is sent along one axis to stay cut along another.
        """
        if self.mesh.shape[TENSOR] == 1:
            return function
        own = jax.tree.map(partial(only, axis=TENSOR), specs)
        return jax.shard_map(
            function, in_specs=(own,), out_specs=own, axis_names={TENSOR}, check_vma=False
        )


def _summed_together(leaves: list[Any], cut: list[bool], over: str | None) -> list[Any]:
    """Sum what is cut over ``over``, the rest over all rows: each in one go."""
    rest = lax.psum([leaf for leaf, is_cut in zip(leaves, cut, strict=True) if not is_cut], ROWS)
    parts = [leaf for leaf, is_cut in zip(leaves, cut, strict=True) if is_cut]
    parts = parts if over is None else lax.psum(parts, over)
    found = {True: iter(parts), False: iter(rest)}
    return [next(found[is_cut]) for is_cut in cut]


def mesh_shape(mesh: MeshConfig, devices: int) -> tuple[int, int, int]:
    """Return the sizes of the mesh's axes, `AXES`.

    Raises:
      UserError: if they do not divide the devices.

    >>> mesh_shape(MeshConfig(fsdp=2), 8)
    (4, 2, 1)
    """
    left = devices
    for name in (TENSOR, FSDP):
        size = getattr(mesh, name) or left
        if left % size:
            near = max(n for n in range(1, min(size, left) + 1) if left % n == 0)
            of = f"{devices} devices" + (f" / tensor={mesh.tensor}" if left < devices else "")
            raise UserError(f"config.mesh.{name}: {size} does not divide {of}; try {name}={near}")
        left //= size
    return left, mesh.fsdp or devices // mesh.tensor, mesh.tensor
