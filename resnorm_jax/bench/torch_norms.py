"""Norms of torch and of libraries on it, as functions of tensors. All are imported when called.

The calls are those of torch 2.13, liger-kernel 0.8 and quack-kernels 0.6.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.cases import NormCase
from resnorm_jax.bench.norm_works import Works

EPSILON = torch_peer.EPSILON
Function = Callable[..., Any]


def torch_works(function: Function, inputs: Sequence[jax.Array], cotangent: Any) -> Works:
    """Return the programs of a function of tensors; weights have the dtype of the input.

    The gradient of a branch, which is that of the stream, is not asked for.
    """
    import torch

    dtype = str(inputs[0].dtype)
    tensors = [torch_peer.shared(a, dtype) for a in inputs]
    added = isinstance(cotangent, tuple)
    wanted = [t.requires_grad_() for i, t in enumerate(tensors) if not (added and i == 1)]
    given = [torch_peer.shared(a, dtype) for a in jax.tree.leaves(cotangent)]

    def forward() -> Any:
        with torch.no_grad():
            return function(*tensors)

    def gradients(outputs: Any) -> Any:
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return torch.autograd.grad(outputs, wanted, given, retain_graph=True)

    outputs = function(*tensors)
    return {
        "forward": [forward],
        "backward": [lambda: gradients(outputs)],
        "both": [lambda: gradients(function(*tensors))],
    }


def eager(case: NormCase) -> Function:
    """Return torch's own functions, one call after the other."""
    import torch.nn.functional as F

    width = case.shape[-1:]
    norms: dict[str, Function] = {
        "layer": lambda x, w, b: F.layer_norm(x, width, w, b, EPSILON),
        "rms": lambda x, w: F.rms_norm(x, width, w, EPSILON),
    }
    norm = norms[case.kind]
    if not case.added:
        return norm

    def added(x: Any, branch: Any, *weights: Any) -> Any:
        total = x + branch
        return norm(total, *weights), total

    return added


def compiled(case: NormCase) -> Function:
    """Return the same through ``torch.compile``."""
    import torch
    import torch._functorch.config as config

    config.donated_buffer = False  # the backward pass is repeated, on what was saved once
    torch._dynamo.reset()  # it gives up after some shapes
    return torch.compile(eager(case), dynamic=False)


def liger(case: NormCase) -> Function:
    """Return Liger's Triton kernels."""
    from liger_kernel.ops.fused_add_rms_norm import LigerFusedAddRMSNormFunction
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    options = (EPSILON, 0.0, "llama", False)  # offset of the scale, order of casts, in place
    norms: dict[str, Function] = {
        "layer": lambda x, w, b: LigerLayerNormFunction.apply(x, w, b, EPSILON),
        "rms": lambda x, w: LigerRMSNormFunction.apply(x, w, *options),
        "add+rms": lambda x, r, w: LigerFusedAddRMSNormFunction.apply(x, r, w, *options),
    }
    return norms[case.norm]


def quack(case: NormCase) -> Function:
    """Return QuACK's CuTe kernels."""
    from quack import rmsnorm

    norms: dict[str, Function] = {
        "rms": lambda x, w: rmsnorm(x, w, eps=EPSILON),
        "add+rms": lambda x, r, w: rmsnorm(x, w, residual=r, eps=EPSILON, prenorm=True),
    }
    return norms[case.norm]
