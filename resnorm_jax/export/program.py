"""A trained classifier as one pure function of arrays, with sizes that are told when it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnorm_jax.build import build_model
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.training.saved_run import Trained

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """What is exported.

    Attributes:
      function: ``(parameters, x, lengths)`` to log-probabilities ``[b, K]`` float32; images have no
        ``lengths``.
      parameters: by name, ``params/encoder/...``.
      shapes: of the inputs, by name: sizes, ``"b"`` for rows, and ``"l"`` or ``"4*l"`` for positions.
      dtypes: of the inputs, by name.
      most: the largest l, or None.
      stride: positions of a row are a multiple of it; what is behind a row's length is not looked at.
    """

    function: Callable[..., jax.Array]
    parameters: Arrays
    shapes: dict[str, tuple[Any, ...]]
    dtypes: dict[str, str]
    most: int | None
    stride: int

    def specs(self) -> list[jax.ShapeDtypeStruct]:
        """Return the inputs' shapes, with symbols, and dtypes."""
        scope = jax.export.SymbolicScope([] if self.most is None else [f"l <= {self.most}"])
        return [
            jax.ShapeDtypeStruct(
                jax.export.symbolic_shape(",".join(map(str, shape)), scope=scope),
                jnp.dtype(self.dtypes[name]),
            )
            for name, shape in self.shapes.items()
        ]


def flat(variables: Any) -> Arrays:
    """Return arrays by name, in the order of names: ``params/encoder/...``."""
    found = flatten_dict(dict(variables), sep="/")
    # Not `np.ascontiguousarray`, which makes an array of one number of a number without axes.
    return {name: np.asarray(found[name], order="C") for name in sorted(found)}


def unflat(parameters: Arrays) -> dict[str, Any]:
    """Return a model's variables from arrays by name."""
    return unflatten_dict(parameters, sep="/")


def program(trained: Trained) -> Program:
    """Return a run's model as a function: dropout off, attention of all queries at once."""
    meta = trained.meta
    model = build_model(trained.config, meta)
    log_probs = trained.task.log_probs
    model = model.clone(encoder=model.encoder.clone(attention="xla"))

    def function(parameters: Arrays, x: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        mask = None if lengths is None else jnp.arange(x.shape[1]) < lengths[:, None]
        logits: Any = model.apply(unflat(parameters), x, mask, deterministic=True)
        return log_probs(logits)

    stride = getattr(model.front_end, "stride", 1)
    positions = "l" if stride == 1 else f"{stride}*l"
    shapes: dict[str, tuple[Any, ...]] = {
        "tokens": {"x": ("b", positions), "lengths": ("b",)},
        "features": {"x": ("b", positions, *meta["shape"]), "lengths": ("b",)},
        "images": {"x": ("b", *meta["shape"])},
    }[meta["kind"]]
    dtypes = {"x": "int32" if meta["kind"] == "tokens" else "float32", "lengths": "int32"}
    # Sines are a table too where the length is a symbol.
    added = POSITIONS.get(trained.config.model.positions).module is not None
    limited = added and meta["kind"] != "images"
    return Program(
        function, flat(trained.variables), shapes, {name: dtypes[name] for name in shapes},
        model.max_length if limited else None, stride,
    )  # fmt: skip
