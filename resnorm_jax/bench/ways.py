"""How our training step runs unless somebody chooses: attention, loop over layers, determinism."""

import importlib
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.bench.cases import Model
from resnorm_jax.bench.model import optimizer, our_model
from resnorm_jax.ops import attention
from resnorm_jax.training.step import StepOptions


def step_options(apply: Any) -> StepOptions:
    """Return the options of the step as training has them: lengths are told where there is such."""
    known = {field.name for field in fields(StepOptions)}
    return StepOptions(apply, optimizer(), **({"by_length": True} if "by_length" in known else {}))


def compiler_options() -> dict[str, Any] | None:
    """Return what XLA is told of our step, as in training: on a GPU, to give the same bits."""
    try:
        found = importlib.import_module("resnorm_jax.training.determinism")
    except ImportError:  # a version without it
        return None
    return dict(found.determinism(True, jax.default_backend()).options) or None


def defaults(model: Model) -> dict[str, Any]:
    """Return what is chosen for a model: attention, layers in a step of the loop, XLA's options."""
    encoder: Any = our_model(model.size, jnp.dtype(model.dtype), None).encoder
    options = compiler_options()
    return {
        "attention": _attention(model),
        "layers a step": getattr(encoder, "layers_a_step", encoder.unroll),
        "XLA": ", ".join(options) if options else "as it is",
    }


def _attention(model: Model) -> str:
    size = model.size
    shape = (size.batch, size.length, size.heads, size.width // size.heads)
    asked = jax.ShapeDtypeStruct(shape, jnp.dtype(model.dtype))
    refused = getattr(attention, "why_not_cudnn", lambda *_: "")(asked, asked)
    return "cudnn" if refused is None else attention.choose_attention(size.length, size.length)
