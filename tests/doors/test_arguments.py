"""Each public name called with a wrong rank, dtype and shape: the error names the argument.

A name of `resnorm_jax` or `resnorm_jax.norms` without a row fails the last test.
"""

import re
import warnings

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax.errors import DtypeError, ShapeError

KINDS = ("rank", "dtype", "shape")
B, L, D, H = 2, 3, 8, 2
X = np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)
Q = X.reshape(B, L, H, D // H)
ONE, IDS = np.ones(D, np.float32), np.zeros((B, L), np.int32)
COMPLEX, WORDS = X.astype(np.complex64), np.array(["a", "b"])
SCALAR, WIDE = np.float32(1), np.ones(D + 1, np.float32)
MASK = np.ones((B, L), bool)
IMAGES = np.zeros((B, 4, 4, 1), np.float32)
KEY = jax.random.key(0)


def run(module, *args, **given):
    return jax.eval_shape(lambda: module.init_with_output(KEY, *args, **given))


def rows(argument, *calls):
    """A wrong rank, dtype and shape of one argument; ``(name, call)`` where it is of another."""
    named = [call if isinstance(call, tuple) else (argument, call) for call in calls]
    return dict(zip(KINDS, named, strict=True))


def of_module(make, *, shape, dtype=COMPLEX, rank=SCALAR):
    return rows("x", lambda: run(make(), rank), lambda: run(make(), dtype), shape)


def of_norm(call, parameter="scale", words=COMPLEX, wrong=WIDE):
    """Of ``call(x, parameter)``."""
    return rows(
        "x",
        lambda: call(SCALAR, ONE),
        lambda: call(words, ONE),
        (parameter, lambda: jax.eval_shape(lambda: call(X, wrong))),
    )


def stack(module):
    return of_module(
        module, rank=X[0], shape=("mask", lambda: run(module(), X, np.ones((B, L + 1), bool)))
    )


def memory_stack(module):
    return {
        "rank": ("memory", lambda: run(module(), X, X[0])),
        "dtype": ("memory", lambda: run(module(), X, MASK)),
        "shape": ("memory_mask", lambda: run(module(), X, X, None, np.ones((B, L + 1), bool))),
    }


def classifier():
    return rn.SequenceClassifier(3, rn.FeatureEmbedding(D), rn.TransformerEncoder(depth=1, heads=H))


def masked(module):
    bad = np.ones((B, L + 1, 1), bool)
    return of_module(module, dtype=WORDS, shape=("mask", lambda: run(module(), X, mask=bad)))


def switches(width):
    return rn.article.SwitchNetwork(
        2, rn.article.SWITCHES[3], lambda name: nn.Dense(width, name=name)
    )


PLAIN = {  # of the face itself
    "BatchNorm": masked(lambda: rn.BatchNorm(False)),
    "FeatureEmbedding": of_module(
        lambda: rn.FeatureEmbedding(D, kernel=3), shape=lambda: run(rn.FeatureEmbedding(D, 3), ONE)
    ),
    "FeedForward": of_module(
        lambda: rn.FeedForward(D), shape=lambda: run(rn.FeedForward(D), np.float32(2))
    ),
    "GroupNorm": masked(lambda: rn.GroupNorm(2)),
    "LayerNorm": masked(rn.LayerNorm),
    "MultiHeadAttention": of_module(
        lambda: rn.MultiHeadAttention(H),
        rank=X[0],
        shape=("mask", lambda: run(rn.MultiHeadAttention(H), X, np.ones((L, L + 1), bool))),
    ),
    "Norm": of_module(
        lambda: rn.Norm("dyt"),
        shape=("condition", lambda: run(rn.Norm("ada_layer"), X, condition=np.ones((B + 1, 4)))),
    ),
    "PatchEmbedding": of_module(
        lambda: rn.PatchEmbedding(D, 2),
        rank=IMAGES[0],
        dtype=IMAGES.astype(np.complex64),
        shape=("patch", lambda: run(rn.PatchEmbedding(D, 3), IMAGES)),
    ),
    "PowerNorm": of_module(
        rn.PowerNorm, shape=("mask", lambda: run(rn.PowerNorm(), X, mask=np.ones((B, L + 1), bool)))
    ),
    "RMSNorm": masked(rn.RMSNorm),
    "ResidualBlock": of_module(
        lambda: rn.ResidualBlock(nn.Dense(D)),
        shape=("branch", lambda: run(rn.ResidualBlock(nn.Dense(D + 1)), X)),
    ),
    "SequenceClassifier": of_module(
        classifier,
        rank=ONE,
        shape=("lengths", lambda: run(classifier(), X, lengths=np.ones(B + 1, np.int32))),
    ),
    "TokenEmbedding": of_module(
        lambda: rn.TokenEmbedding(D, 5),
        rank=np.int32(1),
        dtype=X[..., 0],
        shape=lambda: run(rn.TokenEmbedding(D, 5), np.int32(2)),
    ),
    "TransformerDecoder": memory_stack(lambda: rn.TransformerDecoder(depth=1, heads=H)),
    "TransformerDecoderLayer": memory_stack(lambda: rn.TransformerDecoderLayer(H)),
    "TransformerEncoder": stack(lambda: rn.TransformerEncoder(depth=1, heads=H)),
    "TransformerEncoderLayer": stack(lambda: rn.TransformerEncoderLayer(H)),
    "add_layer_norm": rows(
        "x",
        lambda: rn.add_layer_norm(SCALAR, SCALAR, None, None),
        lambda: rn.add_layer_norm(WORDS, WORDS, None, None),
        ("branch", lambda: rn.add_layer_norm(X, WIDE, None, None)),
    ),
    "add_rms_norm": rows(
        "x",
        lambda: rn.add_rms_norm(SCALAR, SCALAR, None),
        lambda: rn.add_rms_norm(WORDS, WORDS, None),
        ("branch", lambda: rn.add_rms_norm(X, WIDE, None)),
    ),
    "drop_path": rows(
        "branch",
        lambda: rn.drop_path(SCALAR, 0.5, KEY),
        lambda: rn.drop_path(IDS, 0.5, KEY),
        ("key", lambda: rn.drop_path(X, 0.5, jax.random.split(KEY))),
    ),
    "layer_norm": of_norm(rn.layer_norm, words=WORDS),
    "layer_parameters": rows(
        "layer",
        lambda: rn.layer_parameters({}, [1]),
        lambda: rn.layer_parameters({}, 1.0),
        lambda: rn.layer_parameters({"layers": {"a": np.ones((3, 2))}}, 4),
    ),
    "masked_attention": rows(
        "query",
        lambda: rn.masked_attention(X, Q, Q),
        lambda: rn.masked_attention(Q.astype(np.complex64), Q, Q),
        ("value", lambda: rn.masked_attention(Q, Q, Q[:, :2])),
    ),
    "residual": rows(
        "branch",
        lambda: rn.residual(X, X[0]),
        lambda: rn.residual(X, COMPLEX),
        ("skip_scale", lambda: rn.residual(X, X, skip_scale=WIDE)),
    ),
    "rms_norm": of_norm(rn.rms_norm, words=WORDS),
    "std_layer_norm": of_norm(rn.std_layer_norm),
}
SITE = rn.streams.Site(width=D)
ADD = rn.streams.get("add").write
WIDER = rn.streams.get("orthogonal_sum").write
FACES = {
    "arrangements": {
        "dtype": ("arrangement", lambda: rn.arrangements.get(3)),
        "shape": ("arrangement", lambda: rn.arrangements.get("pre_lnn")),
    },
    "streams": rows(
        "branch",
        lambda: ADD(X, X[0], SITE),
        lambda: ADD(X, COMPLEX, SITE),
        lambda: WIDER(X, X[:, :2], SITE),
    ),
    "plan": {
        "rank": ("depth", lambda: rn.plan("pre_ln", depth=np.ones(2))),
        "dtype": ("depth", lambda: rn.plan("pre_ln", depth="3")),
        "shape": ("width", lambda: rn.plan("pre_ln", depth=3, width=0)),
    },
    "load_config": {"dtype": ("name", lambda: rn.load_config(3))},
    "load_run": {"dtype": ("workdir", lambda: rn.load_run(3))},
    "train": {"dtype": ("config", lambda: rn.train({"model": {}}, "folder"))},
    "testing": rows(
        "mask",
        lambda: rn.testing.assert_padding_safe(rn.rms_norm, X, MASK),
        lambda: rn.testing.assert_padding_safe(rn.rms_norm, X, -1.0 * MASK[..., None]),
        lambda: rn.testing.assert_padding_safe(rn.rms_norm, X, np.ones((B, L + 1, 1), bool)),
    ),
}
ARTICLE = {
    "LayerNormalization": of_module(
        lambda: rn.article.LayerNormalization(D),
        shape=lambda: run(rn.article.LayerNormalization(D), WIDE),
    ),
    "ResidualBlock": of_module(
        lambda: rn.article.ResidualBlock(D), shape=lambda: run(rn.article.ResidualBlock(D), WIDE)
    ),
    "ReluLayer": of_module(
        lambda: rn.article.ReluLayer(D), shape=lambda: run(rn.article.ReluLayer(D), np.float32(2))
    ),
    "SwitchNetwork": of_module(
        lambda: switches(D),
        shape=(
            "branch",
            lambda: run(switches(D + 1), X),
        ),
    ),
    "Transformer": rows(
        "src",
        lambda: run(rn.article.Transformer(D, H, 1), X[0]),
        lambda: run(rn.article.Transformer(D, H, 1), COMPLEX),
        lambda: run(rn.article.Transformer(D + 2, H, 1), X),
    ),
    "TransformerLayer": rows(
        "src",
        lambda: run(rn.article.TransformerLayer(D, H), X[0]),
        ("src_mask", lambda: run(rn.article.TransformerLayer(D, H), X, np.ones((L, L)))),
        (
            "src_key_padding_mask",
            lambda: run(rn.article.TransformerLayer(D, H), X, None, np.ones((B, L + 1), bool)),
        ),
    ),
    "TransformerModel": of_module(
        lambda: rn.article.TransformerModel(D, D, 3),
        rank=ONE,
        shape=lambda: run(rn.article.TransformerModel(D, D, 3), np.ones(D + 1)),
    ),
    "combined_block": rows(
        "x",
        lambda: rn.article.combined_block(SCALAR, np.eye(D), ONE, ONE, ONE),
        lambda: rn.article.combined_block(COMPLEX, np.eye(D), ONE, ONE, ONE),
        ("weight", lambda: rn.article.combined_block(X, np.eye(D + 1), ONE, ONE, ONE)),
    ),
    "plain_block": rows(
        "x",
        lambda: rn.article.plain_block(SCALAR, np.eye(D), ONE),
        lambda: rn.article.plain_block(COMPLEX, np.eye(D), ONE),
        ("weight", lambda: rn.article.plain_block(X, np.ones((D, D + 1)), ONE)),
    ),
    "post_norm": rows(
        "x",
        lambda: rn.article.post_norm(SCALAR, lambda h: h),
        lambda: rn.article.post_norm(WORDS, lambda h: h),
        ("branch", lambda: rn.article.post_norm(X, lambda h: h[:1])),
    ),
    "pre_norm": rows(
        "x",
        lambda: rn.article.pre_norm(SCALAR, lambda h: h),
        lambda: rn.article.pre_norm(WORDS, lambda h: h),
        ("branch", lambda: rn.article.pre_norm(X, lambda h: h[:1])),
    ),
}
n = rn.norms
POWER = (ONE, ONE, ONE, 0.9, (0, 1), 1e-5)
NORMS = {
    "ada_norm": of_norm(lambda x, k: n.ada_norm(x), "x", wrong=None)
    | {"shape": ("x", lambda: n.ada_norm(np.float32(2)))},
    "adaptive_layer_norm": of_norm(
        lambda x, s: n.adaptive_layer_norm(x, s[None], s[None]), "shift"
    ),
    "adaptive_rms_norm": of_norm(lambda x, s: n.adaptive_rms_norm(x, s[None])),
    "batch_norm": of_norm(n.batch_norm, words=WORDS),
    "batch_statistics": rows(
        "x",
        lambda: n.batch_statistics(SCALAR),
        lambda: n.batch_statistics(WORDS),
        ("mask", lambda: n.batch_statistics(X, mask=MASK)),
    ),
    "compress": of_norm(lambda x, s: n.compress(x), "x", wrong=None)
    | {"shape": ("x", lambda: n.compress(np.float32(2)))},
    "cosine_query_key": rows(
        "query",
        lambda: n.cosine_query_key(ONE, ONE, 1.0),
        lambda: n.cosine_query_key(Q * 1j, Q, 1.0),
        ("key", lambda: n.cosine_query_key(Q, Q[:, :, :1], 1.0)),
    ),
    "crms_norm": of_norm(lambda x, s: n.crms_norm(x), "x", wrong=None)
    | {"shape": ("x", lambda: n.crms_norm(np.float32(2)))},
    "detach_norm": of_norm(lambda x, s: n.detach_norm(x), "x", wrong=None)
    | {"shape": ("x", lambda: n.detach_norm(np.float32(2)))},
    "expand": of_norm(lambda x, s: n.expand(x), "x", wrong=None)
    | {"shape": ("x", lambda: n.expand(np.float32(2)))},
    "gated_rms_norm": rows(
        "x",
        lambda: n.gated_rms_norm(SCALAR, SCALAR, norm_first=True),
        ("gate", lambda: n.gated_rms_norm(X, COMPLEX, norm_first=True)),
        ("gate", lambda: n.gated_rms_norm(X, X[:1], norm_first=True)),
    ),
    "group_norm": of_norm(lambda x, s: n.group_norm(x, s, groups=2), words=WORDS),
    "grouped_rms_norm": of_norm(lambda x, s: n.grouped_rms_norm(x, s, groups=2)),
    "input_scaled_rms_norm": of_norm(n.input_scaled_rms_norm),
    "joint_rms_norm": rows(
        "x",
        lambda: n.joint_rms_norm(ONE),
        lambda: n.joint_rms_norm(COMPLEX),
        ("scale", lambda: n.joint_rms_norm(Q, WIDE)),
    ),
    "l2_norm": of_norm(lambda x, s: n.l2_norm(x), "x", wrong=None)
    | {"shape": ("x", lambda: n.l2_norm(np.float32(2)))},
    "llama_rms_norm": of_norm(n.llama_rms_norm),
    "norm_by_statistics": of_norm(lambda x, s: n.norm_by_statistics(x, s, s), "mean", words=WORDS),
    "outside_rms_norm": of_norm(n.outside_rms_norm),
    "pointwise_norm": of_norm(lambda x, s: n.pointwise_norm(x, 0.5, scale=s)),
    "power_scale": rows(
        "square",
        lambda: n.power_scale(X, None, np.ones((1, 1, 1, D)), *POWER),
        ("x", lambda: n.power_scale(COMPLEX, None, ONE, *POWER)),
        lambda: n.power_scale(X, None, WIDE, *POWER),
    ),
    "scale_norm": of_norm(n.scale_norm),
    "seed_norm": of_norm(lambda x, s: n.seed_norm(x, ONE, ONE, s), "beta"),
    "split_modulation": rows(
        "modulation",
        lambda: n.split_modulation(SCALAR),
        lambda: n.split_modulation(np.ones((B, 6)) * 1j),
        lambda: n.split_modulation(np.ones((B, 7))),
    ),
    "swin_scale": {"dtype": ("parameter", lambda: n.swin_scale(np.ones(H) * 1j))},
    "taper_constant": of_norm(n.taper_constant),
    "taper_norm": of_norm(lambda x, s: n.taper_norm(x, ONE, s, 1.0, gate=0.5), "fixed_scale"),
    **{name: PLAIN[name] for name in n.__all__ if name in PLAIN},
}
TABLE = {
    **PLAIN, **FACES,
    **{f"article.{name}": row for name, row in ARTICLE.items()},
    **{f"norms.{name}": row for name, row in NORMS.items()},
}  # fmt: skip
# What takes no array, or is a group of rows of its own.
NO_ARRAYS = {
    "__version__": "a text",
    "article": "its names are rows",
    "from_pretrained": "takes a folder",
    "load_exported": "takes a folder",
    "save_pretrained": "takes a folder",
    "norms": "its names are rows",
    "norms.POINTWISE": "a table",
    "norms.DYT_LLAMA": "a table",
    "norms.NormParameter": "a record",
    "norms.NormSpec": "a record",
    "norms.get": "takes a name",
    "norms.names": "takes nothing",
    "norms.register": "takes a row",
    "norms.rows": "takes nothing",
    "norms.henry_scale": "takes a number",
    "norms.taper_gate": "takes numbers",
    "norms.why_not": "looks at what would be refused",
    "article.SWITCHES": "a table",
    "article.Switch": "a record",
    "article.worked_example": "takes nothing",
}
CALLS = [(name, kind) for name, row in TABLE.items() for kind in row]
COUNT = 222  # faults, all refused: what a person reads in the changelog


@pytest.mark.parametrize("case", CALLS, ids="-".join)
def test_the_error_names_the_argument(case):
    name, kind = case
    argument, call = TABLE[name][kind]
    with pytest.raises((ValueError, TypeError, IndexError)) as caught:
        call()
    message = str(caught.value).splitlines()[0]
    assert re.match(rf"{argument}\b", message), message


def test_every_public_name_has_a_row():
    names = {*rn.__all__, *(f"norms.{m}" for m in n.__all__)}
    names |= {f"article.{m}" for m in rn.article.__all__}
    assert names - set(TABLE) - set(NO_ARRAYS) == set()
    assert not set(TABLE) & set(NO_ARRAYS)
    for name in PLAIN:
        assert set(TABLE[name]) == set(KINDS), name
    assert len(CALLS) == COUNT


# --- chex: how errors are caught, and what stays when it is turned off ---


def test_errors_are_those_of_python_and_of_chex():
    for kind in (AssertionError, ValueError, ShapeError):
        with pytest.raises(kind):
            rn.residual(X, X[0])
    for kind in (AssertionError, TypeError, DtypeError):
        with pytest.raises(kind):
            run(rn.TokenEmbedding(D, 5), X[..., 0])


@pytest.fixture
def no_asserts():
    chex.disable_asserts()
    yield
    chex.enable_asserts()


def test_what_would_change_a_result_is_refused_without_chex_too(no_asserts):
    chex.assert_rank(X, 5)  # they are off
    with pytest.raises(TypeError, match="mask == 0"):
        rn.layer_norm(X, mask=np.zeros((B, L, 1), np.float32))
    with pytest.raises(TypeError, match="mask=mask"):
        run(rn.TransformerDecoder(depth=1, heads=H), X, MASK)
    with pytest.raises(TypeError, match="imaginary part"):
        rn.std_layer_norm(COMPLEX)
    with pytest.raises(ValueError, match="drop_path rate is 2"):
        rn.drop_path(X, 2.0, KEY)


@pytest.mark.parametrize(
    "call",
    [
        lambda: rn.layer_norm(X, ONE, ONE),
        lambda: rn.residual(X, X, skip_scale=0.5),
        lambda: n.group_norm(X, ONE, groups=2),
        lambda: run(rn.TransformerDecoder(depth=1, heads=H), X, X, MASK, MASK),
        lambda: run(classifier(), X, lengths=np.ones(B, np.int32)),
    ],
)
def test_nothing_of_the_checks_is_in_a_program(call):
    found = str(jax.make_jaxpr(call)())
    chex.disable_asserts()
    try:
        assert str(jax.make_jaxpr(call)()) == found
    finally:
        chex.enable_asserts()


def test_checks_are_made_once_for_each_program():
    """However often it is called; chex counts the traces."""
    chex.clear_trace_counter()
    step = jax.jit(
        chex.assert_max_traces(lambda x: rn.layer_norm(x, ONE, mask=MASK[..., None]), n=1)
    )
    for _ in range(3):
        step(X)


# --- What is still taken, with a warning, and points to the caller ---


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("lengths", lambda: run(classifier(), X, lengths=np.full(B, 2.0))),
        ("branch", lambda: rn.add_rms_norm(X, ONE, None)),
        ("x", lambda: run(rn.FeatureEmbedding(D), X[0])),
    ],
)
def test_what_was_right_before_is_taken_for_a_release(argument, call):
    with pytest.warns(DeprecationWarning, match=f"^{argument} .*next release") as caught:
        call()
    assert caught[0].filename == __file__


