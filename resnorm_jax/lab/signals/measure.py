"""`measure`: every statistic of a model on a batch, one compiled program."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.lab.signals import statistics
from resnorm_jax.lab.signals.groups import group_norms
from resnorm_jax.lab.signals.jacobian import JacobianOptions
from resnorm_jax.lab.signals.passes import Passes
from resnorm_jax.lab.signals.table import STATISTICS
from resnorm_jax.reporting.files import to_plain

Lines = dict[str, jax.Array]
ALL = STATISTICS.names()
CHEAP = tuple(row.name for row in STATISTICS.rows() if row.needs in ("forward", "gradient"))


@dataclass(frozen=True)
class Signals:
    """What was measured.

    Attributes:
      values: statistic (a row of `STATISTICS`) to lines to arrays: ``[N + 1]``, ``[N]``, ``[k]`` or a
        scalar. NaN where a statistic is not defined.
      depth: N.
      notes: how something was found, by statistic.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    depth: int
    notes: Mapping[str, str]

    def line(self, name: str, line: str = "") -> np.ndarray:
        """Return one array: of the line named, or of the first."""
        lines = self.values[name]
        return lines[line or next(iter(lines))]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; NaN as None."""
        return to_plain(
            {"values": dict(self.values), "depth": self.depth, "notes": dict(self.notes)}
        )


def measure(
    model: Any,
    variables: Mapping[str, Any],
    batch: Mapping[str, Any],
    *,
    optimizer: optax.GradientTransformation | None = None,
    only: Iterable[str] = (),
    label_smoothing: float = 0.0,
    jacobian: JacobianOptions | None = None,
    seed: int = 0,
) -> Signals:
    """Measure a model on a batch, dropout off and running statistics as they are.

    Args:
      model: a `SequenceClassifier` around a `TransformerEncoder`.
      variables: of the model.
      batch: as `resnorm_jax.data.TrainBatches` gives.
      optimizer: for the statistics of an update; they are left out without it.
      only: names of statistics; all if empty. What is not asked for is not computed.
      label_smoothing: of the loss.
      jacobian: how singular values are found.
      seed: of what is estimated by random vectors.

    Returns:
      `Signals`.

    Raises:
      UserError: for a statistic that is not known.
    """
    rows = [STATISTICS.get(name) for name in (only or ALL)]
    names = tuple(row.name for row in rows if optimizer is not None or row.needs != "update")
    options = jacobian or JacobianOptions()
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}
    small = _work(model, arrays, names) < SMALL
    found = (_QUICK if small else _THOROUGH)(
        dict(variables), arrays, jax.random.key(seed), model=model, optimizer=optimizer,
        names=names, label_smoothing=label_smoothing, options=options,
    )  # fmt: skip
    found = jax.tree.map(np.asarray, found)
    spectrum = found.pop("jacobian", None)
    if spectrum is None:
        return Signals(found, model.encoder.depth, {})
    values, note = _spectrum(spectrum, options)
    found |= {name: values[name] for name in values if name in names}
    ordered = {name: found[name] for name in names}
    return Signals(ordered, model.encoder.depth, {"jacobian": note})


def _program(
    variables, batch, key, *, model, optimizer, names, label_smoothing, options
) -> dict[str, Any]:
    needs = {STATISTICS.get(name).needs for name in names}
    passes = Passes(
        model, variables, batch, key, optimizer=optimizer, label_smoothing=label_smoothing,
        jacobian=options, gradient=bool(needs & {"gradient", "update"}),
        weights="attention_entropy" in names,
    )  # fmt: skip
    found: dict[str, Any] = {name: COMPUTE[name](passes) for name in names if name in COMPUTE}
    if "jacobian" in needs:
        found["jacobian"] = passes.jacobian()
    return found


_STATIC = ("model", "optimizer", "names", "label_smoothing", "options")
_THOROUGH = jax.jit(_program, static_argnames=_STATIC)
# Compiled in half the time, for programs that run for less than that.
_QUICK = jax.jit(
    _program, static_argnames=_STATIC, compiler_options={"xla_backend_optimization_level": 0}
)
SMALL = 2e8  # multiplications, about


def _work(model: Any, batch: Mapping[str, jax.Array], names: tuple[str, ...]) -> float:
    """Multiplications of one pass, about: those of one width x width product in each layer."""
    x = jax.eval_shape(model.front_end.init_with_output, jax.random.key(0), batch["x"])[0]
    several = 50 if any(STATISTICS.get(name).needs == "jacobian" for name in names) else 1
    return float(several * model.encoder.depth * x.size * x.shape[-1])


def _levels(statistic: Callable[[jax.Array, jax.Array], jax.Array], passes: Passes) -> jax.Array:
    """A statistic ``[N + 1]`` of the stream; the two parts are not joined, which would copy them."""
    named = passes.outcome.named
    last = passes.last_stream(passes.outcome)
    parts = statistic(named["stream_in"], passes.valid), statistic(last[None], passes.valid)
    return jnp.concatenate(parts)


def _full(passes: Passes, name: str, values: jax.Array) -> jax.Array:
    """Values at the layers that have a sublayer, as ``[N]``, NaN elsewhere."""
    layers = passes.layers_with(name)
    if len(layers) == passes.model.encoder.depth:
        return values
    return jnp.full(passes.model.encoder.depth, jnp.nan).at[jnp.array(layers)].set(values)


def _branch_ratio(passes: Passes) -> Lines:
    """Each branch against the stream that it is added to: the one after the sublayer before."""
    named, valid = passes.outcome.named, passes.valid
    names = [n.removesuffix("/branch_out") for n in named if n.endswith("/branch_out")]
    sizes = {
        n: _full(passes, n, statistics.root_mean_square(named[f"{n}/branch_out"], valid))
        for n in names
    }
    streams = {
        n: _full(passes, n, statistics.root_mean_square(named[f"{n}/stream"], valid)) for n in names
    }
    start = statistics.root_mean_square(named["stream_in"], valid)
    before = _before(passes, streams, start)
    return {n: statistics.ratio(sizes[n], before[n]) for n in names}


def _before(passes: Passes, streams: Lines, start: jax.Array) -> Lines:
    """The stream's size before each sublayer, ``[N]`` each."""
    found = dict.fromkeys(streams, jnp.full_like(start, jnp.nan))
    for segment in passes.segments:
        layers = jnp.array([layer.place.layer - 1 for layer in segment.layers])
        size = start
        for sublayer in segment.sublayers:
            name = sublayer.name
            found[name] = found[name].at[layers].set(size[layers])
            size = streams[name]
    return found


