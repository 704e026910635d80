"""Normalization as pure functions of arrays: one file a family."""

from resnorm_jax.ops.norms.batch import batch_norm, batch_statistics, norm_by_statistics
from resnorm_jax.ops.norms.core import (
    add_layer_norm,
    add_rms_norm,
    layer_norm,
    rms_norm,
    std_layer_norm,
)
from resnorm_jax.ops.norms.detached import ada_norm, detach_norm
from resnorm_jax.ops.norms.group import group_norm
from resnorm_jax.ops.norms.pointwise import POINTWISE, pointwise_norm
from resnorm_jax.ops.norms.power import power_scale
from resnorm_jax.ops.norms.scaled import (
    input_scaled_rms_norm,
    l2_norm,
    llama_rms_norm,
    outside_rms_norm,
    scale_norm,
)

__all__ = [
    "POINTWISE",
    "ada_norm",
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "batch_statistics",
    "detach_norm",
    "group_norm",
    "input_scaled_rms_norm",
    "l2_norm",
    "layer_norm",
    "llama_rms_norm",
    "norm_by_statistics",
    "outside_rms_norm",
    "pointwise_norm",
    "power_scale",
    "rms_norm",
    "scale_norm",
    "std_layer_norm",
]
