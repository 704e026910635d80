"""From a checked config to objects. The one place that joins the two."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from resnorm_jax import arrangements, norms
from resnorm_jax.config import Config, ModelConfig
from resnorm_jax.errors import UserError, check_choice
from resnorm_jax.modules.classifier import SequenceClassifier
from resnorm_jax.modules.encoder import TransformerEncoder
from resnorm_jax.modules.feed_forward import ACTIVATIONS
from resnorm_jax.modules.front_ends import FeatureEmbedding, PatchEmbedding, TokenEmbedding
from resnorm_jax.modules.pooling import POOLING
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.modules.query_key import QUERY_KEY
from resnorm_jax.modules.stack import REMAT, check_blocks, check_read, choose
from resnorm_jax.ops.streams import STREAMS

PATCH = 2
DEVICE_AXIS = "devices"  # the mapped axis over which the rows of a batch are spread
# Fields of the config that are fields of the encoder.
ENCODER = sorted(
    {f.name for f in fields(ModelConfig)} & {f.name for f in fields(TransformerEncoder)}
)


def build_model(config: Config, meta: dict[str, Any]) -> SequenceClassifier:
    """Return the classifier of a config for a data set.

    Args:
      config: the run's config.
      meta: what `resnorm_jax.data.preprocess.describe` says of the data: ``kind``, ``classes``,
        ``vocabulary``, ``max_length``.

    Raises:
      UserError: naming the field that does not fit.
    """
    check_names(config.model)
    model, kind = config.model, meta["kind"]
    dtype = jnp.dtype(config.train.precision)
    positions = POSITIONS.get(model.positions)
    for field, reader in (("patch", "images"), ("kernel", "features")):
        if getattr(model, field) is not None and kind != reader:
            raise UserError(f"config.model.{field}: not read: the data are {kind}, not {reader}")
    return SequenceClassifier(
        classes=len(meta["classes"]),
        front_end=_front_end(model, meta, dtype),
        encoder=TransformerEncoder(
            **{name: getattr(model, name) for name in ENCODER},
            norms=FrozenDict(slot_norms(model)),
            rotary=positions.rotary,
            dtype=dtype,
            axis_name=DEVICE_AXIS,
        ),
        positions="none" if positions.rotary else model.positions,
        max_length=_max_length(model, meta),
        pooling=model.pooling,
        dropout=model.dropout,
    )


def slot_norms(model: ModelConfig) -> dict[str, str]:
    """Return the norms that the config gives by slot."""
    given = {slot: getattr(model, slot) for slot in arrangements.SLOTS}
    return {slot: norm for slot, norm in given.items() if norm is not None}


def check_names(model: ModelConfig) -> None:
    """Raise UserError for a name in the model's config that no table has, or a norm not read."""
    tables = {
        "arrangement": arrangements.get,
        "activation": ACTIVATIONS.get,
        "positions": POSITIONS.get,
        "pooling": POOLING.get,
        "stream": STREAMS.get,
        "query_key": QUERY_KEY.get,
    }
    for field, get in tables.items():
        if getattr(model, field) is not None:
            _check_name(field, get, getattr(model, field))
    check_choice("config.model.remat", model.remat, REMAT)
    if model.remat_every > 1 and model.remat == "none":
        raise UserError("config.model.remat_every: not read without remat; set model.remat=full")
    chosen = slot_norms(model)
    row = choose(model.arrangement, chosen, model.stream, model.query_key)
    segments = arrangements.plan_layers(row, model.depth, {"default": model.norm, **chosen})
    for segment in segments:
        check_blocks(len(segment.places), model.remat_every)
        for slot, name in segment.norms.items():
            _check_name("norm" if slot == "default" else slot, norms.get, name)
    check_read(chosen, segments)


def _check_name(field: str, get: Callable[[str], Any], name: str) -> None:
    try:
        get(name)
    except UserError as error:
        raise UserError(f"config.model.{field}: {str(error).partition(': ')[2]}") from None


def _front_end(model: ModelConfig, meta: dict[str, Any], dtype: Any) -> nn.Module:
    makers = {
        "tokens": lambda: TokenEmbedding(
            model.width, len(meta["vocabulary"]), _embedding_gain(model), dtype=dtype
        ),
        "features": lambda: FeatureEmbedding(model.width, model.kernel or 1, dtype=dtype),
        "images": lambda: PatchEmbedding(model.width, model.patch or PATCH, dtype=dtype),
    }
    return makers[meta["kind"]]()


def _embedding_gain(model: ModelConfig) -> float:
    init = arrangements.get(model.arrangement).init
    return init.embedding(arrangements.Place(layers=model.depth))


def _max_length(model: ModelConfig, meta: dict[str, Any]) -> int:
    longest = meta["max_length"]
    if meta["kind"] == "images":
        height, width = meta["shape"][:2]
        patch = model.patch or PATCH
        if height % patch or width % patch:
            raise UserError(
                f"config.model.patch: {patch} does not divide images of {height} x {width}"
            )
        longest = (height // patch) * (width // patch)
    if model.max_length is not None and model.max_length < longest:
        raise UserError(
            f"config.model.max_length: {model.max_length} is under the data's longest, {longest}"
        )
    return model.max_length or longest
