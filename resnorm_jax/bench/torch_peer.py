"""The same norms and classifier in torch, which is imported only here and only when asked for."""

import gc
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from resnorm_jax.bench.model import LEARNING_RATE, WEIGHT_DECAY, Size
from resnorm_jax.modules.encoder import layer_parameters
from resnorm_jax.reporting.environment import cores

EPSILON = 1e-6


def unavailable() -> str | None:
    """Return why torch cannot be a peer here, or None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "pip install 'resnorm_jax[torch]'"
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return "this torch has no GPU"
    if jax.default_backend() not in ("cpu", "gpu"):
        return f"torch has no {jax.default_backend()}"
    torch.set_num_threads(cores())
    return None


def device() -> str:
    """Return torch's name of the device that jax computes on."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def tensor(array: Any, dtype_name: str | None = None) -> Any:
    """Copy an array to a tensor on the device, in the named dtype or its own."""
    import torch

    dtype = None if dtype_name is None else getattr(torch, dtype_name)
    return torch.tensor(np.asarray(array), device=device()).to(dtype=dtype)


def shared(array: jax.Array, dtype_name: str) -> Any:
    """Return a tensor of its own with an array's numbers, without a way through the host."""
    import torch

    return torch.from_dlpack(array).to(dtype=getattr(torch, dtype_name), copy=True)


def release() -> None:
    """Give back the memory of what is no longer there."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def peak_bytes(work: Callable[[], Any]) -> float | None:
    """Return how many bytes a call takes at most beside what is there; None but on a GPU."""
    import torch

    if device() != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)


def norm(kind: str, width: int, dtype_name: str) -> Any:
    """Return ``torch.nn.LayerNorm`` (``"layer"``) or ``RMSNorm`` (``"rms"``)."""
    import torch

    module = {"layer": torch.nn.LayerNorm, "rms": torch.nn.RMSNorm}[kind]
    return module(width, eps=EPSILON, device=device(), dtype=getattr(torch, dtype_name))


def normalized(x: np.ndarray, dtype_name: str) -> np.ndarray:
    """Return ``torch.nn.LayerNorm``'s output for rows given in float32, as float64."""
    import torch

    with torch.no_grad():
        out = norm("layer", x.shape[-1], dtype_name)(tensor(x, dtype_name))
    return out.to(torch.float64).cpu().numpy()


def classifier(size: Size, params: Any) -> Any:
    """Return the classifier as a ``torch.nn.Module`` with this library's parameters."""
    model = _new_classifier(size).to(device())
    model.load_state_dict({name: tensor(value) for name, value in _state(size, params).items()})
    return model


def step(
    size: Size, params: Any, batch: dict[str, np.ndarray], dtype_name: str, compiled: bool = False
) -> tuple[Callable[[], Any], int]:
    """Return a function that does one more update, and the number of parameters.

    Args:
      size: of the model.
      params: this library's, to begin with.
      batch: as `random_batch` makes it.
      dtype_name: of the computation; parameters are float32.
      compiled: whether the model runs through ``torch.compile``.
    """
    import torch

    model = classifier(size, params).train()
    run = _compiled(model) if compiled else model
    adamw = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    x, y, mask = (tensor(batch[name]) for name in ("x", "y", "mask"))
    y = y.long()
    low = dtype_name != "float32"

    def update() -> Any:
        with torch.autocast(device(), dtype=torch.bfloat16, enabled=low):
            logits = run(x, mask)
        loss = torch.nn.functional.cross_entropy(logits.float(), y)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        return loss.detach()

    return update, sum(p.numel() for p in model.parameters())


def _compiled(model: Any) -> Any:
    import torch
    import torch._functorch.config as config

    config.donated_buffer = True  # as by default; compiled norms turn it off
    return torch.compile(model, dynamic=False)


def _new_classifier(size: Size) -> Any:
    import torch
    from torch import nn

    class TorchClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(size.channels, size.width)
            self.positions = nn.Parameter(torch.zeros(size.length, size.width))
            layer = nn.TransformerEncoderLayer(
                size.width, size.heads, size.mlp_width, dropout=0.0, activation="gelu",
                layer_norm_eps=EPSILON, batch_first=True, norm_first=True,
            )  # fmt: skip
            final = nn.LayerNorm(size.width, eps=EPSILON)
            self.encoder = nn.TransformerEncoder(
                layer, size.depth, final, enable_nested_tensor=False
            )
            self.head = nn.Linear(size.width, size.classes)

        def forward(self, x: Any, mask: Any) -> Any:
            h = self.encoder(self.project(x) + self.positions, src_key_padding_mask=~mask)
            valid = mask[..., None]
            return self.head((h * valid).sum(1) / valid.sum(1).clamp(min=1))

    return TorchClassifier()


def _state(size: Size, params: Any) -> dict[str, np.ndarray]:
    """Return this library's parameters under torch's names, in torch's layouts."""
    encoder = params["encoder"]
    state = {
        **_linear("project", params["front_end"]["project"]),
        "positions": params["positions"]["embedding"],
        **_norm("encoder.norm", encoder["final_norm"]),
        **_linear("head", params["head"]),
    }
    for index in range(size.depth):
        layer, at = layer_parameters(encoder, index + 1), f"encoder.layers.{index}"
        attention, feed_forward = layer["attention"]["branch"], layer["feed_forward"]["branch"]
        qkv = [attention[role] for role in ("query", "key", "value")]
        kernels = [np.asarray(p["kernel"]).reshape(size.width, -1).T for p in qkv]
        out = {
            "kernel": np.asarray(attention["out"]["kernel"]).reshape(-1, size.width),
            "bias": attention["out"]["bias"],
        }
        state |= {
            f"{at}.self_attn.in_proj_weight": np.concatenate(kernels),
            f"{at}.self_attn.in_proj_bias": np.concatenate([p["bias"].ravel() for p in qkv]),
            **_linear(f"{at}.self_attn.out_proj", out),
            **_linear(f"{at}.linear1", feed_forward["fc1"]),
            **_linear(f"{at}.linear2", feed_forward["fc2"]),
            **_norm(f"{at}.norm1", layer["attention"]["norm_before"]),
            **_norm(f"{at}.norm2", layer["feed_forward"]["norm_before"]),
        }
    return state


def _linear(name: str, dense: Any) -> dict[str, Any]:
    return {f"{name}.weight": np.asarray(dense["kernel"]).T, f"{name}.bias": dense["bias"]}


def _norm(name: str, norm: Any) -> dict[str, Any]:
    return {f"{name}.weight": norm["scale"], f"{name}.bias": norm["bias"]}
