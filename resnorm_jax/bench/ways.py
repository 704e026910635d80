"""How our training step runs unless somebody chooses: attention, loop over layers, determinism."""

from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.bench.cases import Model
from resnorm_jax.bench.model import optimizer, our_model
from resnorm_jax.ops.attention import choose_attention, why_not_cudnn
from resnorm_jax.training.determinism import determinism
from resnorm_jax.training.step import StepOptions


def step_options(apply: Any) -> StepOptions:
    """Return the options of the step as training has them: the model is told lengths."""
    return StepOptions(apply, optimizer(), by_length=True)


def compiler_options() -> dict[str, Any] | None:
    """Return what XLA is told of our step, as in training: on a GPU, to give the same bits."""
    return dict(determinism(True, jax.default_backend()).options) or None


def defaults(model: Model) -> dict[str, Any]:
    """Return what is chosen for a model: attention, layers in a step of the loop, XLA's options."""
    encoder: Any = our_model(model.size, jnp.dtype(model.dtype), None).encoder
    return {
        "attention": _attention(model),
        "layers a step": encoder.layers_a_step,
        "XLA": ", ".join(compiler_options() or {}) or "as it is",
    }


def _attention(model: Model) -> str:
    size = model.size
    shape = (size.batch, size.length, size.heads, size.width // size.heads)
    asked = jax.ShapeDtypeStruct(shape, jnp.dtype(model.dtype))
    if why_not_cudnn(asked, asked) is None:
        return "cudnn"
    return choose_attention(size.length, size.length)
