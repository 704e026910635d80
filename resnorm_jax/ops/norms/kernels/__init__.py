"""Norms over the last axis: XLA reference, kernels for GPUs, and the primitives that choose."""
