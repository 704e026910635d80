"""The article's listings and formulas under its own names, right where the article is not.

The article is a Chinese-language tutorial, "Transformer architecture: residual connections and layer
normalization", with code in PyTorch. What it prints and what stands here differ in five places:

* **Two layer norms.** Its formula (A3, `rn.layer_norm`) divides by ``sqrt(var + eps)`` with the biased
  variance; its listing (A4, `LayerNormalization`) by ``std + eps`` with the unbiased deviation. For
  five features the results differ by a factor ``sqrt(4 / 5) = 0.894``, for 512 by 0.999.
* **A8, a misprint, not built.** Section 4.2 prints ``(X - mu) / sqrt(var + eps) * (W X + b)``: the
  affine part multiplies a linear map of X. Layer norm is ``... * W + b``, elementwise.
* **The worked example.** For X = [1, 2, 3, 4, 5] the article centres to [-2, 0, 0, 1, 2] and divides
  by a vector. Right are [-2, -1, 0, 1, 2], divided by the number ``sqrt(2)``: see `worked_example`.
* **L5 cannot run** as printed: it adds (32, 100) to (32, 512), and reads a batch as one sequence.
  `TransformerModel` projects the skip where widths differ and treats the batch as a batch.
* **L3 has no activation** between its two linear layers, though the text says ReLU:
  `TransformerLayer` is as printed; ``activation="relu"`` is as described.

Masks have **PyTorch's meanings here, the reverse of the rest of this library**, because the
arguments have PyTorch's names: ``src_mask`` and ``src_key_padding_mask`` are True where a position is
*not* looked at.
"""

from resnorm_jax.article.formulas import combined_block, plain_block, post_norm, pre_norm
from resnorm_jax.article.listings import (
    LayerNormalization,
    ResidualBlock,
    Transformer,
    TransformerLayer,
)
from resnorm_jax.article.model import TransformerModel
from resnorm_jax.article.switch import SWITCHES, ReluLayer, Switch, SwitchNetwork
from resnorm_jax.article.worked import worked_example

__all__ = [
    "SWITCHES",
    "LayerNormalization",
    "ReluLayer",
    "ResidualBlock",
    "Switch",
    "SwitchNetwork",
    "Transformer",
    "TransformerLayer",
    "TransformerModel",
    "combined_block",
    "plain_block",
    "post_norm",
    "pre_norm",
    "worked_example",
]
