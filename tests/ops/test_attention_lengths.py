"""Attention by lengths: equal to the mask's, by NVIDIA's kernel where it serves, which says where not.

No test has that kernel: it is played by XLA, whose function takes the same lengths.
"""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import worst
from tiers import every

from resnorm_jax.ops.attention import chunks, flash, masked_attention, why_not_cudnn
from resnorm_jax.training.determinism import traced_for

T, S, H, K = 5, 6, 3, 8
REAL = jax.nn.dot_product_attention


def arrays(dtype=jnp.float32, queries=T, keys=S, rows=3):
    rng = np.random.default_rng(0)
    sizes = (queries, keys, keys)
    return [jnp.asarray(rng.normal(size=(rows, n, H, K)), dtype) for n in sizes]


def mask_of(lengths, keys=S):
    return (np.arange(keys) < np.asarray(lengths)[:, None])[:, None, None, :]


def value_and_gradients(attend, inputs):
    weights = np.random.default_rng(1).normal(size=inputs[0].shape)

    def loss(*a):
        out = attend(*a)
        return (out.astype(jnp.float32) * weights).sum(), out

    grads, out = jax.grad(loss, (0, 1, 2), has_aux=True)(*inputs)
    return out, *grads


@pytest.fixture
def cudnn(monkeypatch):
    """JAX on a GPU whose cuDNN is played by XLA; returns the calls, one dictionary each."""
    calls = []

    def played(q, k, v, *, implementation, **options):
        if implementation == "cudnn":
            if q.shape[-1] == 24:
                raise NotImplementedError("this card is too old\nfor that")
            calls.append({"query": q, **options})
        return REAL(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", played)
    return calls


@pytest.mark.parametrize("implementation", every([None, "xla", "chunked"], ["chunked"]))
@pytest.mark.parametrize("dropout", every([0.0, 0.5], [0.0]))
def test_lengths_are_a_mask_of_right_padding(monkeypatch, implementation, dropout):
    """To the bit, rows without a valid key included."""
    monkeypatch.setattr(chunks, "CHUNK", 2)
    monkeypatch.setattr(chunks, "WIDTHS", 0)
    lengths = jnp.array([4, 0, 6])
    attend = partial(
        masked_attention, implementation=implementation,
        dropout_rate=dropout, dropout_key=jax.random.key(0) if dropout else None,
    )  # fmt: skip
    found = value_and_gradients(partial(attend, lengths=lengths), arrays())
    want = value_and_gradients(partial(attend, mask=mask_of(lengths)), arrays())
    for a, b in zip(found, want, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)


def test_a_mask_and_lengths_both_hold():
    lengths, causal = jnp.array([4, 2, 6]), np.tril(np.ones((T, S), bool))
    found = masked_attention(*arrays(), causal, lengths=lengths)
    want = masked_attention(*arrays(), causal & mask_of(lengths))
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(
    "case",
    every(
        [
            {"lengths": [4, 2, 6]},
            {"lengths": [1, 6, 1]},
            {"lengths": [3, 0, 6]},
            {"lengths": [3, 9, -1]},
            {"lengths": [4, 2, 6], "queries": S},
            {"lengths": [1, 0, 1], "queries": 1, "keys": 1},
            {"lengths": [4, 2, 6], "dtype": jnp.float16},
        ],
        [{"lengths": [3, 0, 6]}],
    ),
)
def test_cudnn_serves_lengths_in_half_precision(cudnn, case):
    """Its values and gradients are those of the mask, of rows without keys and padded queries too."""
    options = {"dtype": jnp.bfloat16, **case}
    lengths = jnp.array(options.pop("lengths"))
    inputs = arrays(**options)
    found = value_and_gradients(partial(masked_attention, lengths=lengths), inputs)
    keys = inputs[1].shape[1]
    _, call = cudnn  # the first asks whether it would serve
    full = np.full(3, inputs[0].shape[1])
    np.testing.assert_array_equal(call["query_seq_lengths"], full)
    kept = np.where(lengths > 0, np.minimum(lengths, keys), keys)
    np.testing.assert_array_equal(call["key_value_seq_lengths"], kept)
    assert call["key_value_seq_lengths"].dtype == jnp.int32
    masked = partial(
        masked_attention, mask=jnp.asarray(mask_of(lengths, keys)), implementation="xla"
    )
    want = value_and_gradients(masked, inputs)
    for a, b in zip(found, want, strict=True):
        assert a.dtype == inputs[0].dtype
        assert worst(a.astype(jnp.float32), b.astype(jnp.float32)) < 1e-2


@pytest.mark.parametrize(
    ("given", "mask", "says"),
    [
        ({"lengths": jnp.array([4, 2, 6])}, np.ones((T, S), bool), "lengths, not a boolean mask"),
        ({}, mask_of([4, 2, 6])[..., ::-1], "lengths, not a boolean mask"),  # padding on the left
        ({"lengths": jnp.array([4, 2, 6]), "dropout_rate": 0.5}, None, "attention_dropout=0.*0.5"),
        ({"lengths": jnp.array([4, 2, 6]), "width": 12}, None, "multiple of 8.*these have 12"),
        ({"lengths": jnp.array([4, 2, 6]), "width": 264}, None, "at most 256.*these have 264"),
        (
            {"lengths": jnp.array([4, 2, 6]), "width": 24},
            None,
            "JAX refuses it: this card is too old",
        ),
        ({"lengths": jnp.array([4, 2, 6]), "dtype": jnp.float32}, None, "this is float32"),
        ({"lengths": jnp.array([4, 2, 6]), "keys": 0}, None, "nothing to attend to"),
    ],
)
def test_the_rest_goes_to_xla_or_says_why(cudnn, given, mask, says):
    given = {"dtype": jnp.bfloat16, "width": K, "keys": S, **given}
    dtype, width, keys = (given.pop(name) for name in ("dtype", "width", "keys"))
    q, k, v = (
        jax.ShapeDtypeStruct((3, n, H, width), dtype) for n in (T, keys, keys)
    )  # fmt: skip
    if "dropout_rate" in given:
        given["dropout_key"] = jax.random.key(0)
    attend = partial(masked_attention, mask=mask, **given)
    if keys:
        assert jax.eval_shape(attend, q, k, v).shape == q.shape
        assert not cudnn
    with pytest.raises(ValueError, match="'cudnn': .*" + says):
        jax.eval_shape(partial(attend, implementation="cudnn"), q, k, v)


def test_cudnn_is_chosen_for_lengths_alone_and_taken_for_full_rows_where_asked(cudnn):
    inputs = arrays(jnp.bfloat16)
    masked_attention(*inputs)
    assert not cudnn
    masked_attention(*inputs, implementation="cudnn")
    assert list(cudnn[-1]) == ["query", "scale"]


@pytest.mark.parametrize(
    ("backend", "dtype", "says"),
    [
        ("cpu", "bfloat16", "it needs a GPU, and JAX runs on cpu"),
        ("tpu", "bfloat16", "it needs a GPU, and JAX runs on tpu"),
        ("gpu", "float32", "bfloat16 or float16, and this is float32"),
        ("gpu", "bfloat16", None),
    ],
)
def test_what_another_machine_would_do_is_told_without_it(backend, dtype, says):
    shape = jax.ShapeDtypeStruct((1, 1344, 8, 8), jnp.dtype(dtype))
    reason = why_not_cudnn(shape, shape, backend=backend)
    assert reason is None if says is None else says in reason


def test_jax_itself_refuses_without_cudnn(monkeypatch):
    """A GPU of which JAX knows no cuDNN, as here: its own words are the reason."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    shape = jax.ShapeDtypeStruct((1, 8, 2, 8), jnp.bfloat16)
    assert "JAX refuses it: cuDNN is not detected" in why_not_cudnn(shape, shape)


# --- NVIDIA's backward pass in deterministic programs ---

FMHA, FMHA_BACK = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"


def flash_calls(text, target):
    """The descriptions of all calls of a target in a lowered module, and their whole lines."""
    lines = [line for line in text.splitlines() if f"@{target}(" in line]
    strings = [re.search(r'backend_config = "((?:[^"\\]|\\.)*)"', line)[1] for line in lines]
    return [json.loads(s.replace("\\22", '"')) for s in strings], lines


def lowered_for_cuda(layers):
    """Some layers of attention under a loss, in a deterministic program, lowered for a GPU."""
    q, k, v = (jax.ShapeDtypeStruct((3, n, 2, 8), jnp.bfloat16) for n in (T, S, S))

    def loss(q, k, v, lengths):
        for _ in range(layers):
            q = masked_attention(q, k, v, lengths=lengths)
        return q.astype(jnp.float32).sum()

    exported = jax.export.export(
        jax.jit(traced_for({"xla_gpu_deterministic_ops": True}, jax.grad(loss, (0, 1, 2)))),
        platforms=["cuda"],
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(t) for t in (FMHA, FMHA_BACK)],
    )
    return exported(q, k, v, jax.ShapeDtypeStruct((3,), jnp.int32)).mlir_module()


def test_every_backward_call_of_a_deterministic_program_says_so(cudnn):
    """XLA marks the first of equal calls alone, and then does not find the plan of the others."""
    text = lowered_for_cuda(layers=2)
    forward, _ = flash_calls(text, FMHA)
    backward, _ = flash_calls(text, FMHA_BACK)
    assert len(forward) == len(backward) == 2
    for call in backward:
        assert call["cudnn_fmha_backend_config"].pop("force_deterministic") is True
    assert not any("force_deterministic" in c["cudnn_fmha_backend_config"] for c in forward)


@pytest.mark.parametrize("padded", [True, False])
def test_calls_of_cudnn_are_described_as_by_jax(padded):
    from jax._src.cudnn import fused_attention_stablehlo as theirs
    from jax._src.lib.mlir import ir

    q, k = (jax.ShapeDtypeStruct((3, n, 2, 8), jnp.bfloat16) for n in (T, S))
    mask = theirs.MaskType.PADDING if padded else theirs.MaskType.NO_MASK
    with ir.Context():
        for products in (flash.FORWARD, flash.BACKWARD):
            want = theirs.create_dot_product_attention_backend_config(
                3, 2, T, S, ir.BF16Type.get(), 0.25, 42, 0.0, mask, 0, None, 1, False,
                is_bwd=products is flash.BACKWARD,
            )  # fmt: skip
            found = json.loads(flash._described(products, 0.25, q, k, padded))
            found["cudnn_fmha_backend_config"].pop("force_deterministic", None)
            assert found == json.loads(want)


def test_cudnn_is_not_chosen_where_xla_divides_a_deterministic_program(cudnn):
    shape = jax.ShapeDtypeStruct((3, T, 2, 8), jnp.bfloat16)
    found = []

    def ask(options):
        traced_for(options, lambda: found.append(why_not_cudnn(shape, shape)), divided=True)()

    ask({"xla_gpu_deterministic_ops": True})
    ask(None)
    assert "divides this program over devices" in found[0]
    assert found[1] is None
