"""resnorm_jax: how a Transformer normalizes and how it adds, in JAX and Flax.

Axis letters, used in names such as ``x_BxLxD`` wherever the rank is fixed:

====== ==========================================
letter axis
====== ==========================================
B      rows of a batch
L, T   positions of a sequence; of the queries
S      positions of the keys
D      width of the stream
H      attention heads
K      width of a head, D / H
C      channels of the input
N      layers
====== ==========================================
"""

from resnorm_jax import arrangements, article, norms, streams
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.modules.classifier import SequenceClassifier
from resnorm_jax.modules.decoder import TransformerDecoder, TransformerDecoderLayer
from resnorm_jax.modules.encoder import (
    TransformerEncoder,
    TransformerEncoderLayer,
    layer_parameters,
)
from resnorm_jax.modules.feed_forward import FeedForward
from resnorm_jax.modules.front_ends import FeatureEmbedding, PatchEmbedding, TokenEmbedding
from resnorm_jax.modules.residual_block import ResidualBlock
from resnorm_jax.norms.batch import BatchNorm, GroupNorm
from resnorm_jax.norms.layer import LayerNorm, RMSNorm
from resnorm_jax.norms.power import PowerNorm
from resnorm_jax.ops.attention import masked_attention
from resnorm_jax.ops.norms import (
    add_layer_norm,
    add_rms_norm,
    layer_norm,
    rms_norm,
    std_layer_norm,
)
from resnorm_jax.ops.residual import drop_path, residual
from resnorm_jax.planning import plan
from resnorm_jax.version import __version__

__all__ = [
    "BatchNorm",
    "FeatureEmbedding",
    "FeedForward",
    "GroupNorm",
    "LayerNorm",
    "MultiHeadAttention",
    "PatchEmbedding",
    "PowerNorm",
    "RMSNorm",
    "ResidualBlock",
    "SequenceClassifier",
    "TokenEmbedding",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "__version__",
    "add_layer_norm",
    "add_rms_norm",
    "arrangements",
    "article",
    "drop_path",
    "layer_norm",
    "layer_parameters",
    "masked_attention",
    "norms",
    "plan",
    "residual",
    "rms_norm",
    "std_layer_norm",
    "streams",
]
