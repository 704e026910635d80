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

from importlib import import_module
from typing import TYPE_CHECKING, Any

from resnorm_jax.version import __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time see __getattr__
    from resnorm_jax import arrangements, article, norms, streams, testing
    from resnorm_jax.estimators.aeon import AeonTransformerClassifier as AeonTransformerClassifier
    from resnorm_jax.estimators.sklearn import TransformerClassifier as TransformerClassifier
    from resnorm_jax.interop.pretrained import from_pretrained, save_pretrained
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
    from resnorm_jax.norms.named import Norm
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
    from resnorm_jax.runs import load_config, load_run, train

_HOMES = {
    "estimators.aeon": ("AeonTransformerClassifier",),
    "estimators.sklearn": ("TransformerClassifier",),
    "interop.pretrained": ("from_pretrained", "save_pretrained"),
    "modules.attention": ("MultiHeadAttention",),
    "modules.classifier": ("SequenceClassifier",),
    "modules.decoder": ("TransformerDecoder", "TransformerDecoderLayer"),
    "modules.encoder": ("TransformerEncoder", "TransformerEncoderLayer", "layer_parameters"),
    "modules.feed_forward": ("FeedForward",),
    "modules.front_ends": ("FeatureEmbedding", "PatchEmbedding", "TokenEmbedding"),
    "modules.residual_block": ("ResidualBlock",),
    "norms.batch": ("BatchNorm", "GroupNorm"),
    "norms.layer": ("LayerNorm", "RMSNorm"),
    "norms.named": ("Norm",),
    "norms.power": ("PowerNorm",),
    "ops.attention": ("masked_attention",),
    "ops.norms": ("add_layer_norm", "add_rms_norm", "layer_norm", "rms_norm", "std_layer_norm"),
    "ops.residual": ("drop_path", "residual"),
    "planning": ("plan",),
    "runs": ("load_config", "load_run", "train"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_FACES = ("arrangements", "article", "norms", "streams", "testing")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that a command's help need not wait for jax."""
    if name in _FACES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Without the estimators: whoever looks at all names need not have scikit-learn.
    return sorted({*globals(), *__all__})


__all__ = [
    "BatchNorm",
    "FeatureEmbedding",
    "FeedForward",
    "GroupNorm",
    "LayerNorm",
    "MultiHeadAttention",
    "Norm",
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
    "from_pretrained",
    "layer_norm",
    "layer_parameters",
    "load_config",
    "load_run",
    "masked_attention",
    "norms",
    "plan",
    "residual",
    "rms_norm",
    "save_pretrained",
    "std_layer_norm",
    "streams",
    "testing",
    "train",
]
