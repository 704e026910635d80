"""From a checked config to objects. The one place that joins the two."""

import math
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from resnorm_jax.arrangements import SLOTS
from resnorm_jax.config import Config, ModelConfig
from resnorm_jax.errors import ChoiceError, UserError
from resnorm_jax.modules.classifier import SequenceClassifier
from resnorm_jax.modules.encoder import TransformerEncoder
from resnorm_jax.modules.front_ends import (
    EmbeddingProjection,
    FeatureEmbedding,
    PatchEmbedding,
    TokenEmbedding,
)
from resnorm_jax.modules.heads import HEAD_ACTIVATIONS
from resnorm_jax.modules.pooling import POOLING
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.norms.rows import NORMS
from resnorm_jax.ops.attention import Implementation, choose_attention, why_not_cudnn
from resnorm_jax.ops.attention.relative import RELATIVE
from resnorm_jax.planning import AttentionPlan, FeedForwardPlan, Plan

PATCH = 2
READERS = {
    "patch": "images",
    "kernel": "features",
    "stride": "features",
    **dict.fromkeys(
        (
            "vocabulary",
            "token_types",
            "separator",
            "padding",
            "embedding_multiplier",
            "embedding_std",
        ),
        "tokens",
    ),
}  # by field
TABLES = {
    "positions": POSITIONS.get,
    "pooling": POOLING.get,
    "head_activation": HEAD_ACTIVATIONS.get,
    "head_norm": NORMS.get,
}  # by field
MOST_BYTES = 2**40  # of one array, or of a model's parameters
DEVICE_AXIS = "devices"  # the mapped axis over which the rows of a batch are spread


def build_model(config: Config, meta: dict[str, Any]) -> SequenceClassifier:
    """Return the classifier of a config for a data set.

    Args:
      config: the run's config.
      meta: what `resnorm_jax.data.preprocess.describe` says of the data: ``kind``, ``classes``,
        ``vocabulary``, ``max_length``.

    Raises:
      UserError: naming the field that does not fit.
    """
    planned = check_names(config.model)
    model, kind = config.model, meta["kind"]
    for field, reader in READERS.items():
        if getattr(model, field) is not None and kind != reader:
            raise UserError(f"config.model.{field}: not read: the data are {kind}, not {reader}")
    _check_data(config, meta)
    dtype = jnp.dtype(config.train.precision)
    return classifier(
        model, meta, planned.embedding_gain, len(meta["classes"]), attention_of(config, meta), dtype
    )


def classifier(
    model: ModelConfig,
    meta: Mapping[str, Any],
    embedding_gain: float = 1.0,
    classes: int | None = None,
    attention: Implementation | None = None,
    dtype: Any = None,
) -> SequenceClassifier:
    """Return the module that a checked model's fields describe, for data of which ``meta`` tells."""
    projection = None
    if model.embedding_width is not None:
        projection = EmbeddingProjection(
            model.width, model.embedding_norm, model.norm_epsilon, dtype=dtype
        )
    return SequenceClassifier(
        classes=classes,
        front_end=_front_end(model, meta, dtype, embedding_gain),
        encoder=_encoder(model, dtype, attention),
        positions="none" if POSITIONS.get(model.positions).rotary else model.positions,
        max_length=_max_length(model, meta),
        pooling=pooling_of(model),
        dropout=model.dropout,
        position_offset=model.position_offset or 0,
        projection=projection,
        head_activation=model.head_activation,
        head_norm=model.head_norm,
        head_hidden_bias=model.head_hidden_bias,
        head_bias=model.head_bias,
        norm_epsilon=model.norm_epsilon,
        token_dropout=model.token_dropout,
    )


def pooling_of(model: ModelConfig) -> str:
    """Return how a model pools: as its fields say, or by the mean."""
    return model.pooling or "mean"


