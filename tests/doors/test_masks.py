"""Masks, at each door that takes one: booleans are taken, what could mean the reverse is refused."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import every

import resnorm_jax as rn
from resnorm_jax import norms
from resnorm_jax.arguments import as_mask
from resnorm_jax.lab.explain.rollout import pooled_weights, roll_out
from resnorm_jax.modules.admin import admin_profile
from resnorm_jax.norms.batch import SequenceBatchNorm
from resnorm_jax.ops import masks
from resnorm_jax.ops.attention import attention_weights

B, L, D = 2, 3, 8
X = np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)
Q = X.reshape(B, L, 2, 4)
VALID = np.array([[True, True, False], [True, True, True]])
HEARD = np.tril(np.ones((L, L), bool))
ONE = np.ones(D, np.float32)
EACH = ONE[None, None]
ROW = VALID[..., None]


def run(module, *args, **given):
    return jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *args, **given))


def decoder(cross=True):
    return rn.TransformerDecoder(depth=1, heads=2, cross=cross)


def classifier():
    return rn.SequenceClassifier(3, rn.FeatureEmbedding(D), rn.TransformerEncoder(depth=1, heads=2))


# Each door: what it calls its mask, a call, and a mask that it takes.
ENCODER = rn.TransformerEncoder(depth=1, heads=2)
DOORS = {
    "layer_norm": ("mask", lambda m: rn.layer_norm(X, mask=m), ROW),
    "rms_norm": ("mask", lambda m: rn.rms_norm(X, mask=m), ROW),
    "add_layer_norm": ("mask", lambda m: rn.add_layer_norm(X, X, None, None, mask=m), ROW),
    "add_rms_norm": ("mask", lambda m: rn.add_rms_norm(X, X, None, mask=m), ROW),
    "batch_norm": ("mask", lambda m: norms.batch_norm(X, mask=m), ROW),
    "batch_statistics": ("mask", lambda m: norms.batch_statistics(X, mask=m), ROW),
    "norm_by_statistics": (
        "mask",
        lambda m: norms.norm_by_statistics(X, ONE, ONE, mask=m),
        ROW,
    ),
    "group_norm": ("mask", lambda m: norms.group_norm(X, groups=2, mask=m), ROW),
    "power_scale": (
        "mask",
        lambda m: norms.power_scale(X, m, EACH, EACH, EACH, 0.9, (0, 1), 1e-5),
        ROW,
    ),
    "power_scale's gradient": (
        "mask",
        lambda m: jax.grad(
            lambda x: norms.power_scale(x, m, EACH, EACH, EACH, 0.9, (0, 1), 1e-5).sum()
        )(X),
        ROW,
    ),
    "LayerNorm": ("mask", lambda m: run(rn.LayerNorm(), X, mask=m), ROW),
    "RMSNorm": ("mask", lambda m: run(rn.RMSNorm(), X, mask=m), ROW),
    "GroupNorm": ("mask", lambda m: run(rn.GroupNorm(2), X, mask=m), ROW),
    "BatchNorm": ("mask", lambda m: run(rn.BatchNorm(False), X, mask=m), ROW),
    "SequenceBatchNorm": ("mask", lambda m: run(SequenceBatchNorm(), X, mask=m), VALID),
    "PowerNorm": ("mask", lambda m: run(rn.PowerNorm(), X, mask=m), VALID),
    "Norm": ("mask", lambda m: run(rn.Norm("layer"), X, mask=m), VALID),
    "masked_attention": ("mask", lambda m: rn.masked_attention(Q, Q, Q, m), HEARD),
    "attention_weights": ("mask", lambda m: attention_weights(Q, Q, m), HEARD),
    "MultiHeadAttention": ("mask", lambda m: run(rn.MultiHeadAttention(2), X, m), HEARD),
    "TransformerEncoder": ("mask", lambda m: run(ENCODER, X, m), VALID),
    "TransformerEncoder, attention": (
        "attention_mask",
        lambda m: run(ENCODER, X, attention_mask=m),
        HEARD,
    ),
    "TransformerEncoder, attention beside a mask": (
        "attention_mask",
        lambda m: run(ENCODER, X, VALID, attention_mask=m),
        HEARD,
    ),
    "TransformerEncoderLayer": (
        "mask",
        lambda m: run(rn.TransformerEncoderLayer(2), X, m),
        VALID,
    ),
    "TransformerEncoderLayer, attention": (
        "attention_mask",
        lambda m: run(rn.TransformerEncoderLayer(2), X, attention_mask=m),
        HEARD,
    ),
    "TransformerDecoder": ("mask", lambda m: run(decoder(), X, X, m), VALID),
    "TransformerDecoder, memory": ("memory_mask", lambda m: run(decoder(), X, X, None, m), VALID),
    "TransformerDecoder, attention": (
        "attention_mask",
        lambda m: run(decoder(), X, X, attention_mask=m),
        HEARD,
    ),
    "TransformerDecoder, alone": ("mask", lambda m: run(decoder(False), X, mask=m), VALID),
    "TransformerDecoderLayer": (
        "mask",
        lambda m: run(rn.TransformerDecoderLayer(2), X, X, m),
        VALID,
    ),
    "TransformerDecoderLayer, memory": (
        "memory_mask",
        lambda m: run(rn.TransformerDecoderLayer(2), X, X, None, m),
        VALID,
    ),
    "SequenceClassifier": ("mask", lambda m: run(classifier(), X, m), VALID),
    "ResidualBlock": (
        "context\\['mask'\\]",
        lambda m: run(rn.ResidualBlock(nn.Dense(D), norm="batch"), X, context={"mask": m}),
        VALID,
    ),
    "assert_padding_safe": (
        "mask",
        lambda m: rn.testing.assert_padding_safe(lambda x, m: rn.layer_norm(x, mask=m), X, m),
        ROW,
    ),
    "admin_profile": ("mask", lambda m: profile(m), VALID),
    "roll_out": ("mask", lambda m: roll_out([np.ones((2, L, L)) / L], m), VALID[0]),
    "pooled_weights": ("mask", lambda m: pooled_weights("mean", X[0], m), VALID[0]),
    "zero_padding": ("mask", lambda m: masks.zero_padding(X, m), VALID),
    "attention_mask": ("attention_mask", lambda m: masks.attention_mask(None, m), HEARD),
    "valid_positions": ("mask", lambda m: masks.valid_positions(m, None, L), VALID),
    "join_lengths": ("mask", lambda m: masks.join_lengths(m, None, L), HEARD),
}


def profile(mask):
    encoder = rn.TransformerEncoder(depth=1, heads=2, arrangement="admin")
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), X)
    variables = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), shapes)
    return admin_profile(encoder, variables, X, mask)


def leaves(tree):
    return [
        getattr(a, "shape", None) if isinstance(a, jax.ShapeDtypeStruct) else np.asarray(a)
        for a in jax.tree.leaves(tree)
    ]


@pytest.mark.parametrize("door", every(DOORS, set(DOORS) - {"admin_profile"}))
def test_a_mask_that_is_added_to_logits_is_refused(door):
    name, call, mask = DOORS[door]
    for additive in (
        np.where(mask, 0.0, -np.inf).astype(np.float32),
        np.where(mask, 0, -(10**9)),
        jnp.where(mask, 0, -1e9).astype(jnp.bfloat16),
    ):
        with pytest.raises(TypeError, match=rf"^{name} is .* mask of numbers; .*{name} == 0"):
            call(additive)


LOOK_AT_VALUES = ("roll_out", "pooled_weights", "assert_padding_safe")  # not under a trace


@pytest.mark.parametrize("door", [door for door in DOORS if door not in LOOK_AT_VALUES])
def test_traced_too(door):
    name, call, mask = DOORS[door]
    with pytest.raises(TypeError, match=f"^{name} is float32"):
        jax.eval_shape(call, jnp.zeros(mask.shape))


FEW = ["layer_norm", "attention_weights", "TransformerEncoder", "roll_out"]


@pytest.mark.parametrize("door", every(DOORS, FEW))
def test_booleans_and_integers_are_taken_alike_and_ones_with_a_warning(door):
    name, call, mask = DOORS[door]
    expected = leaves(call(mask))
    for given in (mask.astype(np.int32), jnp.asarray(mask)):
        for found, want in zip(leaves(call(given)), expected, strict=True):
            np.testing.assert_array_equal(found, want)
    with pytest.warns(DeprecationWarning, match=f"{name} is float32.*{name} != 0") as caught:
        found = leaves(call(mask.astype(np.float32)))
    assert caught[0].filename == __file__
    for one, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, want)


def test_every_public_call_that_takes_a_mask_is_a_row():
    """Functions and modules of `resnorm_jax` and `resnorm_jax.norms`, by their signatures."""
    taken = set()
    for face in (rn, norms):
        for name in face.__all__:
            value = getattr(face, name)
            call = value.__call__ if isinstance(value, type) and name != "NormSpec" else value
            try:
                parameters = inspect.signature(call).parameters
            except (TypeError, ValueError):
                continue
            if any("mask" in p for p in parameters):
                taken.add(name)
    assert taken - {"why_not"} <= set(DOORS)  # why_not asks whether there is one
    assert {"layer_norm", "TransformerEncoder", "PowerNorm"} <= taken


@pytest.mark.parametrize("mask", [[1, 0, 1], [True, False, True], np.uint8([1, 0, 1])])
def test_lists_and_small_integers(mask):
    np.testing.assert_array_equal(as_mask("mask", mask), [True, False, True])


@pytest.mark.parametrize("mask", [np.array([0, 2]), np.ones(2) * 1j, np.zeros(2), np.array(["a"])])
def test_what_else_is_no_mask(mask):
    with pytest.raises(TypeError, match=r"^mask is"):
        as_mask("mask", mask)


# --- A mask in place of the memory ---


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("module", [decoder(), decoder(False), rn.TransformerDecoderLayer(2)])
@pytest.mark.parametrize(
    "mask",
    [np.ones((2, L), bool), np.ones((2, L), np.int32), np.ones((2, L, L), bool),
     np.ones((2, D), np.float32)],
)  # fmt: skip
def test_a_mask_in_place_of_the_memory_is_refused(module, mask, rows):
    with pytest.raises(
        TypeError, match=r"^memory is .*; it must be an encoder's output.*mask=mask"
    ):
        run(module, X[:rows], mask[:rows])


def test_a_memory_of_another_width_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"memory has shape \(2, 3, 4\) and x \(2, 3, 8\)"):
        run(decoder(), X, X[..., :4])
