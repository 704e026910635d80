"""The primitives of a norm over the last axis, with every rule that JAX's transformations ask for.

- `forward_p` gives the norm and, where it is differentiated, three numbers of each row (for an RMS norm
  one) to spare the backward pass the statistics;
- `tangent_p` is its derivative, linear in the tangents of ``x``, ``scale`` and ``bias``;
- `backward_p` is the transpose of `tangent_p`, and `tangent_p` that of `backward_p`: one fused pass.

What else is differentiated, batched over parameters or over tangents alone, goes through plain XLA
operations (`smooth`): forward mode, reverse mode and both over each other work to any order. The kernel
is chosen where the program is lowered, not where it is traced.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from resnorm_jax.ops.norms.kernels import lowering, reference, smooth
from resnorm_jax.ops.norms.kernels.form import (
    BACKWARD,
    FORWARD,
    PARAMETERS,
    STATISTICS,
    TANGENT,
    Form,
    Names,
    Operands,
    pack,
    positional,
)

LINEAR = ("dx", "dscale", "dbias")


def norm(form: Form, operands: Operands, stream: bool = False) -> Operands:
    """Return ``y`` and, if it is asked for, ``stream``; operands as `FORWARD` names them."""
    outs = ("y", "stream") if stream else ("y",)
    return _bind(forward_p, FORWARD, form, outs, _varying_alike(operands))


def _varying_alike(operands: Operands) -> Operands:
    """Inside `shard_map`: mark all operands as varying over the axes that any varies over.

    The gradient of a parameter that is the same on all devices is then summed over these.
    """
    operands = {name: array for name, array in operands.items() if array is not None}
    axes = {name: _varying(a) for name, a in operands.items()}
    everywhere = frozenset().union(*axes.values())
    for name, own in axes.items():
        if everywhere - own:
            missing = tuple(sorted(everywhere - own))
            operands[name] = jax.lax.pcast(operands[name], missing, to="varying")
    return operands


def _varying(array: jax.Array) -> frozenset:
    """Return the names of the mesh's axes over which an array varies."""
    return jax.typeof(array).manual_axis_type.varying


_OPERATIONS: ContextVar[bool] = ContextVar("in_operations", default=False)


@contextmanager
def in_operations() -> Iterator[None]:
    """Trace XLA's operations in place of the primitives, for converters that know JAX's own alone."""
    before = _OPERATIONS.set(True)
    try:
        yield
    finally:
        _OPERATIONS.reset(before)


def _bind(
    primitive: Primitive, order: Names, form: Form, outs: Names, operands: Operands
) -> Operands:
    names, arrays = pack(operands, order)
    if _OPERATIONS.get():
        function = getattr(reference, primitive.name.removeprefix("norm_"))
        return dict(zip(outs, positional(function, form, names, outs)(*arrays), strict=True))
    found = primitive.bind(*arrays, form=form, names=names, outs=outs)
    return dict(zip(outs, found, strict=True))


def _define(name: str) -> Primitive:
    """Make a primitive of what `reference`, `smooth` and `lowering` have under one name."""
    primitive = Primitive(f"norm_{name}")
    primitive.multiple_results = True
    primitive.def_impl(partial(_run, primitive))
    primitive.def_abstract_eval(partial(_abstract, getattr(reference, name)))
    batching.primitive_batchers[primitive] = partial(_batch, primitive, getattr(smooth, name))
    for platform, rule in lowering.rules(name).items():
        mlir.register_lowering(primitive, rule, platform=platform)
    return primitive


def _run(primitive: Primitive, *arrays: jax.Array, **static: Any) -> list[jax.Array]:
    """Run outside of any transformation: compiled, also under `jax.disable_jit`."""
    with jax.disable_jit(False):
        return _compiled(primitive, tuple(sorted(static.items())))(*arrays)


@cache
def _compiled(primitive: Primitive, static: tuple[tuple[str, Any], ...]) -> Callable:
    def run(*arrays: jax.Array) -> list[jax.Array]:
        return primitive.bind(*arrays, **dict(static))

    run.__name__ = primitive.name
    return jax.jit(run)


@lru_cache(maxsize=4096)
def _abstract(function: Callable, *avals: Any, form: Form, names: Names, outs: Names) -> list[Any]:
    """Return what comes out: shapes, dtypes, and over which axes of a mesh it is laid or varies."""
    return list(jax.make_jaxpr(positional(function, form, names, outs))(*avals).out_avals)


def _batch(
    primitive: Primitive,
    function: Callable,
    arrays: Sequence[jax.Array],
    dims: Sequence[int | None],
    *,
    form: Form,
    names: Names,
    outs: Names,
) -> tuple[list[jax.Array], list[int]]:
    """Take a batch as more rows, if all rows and no parameters are of it."""
    as_rows = all(
        (dim is None) == (name in PARAMETERS) for name, dim in zip(names, dims, strict=True)
    )
    if as_rows and not set(outs) & set(PARAMETERS):
        moved = [
            a if d is None else jax.numpy.moveaxis(a, d, 0)
            for a, d in zip(arrays, dims, strict=True)
        ]
        found = primitive.bind(*moved, form=form, names=names, outs=outs)
    else:
        each = positional(function, form, names, outs)
        found = jax.vmap(each, in_axes=tuple(dims))(*arrays)
    return found, [0] * len(found)


# --- Derivatives ---


def _zero(array: Any) -> ad.Zero:
    return ad.Zero(jax.typeof(array).to_tangent_aval())