def attention_of(config: Config, meta: dict[str, Any]) -> Implementation | None:
    """Return how a run computes attention: as the config says, or what suits its longest sequence.

    None is NVIDIA's kernel where a model is called with lengths, as in training, and elsewhere, as in
    the lab, what suits the lengths: chosen at every call.
    """
    chosen = config.model.attention
    if chosen in ("auto", "cudnn"):
        longest = _longest(config.model, meta)
        cudnn = cudnn_refused(config, meta) is None
        return None if cudnn else choose_attention(longest, longest)
    return cast(Implementation, chosen)


def cudnn_refused(config: Config, meta: dict[str, Any]) -> str | None:
    """Return why NVIDIA's attention does not serve a run, or None where it does."""
    if meta["kind"] == "images":
        return "it takes lengths, and images have none"
    model, longest = config.model, _longest(config.model, meta)
    longest += len(POOLING.get(pooling_of(model)).tokens)
    planned, dtype = check_names(model), jnp.dtype(config.train.precision)
    asked, keys = (
        jax.ShapeDtypeStruct(
            (1, longest, *planned.form.shape(role, model.heads, model.width)), dtype
        )
        for role in ("query", "key")
    )
    return why_not_cudnn(
        asked, keys,
        mask=model.causal or planned.windowed,
        bias=planned.form.relative is not None,
        dropout=model.attention_dropout,
    )  # fmt: skip


def check_attention(config: Config, meta: dict[str, Any]) -> None:
    """Raise UserError where the config asks for NVIDIA's attention, and it cannot be."""
    reason = cudnn_refused(config, meta) if config.model.attention == "cudnn" else None
    if reason is not None:
        raise UserError(f"config.model.attention: 'cudnn': {reason}; take attention=auto")


def attention_line(config: Config, meta: dict[str, Any]) -> str:
    """Return the line in which a run says how it computes attention and, if asked to choose, why."""
    chosen = attention_of(config, meta)
    if chosen is None:
        return "attention: cudnn, by lengths"
    why = f"; not cudnn: {cudnn_refused(config, meta)}" if config.model.attention == "auto" else ""
    return f"attention: {chosen}{why}"


def told_lengths(model: SequenceClassifier) -> bool:
    """Return whether a model is told lengths in place of a mask: where NVIDIA's attention serves."""
    return isinstance(model.encoder, TransformerEncoder) and model.encoder.attention is None


