"""Normalization as pure functions of arrays: one file a family."""

from resnorm_jax.ops.norms.adaptive import (
    adaptive_layer_norm,
    adaptive_rms_norm,
    split_modulation,
)
from resnorm_jax.ops.norms.batch import batch_norm, batch_statistics, norm_by_statistics
from resnorm_jax.ops.norms.compressed import compress, crms_norm, expand
from resnorm_jax.ops.norms.core import (
    add_layer_norm,
    add_rms_norm,
    layer_norm,
    rms_norm,
    std_layer_norm,
)
from resnorm_jax.ops.norms.detached import ada_norm, detach_norm
from resnorm_jax.ops.norms.dynamic import seed_norm
from resnorm_jax.ops.norms.group import group_norm
from resnorm_jax.ops.norms.grouped import gated_rms_norm, grouped_rms_norm
from resnorm_jax.ops.norms.kernels.why import why_not
from resnorm_jax.ops.norms.pointwise import POINTWISE, pointwise_norm
from resnorm_jax.ops.norms.power import power_scale
from resnorm_jax.ops.norms.query_key import (
    cosine_query_key,
    henry_scale,
    joint_rms_norm,
    swin_scale,
)
from resnorm_jax.ops.norms.scaled import (
    input_scaled_rms_norm,
    l2_norm,
    llama_rms_norm,
    outside_rms_norm,
    scale_norm,
)
from resnorm_jax.ops.norms.taper import taper_constant, taper_gate, taper_norm

__all__ = [
    "POINTWISE",
    "ada_norm",
    "adaptive_layer_norm",
    "adaptive_rms_norm",
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "batch_statistics",
    "compress",
    "cosine_query_key",
    "crms_norm",
    "detach_norm",
    "expand",
    "gated_rms_norm",
    "group_norm",
    "grouped_rms_norm",
    "henry_scale",
    "input_scaled_rms_norm",
    "joint_rms_norm",
    "l2_norm",
    "layer_norm",
    "llama_rms_norm",
    "norm_by_statistics",
    "outside_rms_norm",
    "pointwise_norm",
    "power_scale",
    "rms_norm",
    "scale_norm",
    "seed_norm",
    "split_modulation",
    "std_layer_norm",
    "swin_scale",
    "taper_constant",
    "taper_gate",
    "taper_norm",
    "why_not",
]
