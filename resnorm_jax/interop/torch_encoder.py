"""Parameters of `torch.nn.TransformerEncoder` as those of `TransformerEncoder`, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.interop.family import Family
from resnorm_jax.interop.layouts import JOINED, LINEAR, NORM, Leaf, Rule
from resnorm_jax.interop.mapping import load, unload
from resnorm_jax.modules.encoder import TransformerEncoder

_LAYER = "layers.{}."
_QKV = tuple(f"attention/branch/{role}" for role in ("query", "key", "value"))
TORCH = Family(
    name="torch.nn.TransformerEncoder",
    source="torch.nn.TransformerEncoder, with norm_first or without",
    architecture="torch.nn.TransformerEncoder",
    prefix="",
    settings=(),
    fixed={},
    rules=(
        # One array for queries, keys and values, which is no module's.
        Rule(
            f"{_LAYER}self_attn.in_proj_weight",
            _QKV,
            {"kernel": Leaf("", LINEAR["kernel"].read, LINEAR["kernel"].write)},
        ),
        Rule(
            f"{_LAYER}self_attn.in_proj_bias",
            _QKV,
            {"bias": Leaf("", LINEAR["bias"].read, LINEAR["bias"].write)},
        ),
        Rule(f"{_LAYER}self_attn.out_proj", "attention/branch/out", JOINED),
        Rule(f"{_LAYER}linear1", "feed_forward/branch/fc1", LINEAR),
        Rule(f"{_LAYER}linear2", "feed_forward/branch/fc2", LINEAR),
        # Which of the two an encoder has, its arrangement says.
        *(
            Rule(f"{_LAYER}norm{n}", f"{block}/{slot}", NORM)
            for n, block in ((1, "attention"), (2, "feed_forward"))
            for slot in ("norm_before", "norm_on_stream")
        ),
        Rule("norm", "encoder/final_norm", NORM),
    ),
)


def _check(encoder: TransformerEncoder) -> None:
    if encoder.layer_groups not in (None, encoder.depth):
        raise UserError(
            f"layer_groups: {encoder.layer_groups}: torch's encoder has parameters for each of its "
            f"{encoder.depth} layers; leave it out"
        )


def from_torch_encoder(
    state: Mapping[str, Any], encoder: TransformerEncoder, width: int
) -> dict[str, Any]:
    """Return the parameters of an encoder that computes what torch's does.

    Args:
      state: ``state_dict()`` of a `torch.nn.TransformerEncoder`, as NumPy arrays.
      encoder: as torch's: ``post_ln`` for ``norm_first=False``, ``pre_ln`` for ``norm_first=True``
        (with ``norms={"final_norm": "none"}`` where torch's has no ``norm``), ``norm_epsilon=1e-5``,
        and its activation.
      width: of the stream, torch's ``d_model``.

    Returns:
      For ``encoder.apply({"params": ...}, x)``, float32.

    Raises:
      UserError: an array is missing, left over or of another shape, of which both sides are listed; or
        the encoder's layers share parameters.
    """
    _check(encoder)
    x = jax.ShapeDtypeStruct((1, 1, width), np.float32)
    like = jax.eval_shape(encoder.init, jax.random.key(0), x)["params"]
    arrays = {name: np.asarray(value) for name, value in state.items()}
    return load(TORCH, encoder.plan(width), arrays, {"encoder": like}).params["encoder"]


def to_torch_encoder(
    params: Mapping[str, Any], encoder: TransformerEncoder, width: int
) -> dict[str, np.ndarray]:
    """Return the ``state_dict`` of the `torch.nn.TransformerEncoder` that computes the same.

    Raises:
      UserError: naming parameters that torch's encoder has no place for; or as `from_torch_encoder`.
    """
    _check(encoder)
    return unload(TORCH, encoder.plan(width), {"encoder": params})
