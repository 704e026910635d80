"""What stands between a sequence's one vector and its logits."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from resnorm_jax.ops.activations import gelu, gelu_tanh
from resnorm_jax.registry import Registry


@dataclass(frozen=True)
class HeadActivation:
    """A row: the activation of a head's hidden layer."""

    name: str
    function: Callable[[jax.Array], jax.Array]
    source: str


HEAD_ACTIVATIONS: Registry[HeadActivation] = Registry(
    "head_activation",
    (
        HeadActivation("tanh", jnp.tanh, "the pooler of Devlin et al. 2018 (google-research/bert)"),
        HeadActivation("relu", jax.nn.relu, "Sanh et al. 2019 (arXiv 1910.01108)"),
        HeadActivation("gelu", gelu, "Clark et al. 2020 (google-research/electra)"),
        HeadActivation("gelu_tanh", gelu_tanh, "gelu_new of huggingface/transformers"),
    ),
)
