"""Which code an operation of a norm becomes, decided where it is lowered."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from jax.interpreters import mlir

from resnorm_jax.ops.norms.kernels import reference, tiles, triton, why
from resnorm_jax.ops.norms.kernels.divided import divided, features_are_whole, typed
from resnorm_jax.ops.norms.kernels.form import Form, Names, Operands, positional
from resnorm_jax.ops.norms.kernels.reference import PLAIN, PRODUCTS, Sums

KERNELS = {"forward": triton.forward, "backward": triton.backward}


def rules(name: str) -> dict[str | None, Callable]:
    """Return the lowering rules of an operation by platform; None stands for all others."""
    return {
        None: partial(_elsewhere, name, PLAIN),
        "cpu": partial(_elsewhere, name, PRODUCTS),
        "cuda": partial(_on_cuda, name),
    }


def _elsewhere(
    name: str, sums: Sums, ctx: Any, *arrays: Any, form: Form, names: Names, outs: Names
):
    """Lower to XLA's operations, or to a kernel that is carried out in these."""
    function: Callable = partial(getattr(reference, name), sums=sums)
    if name in KERNELS and form.implementation == "triton":
        raise _refusal(
            f"this program is for {', '.join(_platforms(ctx))}, the kernel for NVIDIA GPUs; "
            "'interpret' tests it anywhere"
        )
    if name in KERNELS and form.implementation == "interpret":
        reason = _no_kernel(ctx, names, outs) or _cut(ctx)
        if reason is not None:
            raise ValueError(f"implementation 'interpret' cannot serve this norm: {reason}")
        function = partial(_kernel, name, interpret=True)
    kernel = name in KERNELS and form.implementation == "interpret"
    return _lower(function, ctx, arrays, form, names, outs, divide=kernel)


def _on_cuda(name: str, ctx: Any, *arrays: Any, form: Form, names: Names, outs: Names):
    if name not in KERNELS or form.implementation in ("xla", "interpret"):
        return _elsewhere(name, PLAIN, ctx, *arrays, form=form, names=names, outs=outs)
    asked = form.implementation == "triton"
    reason = triton.unavailable() or _partitioned(ctx) or _no_kernel(ctx, names, outs)
    if asked and reason is not None:
        raise _refusal(reason)
    # An exported program is to run with other versions too, for which kernels have no promise.
    exported = ctx.module_context.lowering_parameters.for_export
    to_xla = reason is not None or (exported and not asked)
    function = getattr(reference, name) if to_xla else partial(_kernel, name)
    return _lower(function, ctx, arrays, form, names, outs, divide=not to_xla)


def _refusal(reason: str) -> ValueError:
    return ValueError(f"implementation 'triton' cannot serve this norm: {reason}")


def _kernel(
    name: str, form: Form, outs: Names, operands: Operands, interpret: bool = False
) -> Operands:
    x = operands["x"]
    tile = tiles.tile(name, x.shape[-1], x.dtype.name, triton.device_kind())
    same = "stream" in outs and "branch" not in operands  # what is there needs not be written
    written = tuple(out for out in outs if out != "stream" or not same)
    found = KERNELS[name](form, written, operands, tile, interpret)
    return {**found, "stream": x} if same else found


def _no_kernel(ctx: Any, names: Names, outs: Names) -> str | None:
    avals = dict(zip((*names, *outs), (*ctx.avals_in, *ctx.avals_out), strict=True))
    return why.not_a_kernels(avals["x"].shape, {name: a.dtype for name, a in avals.items()})


def _partitioned(ctx: Any) -> str | None:
    """Return why a kernel would not run on each device's own rows; None if it does.

    Where XLA lays the arrays over devices by itself it knows nothing of the kernel, and would gather
    them: then its own operations serve. Under `pmap` and `shard_map` each device has its rows, and so
    it has where the arrays' types say how they are laid out (a mesh of explicit axes).
    """
    context = ctx.module_context.axis_context
    if typed(ctx.avals_in):
        return _cut(ctx)
    if getattr(context, "num_devices", 1) not in (1, None):
        return (
            f"XLA divides this program over {context.num_devices} devices; shard_map keeps kernels, as "
            "does a mesh of explicit axes"
        )
    mesh = getattr(context, "mesh", None)
    if mesh is not None and set(context.manual_axes) != set(mesh.axis_names):
        return f"only the axes {sorted(context.manual_axes)} of the mesh are mapped by shard_map"
    return None


def _cut(ctx: Any) -> str | None:
    """Return why no device has whole rows; None if each has, or nobody knows."""
    if typed(ctx.avals_in) and not features_are_whole(ctx.avals_in[0]):
        return "its features are laid over devices"
    return None


def _platforms(ctx: Any) -> tuple[str, ...]:
    return tuple(ctx.platforms or ctx.module_context.platforms)


def _lower(
    function: Callable, ctx: Any, arrays: Any, form: Form, names: Names, outs: Names,
    divide: bool = False,
) -> Any:  # fmt: skip
    """Lower an operation; with ``divide`` on each device's own rows, where types say which."""
    run: Callable = positional(function, form, names, outs)
    if divide and typed(ctx.avals_in):
        run = divided(run, outs, ctx.avals_in, ctx.avals_out)
    with warnings.catch_warnings():
        # jax 0.11 calls Pallas' Triton lowering deprecated: `triton` stands behind two functions.
        warnings.simplefilter("ignore", DeprecationWarning)
        return mlir.lower_fun(run, multiple_results=True)(ctx, *arrays)