def test_right_calls_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(classifier(), X, lengths=np.ones(B, np.int32))
        run(rn.TransformerDecoder(depth=1, heads=H), X, X, MASK, MASK)
        rn.add_rms_norm(X, X, None)


# --- Errors speak of what the caller wrote ---


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rn.plan("pre_ln", depth=4, remat_every=2), r"^remat_every: .*give remat='full'"),
        (lambda: run(rn.Norm("dyt", epsilon=1e-3), X), "^epsilon: norm 'dyt' has no epsilon"),
        (
            lambda: run(rn.TransformerEncoder(depth=1, heads=H, attention="flash"), X),
            "^attention: unknown value 'flash'",
        ),
        (lambda: run(rn.TransformerEncoder(depth=0, heads=H), X), "^depth: 0"),
        (
            lambda: run(rn.TransformerEncoder(depth=1, heads=3), X),
            "^heads=3 does not divide width=8",
        ),
    ],
)
def test_errors_of_library_calls_name_no_config(call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "config" not in str(caught.value)
    assert "model." not in str(caught.value)


# --- A branch that takes any keyword argument ---


class Told(nn.Module):
    @nn.compact
    def __call__(self, x, **kwargs):
        return nn.Dropout(0.5)(x, deterministic=kwargs.get("deterministic", True))


def test_it_is_told_deterministic():
    block = rn.ResidualBlock(Told())
    rngs = {"dropout": KEY}
    variables = block.init(KEY, X)
    dropped = block.apply(variables, X, deterministic=False, rngs=rngs)
    kept = block.apply(variables, X)
    assert np.abs(np.asarray(dropped) - np.asarray(kept)).max() > 0.1


@pytest.mark.table
@pytest.mark.parametrize("lift", [nn.remat, nn.jit])
def test_dropout_of_a_lifted_branch_is_never_left_out_silently(lift):
    """Flax traces keyword arguments of what it lifts, which its own dropout refuses aloud."""
    block = rn.ResidualBlock(lift(Told)())
    with pytest.raises(jax.errors.TracerBoolConversionError):
        block.init(KEY, X)


def test_a_sequential_branch_is_asked_for_its_first_layer():
    run(rn.ResidualBlock(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(D)])), X)
    run(rn.ResidualBlock(nn.Sequential([nn.relu, nn.Dense(D)])), X)
    run(rn.ResidualBlock(nn.Sequential([Told(), nn.Dense(D)])), X)
