"""The share of each branch's write in a logit.

One definition for all streams: what branches write, ``w_s [L, D]``, is held fixed, so that the logit
is a function of the writes through the stream, its norms, the pooling and the head alone, ``f(w)``;
then ``c_s = <df / dw_s, w_s>``. Two ways to take the derivative, and a check that the parts add up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.lab.explain.model import Case, Seen, places_of

Tree = Any
FIT = 1e-4  # largest relative error of a norm that is taken for linear
COMPLETE = 0.01  # largest error of a sum of parts, of the logit (or of 1 if that is less)
LINEAR = 1e-3  # likewise, of what is taken for linear
NODES = 128  # of the integral


@dataclass
class Attribution:
    """A logit in parts.

    Attributes:
      method: a row of `METHODS`.
      logit: of the class.
      start: what is there without the parts.
      parts: ``(layer, branch, [L])``, contribution of each position's write; layer 0 is the embedding.
    """

    method: "Method"
    logit: float
    start: float
    parts: list[tuple[int, str, np.ndarray]]

    @property
    def residual(self) -> float:
        """``logit - start - sum of parts``: 0 if they are complete."""
        return self.logit - self.start - float(sum(part.sum() for _, _, part in self.parts))

    @property
    def complete(self) -> bool:
        """Whether the parts add up to the logit."""
        return abs(self.residual) <= COMPLETE * max(1.0, abs(self.logit))


def attribute(case: Case, seen: Seen, chosen: int) -> Attribution:
    """Return the parts of a class' logit by the first method that applies."""
    for method in METHODS:
        found = method.run(case, seen, chosen)
        if found is not None:
            start, products = found
            parts = _parts(case.model, products)
            return Attribution(method, float(seen.logits[chosen]), start, parts)
    raise RuntimeError("the last method always applies")


def direct(case: Case, seen: Seen, chosen: int) -> tuple[float, Tree] | None:
    """``c_s = <dg / dw_s, w_s>``, g the logit with the final norm's statistics held fixed.

    Where the stream is a plain sum g is linear in the writes, embedding included, and
    ``sum_s c_s = logit - g(0)``, g(0) being what biases give. Returns None where g is found not to be
    linear: where the parts do not add up at w, or at w with each write scaled by another factor.
    """
    frozen = _frozen_norm(case, seen)
    if frozen is None:
        return None

    def g(writes: Tree) -> jax.Array:
        with nn.intercept_methods(frozen):
            return case.logits(writes)[chosen]

    value, slope = jax.jit(jax.value_and_grad(g))(seen.writes)
    products = _products(slope, seen.writes)
    # Each write, at each position, by a factor of its own: no sum but a plain one passes this.
    rng = np.random.default_rng(0)
    factors = jax.tree.map(lambda p: rng.uniform(-1, 1, p.shape), products)
    mixed = jax.tree.map(lambda f, w: jnp.asarray(f[..., None], w.dtype) * w, factors, seen.writes)
    nothing = jax.tree.map(jnp.zeros_like, seen.writes)
    start, between = (float(jax.jit(g)(writes)) for writes in (nothing, mixed))
    weighted = jax.tree.map(lambda f, p: f * p, factors, products)
    errors = [
        float(value) - float(seen.logits[chosen]),
        start + _total(products) - float(value),
        start + _total(weighted) - between,
    ]
    allowed = LINEAR * max(1.0, abs(float(value)))
    return (start, products) if max(map(abs, errors)) <= allowed else None


