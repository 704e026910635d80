"""PyTorch's initial values, so that losses start where the article's do."""

import flax.linen as nn
import jax

Initializer = jax.nn.initializers.Initializer


def uniform(bound: float) -> Initializer:
    """Return an initializer of values between ``-bound`` and ``bound``."""

    def init(key, shape, dtype=float, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def linear(features: int, inputs: int, name: str, use_bias: bool = True) -> nn.Dense:
    """`torch.nn.Linear` as it starts: weights and biases uniform within ``1 / sqrt(inputs)``."""
    init = uniform(inputs**-0.5)
    return nn.Dense(features, use_bias, kernel_init=init, bias_init=init, name=name)


def attention_inits(width: int) -> dict[str, Initializer]:
    """`torch.nn.MultiheadAttention` as it starts: Xavier over the joint ``[3 D, D]`` projection."""
    joint, out = uniform((6 / (4 * width)) ** 0.5), uniform(width**-0.5)
    return {"query": joint, "key": joint, "value": joint, "out": out}