def kernel_and_stride(model: ModelConfig, meta: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many positions of features a token sees, and how many lie from one to the next.

    Where the config gives neither they are the data's: see `resnorm_jax.data.describe`.
    """
    given = model.kernel or model.stride
    stride = model.stride or (1 if given else meta.get("stride", 1))
    return model.kernel or stride, stride


# The config's fields for slots of one kind of sublayer.
FIELDS = {"attention/norm_before": "attention_norm_before"}


def slot_norms(model: ModelConfig) -> dict[str, str]:
    """Return the norms that the config gives by slot."""
    given = {slot: getattr(model, slot) for slot in SLOTS}
    given |= {slot: getattr(model, field) for slot, field in FIELDS.items()}
    if model.embedding_width is not None:  # it stands before the projection to the stream
        given["embedding_norm"] = None
    return {slot: norm for slot, norm in given.items() if norm is not None}


def check_names(model: ModelConfig) -> Plan:
    """Return the plan of the model's encoder.

    Raises:
      UserError: for a name that no table has, a norm that is not read, or choices that do not fit.
    """
    for field, get in TABLES.items():
        try:
            if (name := getattr(model, field)) is not None:
                get(name)
        except UserError as error:
            raise UserError(f"config.model.{field}: {str(error).partition(': ')[2]}") from None
    _check_embeddings(model)
    try:
        planned = _encoder(model).plan(model.width)
    except ChoiceError as error:
        slot, colon, said = str(error).partition(":")
        raise UserError(f"config.model.{FIELDS.get(slot, slot)}{colon}{said}") from None
    _, features = planned.form.shape("query", model.heads, model.width)
    if POSITIONS.get(model.positions).rotary and features % 2:
        of = f"model.width {model.width} / model.heads {model.heads}"
        raise UserError(
            f"config.model.positions: {model.positions!r} turns pairs of features, and a head of "
            f"{'model.head_width' if model.head_width else of} has {features}; "
            "give heads of an even width"
        )
    kernel, stride = kernel_and_stride(model, {})
    if kernel < stride:
        raise UserError(
            f"config.model.kernel: {kernel} is under model.stride {stride}: no token would see the "
            f"positions between; give kernel={stride} or more"
        )
    _check_bytes("model.width", f"{model.width}, with model.depth {model.depth}", _kernels(planned))
    return planned


def _check_embeddings(model: ModelConfig) -> None:
    """Raise UserError for fields of the embeddings and the head that would not be read."""
    limited = POSITIONS.get(model.positions).limited
    unread = (
        ("separator", model.separator is not None and (model.token_types or 0) < 2, "token_types=2"),
        ("position_offset", model.position_offset is not None and not limited, "positions=learned"),
        ("head_hidden_bias", not model.head_hidden_bias and not model.head_activation,
         "head_activation, e.g. tanh"),
    )  # fmt: skip
    for field, wrong, fix in unread:
        if wrong:
            raise UserError(
                f"config.model.{field}: {getattr(model, field)} is not read here; give model.{fix} too"
            )


def _kernels(planned: Plan) -> int:
    """Return how many numbers the kernels of all layers hold, nearly all of a model's."""
    width, inner = planned.width, planned.mlp_width * (2 + planned.activation.gated)
    shapes = [planned.form.shape(role, planned.heads, width) for role in AttentionPlan.roles]
    across = sum(heads * features for heads, features in shapes)
    layers = (s.sublayers for s in planned.segments for _ in range(s.sets))
    branches = (b for sublayers in layers for sublayer in sublayers for b in sublayer.branches)
    return sum(width * (inner if isinstance(b, FeedForwardPlan) else across) for b in branches)


def _check_data(config: Config, meta: dict[str, Any]) -> None:
    """Check what grows with the data: arrays that no machine holds, a kernel that sees padding."""
    model, longest = config.model, _max_length(config.model, meta)
    _check_grid(model, meta)
    kernel, stride = kernel_and_stride(model, meta)
    rows = config.train.batch_size // config.train.accumulate
    size = max(model.width, stride * math.prod(meta["shape"]))
    _check_bytes("train.batch_size", f"{rows} rows of {longest} x {size}", rows * longest * size)
    limit = longest if POSITIONS.get(model.positions).limited else 0
    _check_bytes("model.max_length", f"{limit} learned positions", limit * model.width)
    words = vocabulary_size(model, meta)
    _check_bytes("model.width", f"{model.width}, with {words} tokens", words * model.width)
    positions = stride * model.max_length if model.max_length else meta["max_length"]
    most = positions if stride > 1 else 2 * positions - 1
    if kernel > most:
        raise UserError(
            f"config.model.{'kernel' if model.kernel else 'stride'}: {kernel} reaches past the data's "
            f"longest sequence, {positions}, from every position; give at most {most}"
        )


def _check_grid(model: ModelConfig, meta: Mapping[str, Any]) -> None:
    """Raise UserError where relative positions of patches are asked of other data."""
    if model.relative not in RELATIVE or not RELATIVE.get(model.relative).pairs:
        return
    if meta["kind"] != "images":
        raise UserError(
            f"config.model.relative: {model.relative!r} is of patches of images; the data are "
            f"{meta['kind']}"
        )
    height, width = (size // (model.patch or PATCH) for size in meta["shape"][:2])
    if not height == width == model.relative_buckets:
        raise UserError(
            f"config.model.relative_buckets: {model.relative_buckets}, but the images have {height} x "
            f"{width} patches; only square ones are served, and it is their number along a side"
        )
    if (tokens := len(POOLING.get(pooling_of(model)).tokens)) > 1:
        raise UserError(
            f"config.model.pooling: {model.pooling!r} puts {tokens} tokens before the patches; with "
            f"relative={model.relative!r} at most one may stand there"
        )


def _check_bytes(field: str, what: str, count: int) -> None:
    """Raise UserError for an array of more float32 numbers than a machine holds."""
    if 4 * count > MOST_BYTES:
        raise UserError(
            f"config.{field}: {what}: an array of {4 * count / 2**40:,.0f} TiB, more than a machine "
            "has; make it smaller"
        )


def _encoder(
    model: ModelConfig, dtype: Any = None, attention: Implementation | None = None
) -> TransformerEncoder:
    return TransformerEncoder(
        depth=model.depth,
        layer_groups=model.layer_groups,
        heads=model.heads,
        mlp_width=model.mlp_width,
        arrangement=model.arrangement,
        norm=model.norm,
        norms=FrozenDict(slot_norms(model)),
        norm_epsilon=model.norm_epsilon,
        stream=model.stream,
        query_key=model.query_key,
        activation=model.activation,
        dropout=model.dropout,
        attention_dropout=model.attention_dropout,
        drop_path=model.drop_path,
        rotary=POSITIONS.get(model.positions).rotary,
        use_bias=model.use_bias,
        attention=attention,
        kv_heads=model.kv_heads,
        head_width=model.head_width,
        attention_scale=model.attention_scale,
        causal=model.causal,
        window=model.window,
        rotary_base=model.rotary_base,
        relative=model.relative,
        relative_buckets=model.relative_buckets,
        relative_positions=model.relative_positions,
        relative_by_layer=model.relative_by_layer,
        unroll=model.unroll,
        remat=model.remat,
        remat_every=model.remat_every,
        dtype=dtype,
        axis_name=DEVICE_AXIS,
    )


def _front_end(
    model: ModelConfig, meta: Mapping[str, Any], dtype: Any, embedding_gain: float
) -> nn.Module:
    kernel, stride = kernel_and_stride(model, meta)
    width = model.embedding_width or model.width
    makers = {
        "tokens": lambda: TokenEmbedding(
            width, vocabulary_size(model, meta), model.embedding_std or embedding_gain, dtype=dtype,
            token_types=model.token_types or 0,
            separator=model.separator,
            multiplier=model.embedding_multiplier,
        ),
        "features": lambda: FeatureEmbedding(width, kernel, dtype=dtype, stride=stride),
        "images": lambda: PatchEmbedding(width, model.patch or PATCH, dtype=dtype),
    }  # fmt: skip
    return makers[meta["kind"]]()


def vocabulary_size(model: ModelConfig, meta: Mapping[str, Any]) -> int:
    """Return the rows of the token embedding.

    Raises:
      UserError: where the data have more tokens than the model.
    """
    words = len(meta["vocabulary"])
    if model.vocabulary is not None and model.vocabulary < words:
        raise UserError(
            f"config.model.vocabulary: {model.vocabulary} is under the {words} tokens of the data; "
            "take the tokenizer that belongs to the weights (data.tokenizer)"
        )
    return model.vocabulary or words


def _longest(model: ModelConfig, meta: Mapping[str, Any]) -> int:
    """Return the tokens of the data's longest row."""
    if meta["kind"] != "images":
        return -(-meta["max_length"] // kernel_and_stride(model, meta)[1])
    height, width = meta["shape"][:2]
    patch = model.patch or PATCH
    if height % patch or width % patch:
        raise UserError(f"config.model.patch: {patch} does not divide images of {height} x {width}")
    return (height // patch) * (width // patch)


def _max_length(model: ModelConfig, meta: Mapping[str, Any]) -> int:
    """Return the tokens that learned positions serve: as the config says, or the data's longest."""
    longest, stride = _longest(model, meta), kernel_and_stride(model, meta)[1]
    if model.max_length is not None and model.max_length < longest:
        raise UserError(
            f"config.model.max_length: {model.max_length} is under the data's longest, {longest}"
            + (f" tokens of stride {stride}" if stride > 1 else "")
        )
    return model.max_length or longest