def integrated(case: Case, seen: Seen, chosen: int) -> tuple[float, Tree]:
    """``c_s = int_0^1 <df / dw_s (a w), w_s> da``, the embedding kept whole.

    The parts add up to the logit minus that of the embedding alone, up to the error of the integral
    (Gauss-Legendre, 128 nodes), for every stream and norm whose derivative JAX knows.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)

    def f(writes: Tree) -> jax.Array:
        return case.logits(writes)[chosen]

    def scaled(share: Any) -> Tree:
        return jax.tree_util.tree_map_with_path(
            lambda path, w: w if path[-1].key == "opened" else share * w, seen.writes
        )

    def slopes(shares: Any) -> Tree:
        return jax.lax.map(lambda a: jax.grad(f)(scaled(a)), shares)

    along = jax.jit(slopes)(jnp.asarray((nodes + 1) / 2, jnp.float32))
    mean = jax.tree.map(lambda g: np.tensordot(weights / 2, np.asarray(g, np.float64), 1), along)
    inside = dict(_products(mean, seen.writes)["encoder"])
    del inside["opened"]  # it is there from the start
    return float(jax.jit(f)(scaled(0.0))), {"encoder": inside}


@dataclass(frozen=True)
class Method:
    """A row: a way to take the derivative.

    Attributes:
      name: in JSON.
      about: for people.
      start: what the parts are counted from.
      source: of the method, and where we differ.
      run: ``(case, seen, class)`` to start and products; None where it does not apply.
    """

    name: str
    about: str
    start: str
    source: str
    run: Callable[[Case, Seen, int], tuple[float, Tree] | None]


METHODS = (
    Method(
        "direct",
        "direct logit attribution: the stream is a sum, and the statistics of the final norm are held "
        "fixed, so that the parts add up exactly",
        "biases of final norm and head",
        "Elhage et al. 2021 (transformer-circuits.pub, A Mathematical Framework for Transformer "
        "Circuits); the final norm's statistics frozen",
        direct,
    ),
    Method(
        "integrated",
        "integrated gradients while what all branches write grows from 0, branches held fixed and the "
        "embedding kept: stream or norms are not linear, so this split is one of many",
        "logit of the embedding alone, all branches writing 0",
        "Sundararajan et al. 2017 (arXiv 1703.01365), eq. 1, on writes in place of inputs",
        integrated,
    ),
)

# Norms that are linear once their statistic s is known: whether the mean is taken off first.
LINEAR_NORMS = (True, False)


def _frozen_norm(case: Case, seen: Seen) -> Callable[..., Any] | None:
    """Return an interceptor that runs the final norm with its statistics held, None if unknown.

    The norm's own input and output tell: ``out = scale * (z - mean z) / s + bias``, or that without the
    mean, s one number for each position. A norm of which that is not true is not known here.
    """
    met: list[tuple[Any, Any, Any]] = []

    def note(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = run(*args, **kwargs)
        if _is_final(context):
            met.append((args[0], out, context.module.variables.get("params", {})))
        return out

    def watch(writes: Tree) -> Any:
        with nn.intercept_methods(note):
            case.logits(writes)
        return list(met)

    found = jax.jit(watch)(seen.writes)
    if not found:
        return lambda run, args, kwargs, context: run(*args, **kwargs)
    if len(found) > 1:
        return None
    z, out, own = found[0]
    for centred in LINEAR_NORMS:
        inverse, error = fit_norm(np.asarray(z), np.asarray(out), own, centred)
        if error <= FIT:
            return _linear(inverse, centred)
    return None


def fit_norm(
    z: np.ndarray, out: np.ndarray, own: Mapping[str, Any], centred: bool
) -> tuple[np.ndarray, float]:
    """Fit ``1 / s`` of ``out = scale * (z - mean z) / s + bias`` at each position.

    Args:
      z: ``[..., D]``, the norm's input.
      out: its output.
      own: ``scale`` and ``bias``, where it has them.
      centred: whether the mean is taken off.

    Returns:
      ``1 / s``, ``[..., 1]``, and the largest error relative to the largest output.
    """
    wide, target = np.asarray(z, np.float64), np.asarray(out, np.float64)
    wide = (wide - wide.mean(-1, keepdims=True) * centred) * np.asarray(own.get("scale", 1.0))
    target = target - np.asarray(own.get("bias", 0.0))
    squares = (wide**2).sum(-1, keepdims=True)
    inverse = (wide * target).sum(-1, keepdims=True) / np.where(squares > 0, squares, 1.0)
    error = np.abs(wide * inverse - target).max() / max(np.abs(target).max(), 1e-30)
    return inverse, float(error)


def _linear(inverse: np.ndarray, centred: bool) -> Callable[..., Any]:
    def run_linear(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not _is_final(context):
            return run(*args, **kwargs)
        z, own = args[0], context.module.variables.get("params", {})
        z = z - jnp.mean(z, -1, keepdims=True) * centred
        return z * jnp.asarray(inverse, z.dtype) * own.get("scale", 1.0) + own.get("bias", 0.0)

    return run_linear


def _is_final(context: Any) -> bool:
    return context.module.name == "final_norm" and context.method_name == "__call__"


def _total(products: Tree) -> float:
    return sum(float(p.sum()) for p in jax.tree.leaves(products))


def _products(slope: Tree, writes: Tree) -> Tree:
    """``<slope, write>`` over features, in float64."""
    return jax.tree.map(
        lambda g, w: (np.asarray(g, np.float64) * np.asarray(w, np.float64)).sum(-1), slope, writes
    )


def _parts(model: Any, products: Tree) -> list[tuple[int, str, np.ndarray]]:
    inside = products["encoder"]
    parts = [(0, "embedding", np.asarray(inside[k][0])) for k in ("opened",) if k in inside]
    for segment, index, layer, branch in places_of(model):
        parts.append((layer, branch, np.asarray(inside[segment][branch]["branch_out"][index, 0])))
    return parts