def _moving(names: Names, tangents: Sequence[Any]) -> Operands:
    """Return the tangents that are not zero, by the names of their operands."""
    pairs = zip(names, tangents, strict=True)
    return {name: t for name, t in pairs if type(t) is not ad.Zero}


def _add(a: Any, b: Any) -> Any:
    """Return the sum of two arrays, each of which may be None."""
    return b if a is None else a if b is None else jax.numpy.add(a, b)


def _results(outs: Names, found: Operands, tangents: Operands) -> tuple[list[Any], list[Any]]:
    moved = [tangents.get(name) for name in outs]
    zeros = [_zero(found[n]) if t is None else t for n, t in zip(outs, moved, strict=True)]
    return [found[name] for name in outs], zeros


def _residuals(operands: Operands) -> Operands:
    return {n: operands[n] for n in ("x", "scale", *STATISTICS) if n in operands}


def _forward_jvp(primals, tangents, *, form: Form, names: Names, outs: Names):
    operands, moving = dict(zip(names, primals, strict=True)), _moving(names, tangents)
    given = tuple(name for name in outs if name in ("y", "stream"))
    found = _bind(forward_p, FORWARD, form, given + form.statistics, operands)
    base = _residuals({**operands, **found, "x": found.get("stream", operands["x"])})
    linear = {
        "dx": _add(moving.get("x"), moving.get("branch")),
        "dscale": moving.get("scale"),
        "dbias": moving.get("bias"),
    }
    tangent = _tangent(form, "stream" in outs, base, linear)
    return _results(outs, found, {"y": tangent.get("dy"), "stream": tangent.get("dstream")})


def _tangent(form: Form, stream: bool, base: Operands, linear: Operands) -> Operands:
    """Return ``dy`` and ``dstream`` as far as they are not zero."""
    linear = {name: t for name, t in linear.items() if t is not None}
    if not linear:
        return {}
    outs = ("dy", "dstream") if stream and "dx" in linear else ("dy",)
    return _bind(tangent_p, TANGENT, form, outs, {**base, **linear})


def _tangent_jvp(primals, tangents, *, form: Form, names: Names, outs: Names):
    operands, moving = dict(zip(names, primals, strict=True)), _moving(names, tangents)
    found = _bind(tangent_p, TANGENT, form, outs, operands)
    linear = {name: moving.get(name) for name in LINEAR}
    moved = _tangent(form, "dstream" in outs, _residuals(operands), linear)
    bent = _bent(smooth.tangent, form, ("dy",), operands, moving)
    return _results(outs, found, {**moved, "dy": _add(moved.get("dy"), bent.get("dy"))})


def _bent(
    function: Callable, form: Form, outs: Names, operands: Operands, moving: Operands
) -> Operands:
    """Derivative of a linear operation in what it is not linear in, ``x`` and ``scale``."""
    moving = {name: t for name, t in moving.items() if name in ("x", "scale")}
    if not moving or not outs:
        return {}

    def run(at: Operands) -> Operands:
        return function(form, outs, {**operands, **at})

    _, tangents = jax.jvp(run, ({name: operands[name] for name in moving},), (moving,))
    return {name: tangents[name] for name in outs}


def _tangent_transpose(cotangents, *arrays, form: Form, names: Names, outs: Names):
    given = dict(zip(names, arrays, strict=True))
    wants = tuple(name for name in LINEAR if ad.is_undefined_primal(given.get(name)))
    moving = _moving(outs, cotangents)
    found = _backward(form, wants, _residuals(given), moving.get("dy"), moving.get("dstream"))
    return [found.get(name) for name in names]


def _backward(form: Form, wants: Names, base: Operands, g: Any, stream_g: Any) -> Operands:
    """Return what ``wants`` names, as far as it is not zero; ``stream_g`` is added to ``dx``."""
    if not wants:
        return {}
    if g is None:
        return {"dx": stream_g} if "dx" in wants and stream_g is not None else {}
    given = {**base, "g": g, "stream_g": stream_g if "dx" in wants else None}
    return _bind(backward_p, BACKWARD, form, wants, given)


def _backward_jvp(primals, tangents, *, form: Form, names: Names, outs: Names):
    operands, moving = dict(zip(names, primals, strict=True)), _moving(names, tangents)
    found = _bind(backward_p, BACKWARD, form, outs, operands)
    moved = _backward(form, outs, _residuals(operands), moving.get("g"), moving.get("stream_g"))
    still = {name: array for name, array in operands.items() if name != "stream_g"}
    bent = _bent(smooth.backward, form, outs, still, moving)
    return _results(outs, found, {n: _add(moved.get(n), bent.get(n)) for n in outs})


def _backward_transpose(cotangents, *arrays, form: Form, names: Names, outs: Names):
    given = dict(zip(names, arrays, strict=True))
    moving = _moving(outs, cotangents)
    found = {"stream_g": moving.get("dx")}
    if ad.is_undefined_primal(given["g"]):
        found["g"] = _tangent(form, False, _residuals(given), moving).get("dy")
    return [found.get(n) if ad.is_undefined_primal(given[n]) else None for n in names]


forward_p = _define("forward")
tangent_p = _define("tangent")
backward_p = _define("backward")
ad.primitive_jvps[forward_p] = _forward_jvp
ad.primitive_jvps[tangent_p] = _tangent_jvp
ad.primitive_jvps[backward_p] = _backward_jvp
ad.primitive_transposes[tangent_p] = _tangent_transpose
ad.primitive_transposes[backward_p] = _backward_transpose
