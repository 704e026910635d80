"""Arithmetic of a training step, and what devices can do at most: model FLOP utilization."""

import re

from resnorm_jax.bench.model import Size

# Dense products of matrices a second, by dtype of the computation, for one device as JAX counts them.
# float32 is TF32 where JAX takes that by default. Sources: NVIDIA's data sheets of A100 (June 2021),
# H100 (2023), H200 (2024) and L4 (2023), the figures without sparsity; Google's "System architecture"
# pages of Cloud TPU v4, v5e, v5p and v6e.
PEAKS: dict[str, dict[str, float]] = {
    r"NVIDIA H200": {"bfloat16": 989e12, "float16": 989e12, "float32": 494e12},
    r"NVIDIA H100 (80GB HBM3|SXM)": {"bfloat16": 989e12, "float16": 989e12, "float32": 494e12},
    r"NVIDIA H100 PCIe": {"bfloat16": 756e12, "float16": 756e12, "float32": 378e12},
    r"NVIDIA A100": {"bfloat16": 312e12, "float16": 312e12, "float32": 156e12},
    r"NVIDIA L4$": {"bfloat16": 121e12, "float16": 121e12, "float32": 60e12},
    r"TPU v4$": {"bfloat16": 275e12},
    r"TPU v5( lite|e)$": {"bfloat16": 197e12},
    r"TPU v5p?$": {"bfloat16": 459e12},
    r"TPU v6( lite|e)$": {"bfloat16": 918e12},
}


def peak_flops(device: str, dtype: str) -> float | None:
    """Return the operations a second of a device, by JAX's name of its kind; None if not known."""
    for pattern, peaks in PEAKS.items():
        if re.match(pattern, device):
            return peaks.get(dtype)
    return None


def model_flops(size: Size, parameters: int) -> float:
    """Return the operations of one update that the model asks for, nothing computed again.

    ``6 N B L + 12 depth B L^2 width``: each of N parameters costs a multiplication and an addition
    for each token, the backward pass twice that; the second term is the scores and the weighted sums
    of attention. Source: Chowdhery et al. 2022 (arXiv 2204.02311), appendix B; there as here without
    the optimizer, norms and softmax.
    """
    tokens = size.batch * size.length
    return 6.0 * parameters * tokens + 12.0 * size.depth * tokens * size.length * size.width


def utilization(flops: float, seconds: float, peak: float | None) -> float | None:
    """Return the share of the peak that was used, or None where the peak is not known."""
    return None if peak is None else flops / seconds / peak