def _entropy(passes: Passes) -> Lines:
    found = {n: w for n, w in passes.outcome.named.items() if n.endswith("/weights")}
    return {
        n.removesuffix("/weights"): _full(
            passes, n.removesuffix("/weights"), statistics.attention_entropy(w, passes.valid)
        )
        for n, w in found.items()
    }


def _example_cosine(passes: Passes) -> Lines:
    real = passes.batch["weight"] > 0
    return {"": statistics.mean_pairwise_cosine(passes.outcome.named["pooled"], real)}


def _relative(passes: Passes, which: int) -> Lines:
    steps = group_norms(passes.step, passes.segments)[which]
    sizes = group_norms(passes.variables["params"], passes.segments)[which]
    return {name: statistics.ratio(step, sizes[name]) for name, step in steps.items()}


def _stream_change(passes: Passes) -> Lines:
    before, after = passes.outcome, passes.after
    rms = statistics.root_mean_square
    inner = rms(after.named["stream_in"] - before.named["stream_in"], passes.valid)
    last = rms((passes.last_stream(after) - passes.last_stream(before))[None], passes.valid)
    return {"": jnp.concatenate([inner, last])}


def _logits_change(passes: Passes) -> Lines:
    change = (passes.after.logits - passes.outcome.logits)[:, None]
    return {"": statistics.root_mean_square(change, passes.batch["weight"][:, None] > 0)}


COMPUTE: dict[str, Callable[[Passes], Lines]] = {
    "stream_power": lambda p: {"": _levels(statistics.power, p)},
    "branch_ratio": _branch_ratio,
    "token_cosine": lambda p: {"": _levels(statistics.token_cosine, p)},
    "example_cosine": _example_cosine,
    "attention_entropy": _entropy,
    "stream_gradient": lambda p: p.stream_gradient,
    "layer_gradient": lambda p: group_norms(p.gradient, p.segments)[0],
    "outer_gradient": lambda p: group_norms(p.gradient, p.segments)[1],
    "loss": lambda p: {"": p.loss},
    "layer_update": lambda p: _relative(p, 0),
    "outer_update": lambda p: _relative(p, 1),
    "stream_change": _stream_change,
    "logits_change": _logits_change,
}


def _spectrum(
    found: Mapping[str, np.ndarray], options: JacobianOptions
) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """Singular values and their mean square, from what `Passes.jacobian` gave."""
    if "matrix" in found:
        valid = found["valid"]
        matrix = found["matrix"][valid][:, valid].astype(np.float64)
        values, error = np.linalg.svd(matrix, compute_uv=False), 0.0
        mean = float(np.mean(values**2))
        note = f"exact: all {len(values)} of a matrix"
    else:
        values = np.sort(found["values"])[::-1]
        mean, error = map(float, statistics.mean_and_error(jnp.asarray(found["samples"])))
        note = (
            f"largest {options.block} by {options.depth} Krylov blocks, mean square from "
            f"{options.depth * options.probes} random signs, {options.rows} examples"
        )
    square = {"mean": np.asarray(mean), "standard error": np.asarray(error)}
    return {
        "jacobian_singular_values": {"": values},
        "jacobian_mean_square": square,
    }, note
