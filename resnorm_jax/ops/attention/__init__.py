"""Masked attention. Not what this library is about: others' do the work where they are fast.

`jax.nn.dot_product_attention` keeps the weights of all queries for the backward pass. At 16 series of
1,344 positions and 8 heads these are some gigabytes, and a CPU, whose caches they do not fit, spends
its time waiting. ``chunked`` attends for a few queries at a time and computes the weights again going
backward; on NVIDIA cuDNN's flash attention does, where lengths are known.
"""

from resnorm_jax.ops.attention.choice import (
    IMPLEMENTATIONS,
    Implementation,
    choose_attention,
    why_not_cudnn,
)
from resnorm_jax.ops.attention.masked import attention_weights, masked_attention
from resnorm_jax.ops.attention.rotary import rotate

__all__ = [
    "IMPLEMENTATIONS",
    "Implementation",
    "attention_weights",
    "choose_attention",
    "masked_attention",
    "rotate",
    "why_not_cudnn",
]
