"""Our norms against other libraries' modules: the same weights, values and gradients to 1e-6."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import worst

from resnorm_jax.ops import norms
from resnorm_jax.ops.norms.adaptive import MODULATIONS

TOLERANCE = 1e-6
WIDTH = 16
HEADS = 4


@dataclass(frozen=True)
class Peer:
    """A module of another library, and our function of its inputs and parameters.

    ``make``: constructs the module from its class. ``ours``: takes the module's inputs, and its
    parameters by the names that it gives them. ``others``: shapes of inputs beside x.
    """

    path: str
    make: Callable
    ours: Callable
    others: tuple = ()


def hf(model, name, make, ours, others=()):
    return Peer(f"transformers.models.{model}.modeling_{model}.{name}", make, ours, others)


def xt(name, make, ours):
    return Peer(f"x_transformers.x_transformers.{name}", make, ours)


def llama(x, p):
    return norms.llama_rms_norm(x, p["weight"])


def gemma(x, p):
    return norms.rms_norm(x, p["weight"], scale_offset=1.0)


def rms(x, p):
    return norms.rms_norm(x, p["weight"])


def mamba_2(x, gate, p, *, groups):
    return norms.gated_rms_norm(x, gate, p["weight"], norm_first=False, groups=groups)


def by_head(x, p):
    heads = x.reshape(*x.shape[:-1], HEADS, -1)
    return norms.rms_norm(heads, p["weight"]).reshape(x.shape)


def jointly(x, p):
    heads = x.reshape(*x.shape[:-1], HEADS, -1)
    return norms.joint_rms_norm(heads, p["weight"].reshape(HEADS, -1)).reshape(x.shape)


def dit(x, condition, p):
    """The norm, and the four parts that the rest of the block needs."""
    modulation = jax.nn.silu(condition) @ p["linear.weight"].T + p["linear.bias"]
    parts = norms.split_modulation(modulation)
    out = norms.adaptive_layer_norm(x, parts["shift_msa"], parts["scale_msa"])
    return [out, *(parts[key] for key in MODULATIONS[2:])]


def qwen_3(cls):
    """A norm of one head's width, called as the model calls it."""
    from torch import nn

    class ByHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = cls(WIDTH // HEADS)

        def forward(self, x):
            return self.norm(x.view(*x.shape[:-1], HEADS, -1)).view(x.shape)

    return ByHead()


ROW = (2, 3, WIDTH)
PEERS = {
    "Llama": hf("llama", "LlamaRMSNorm", lambda c: c(WIDTH), llama),
    "T5": hf("t5", "T5LayerNorm", lambda c: c(WIDTH), rms),
    "Gemma": hf("gemma", "GemmaRMSNorm", lambda c: c(WIDTH), gemma),
    "Gemma 2": hf("gemma2", "Gemma2RMSNorm", lambda c: c(WIDTH), gemma),
    "Gemma 3": hf("gemma3", "Gemma3RMSNorm", lambda c: c(WIDTH), gemma),
    "Gemma 4": hf("gemma4", "Gemma4RMSNorm", lambda c: c(WIDTH), rms),
    "Qwen3-Next": hf("qwen3_next", "Qwen3NextRMSNorm", lambda c: c(WIDTH), gemma),
    "Llama 4 queries": hf(
        "llama4", "Llama4TextL2Norm", lambda c: c(), lambda x, p: norms.rms_norm(x)
    ),
    "OLMo": hf(
        "olmo",
        "OlmoLayerNorm",
        lambda c: c(WIDTH),
        lambda x, p: norms.layer_norm(x, epsilon=1e-5),
    ),
    "Cohere": hf(
        "cohere",
        "CohereLayerNorm",
        lambda c: c(WIDTH),
        lambda x, p: norms.layer_norm(x, p["weight"], epsilon=1e-5),
    ),
    "Nemotron": hf(
        "nemotron",
        "NemotronLayerNorm1P",
        lambda c: c(WIDTH),
        lambda x, p: norms.layer_norm(x, p["weight"], p["bias"], scale_offset=1.0, epsilon=1e-5),
    ),
    "Muse Spark": hf(
        "muse_spark",
        "MuseSparkTextInputScaledRMSNorm",
        lambda c: c(WIDTH),
        lambda x, p: norms.input_scaled_rms_norm(x, p["weight"]),
    ),
    "Mamba-2": hf(
        "mamba2",
        "MambaRMSNormGated",
        lambda c: c(WIDTH, WIDTH),
        partial(mamba_2, groups=1),
        (ROW,),
    ),
    "Mamba-2, 4 groups": hf(
        "mamba2",
        "MambaRMSNormGated",
        lambda c: c(WIDTH, WIDTH // 4),
        partial(mamba_2, groups=4),
        (ROW,),
    ),
    "Mamba-2, no gate, 4 groups": hf(
        "mamba2",
        "MambaRMSNormGated",
        lambda c: c(WIDTH, WIDTH // 4),
        lambda x, p: norms.grouped_rms_norm(x, p["weight"], groups=4),
    ),
    "Qwen3-Next, gated": hf(
        "qwen3_next",
        "Qwen3NextRMSNormGated",
        lambda c: c(WIDTH),
        lambda x, gate, p: norms.gated_rms_norm(x, gate, p["weight"], norm_first=True),
        (ROW,),
    ),
    "Qwen 3 queries": hf(
        "qwen3",
        "Qwen3RMSNorm",
        qwen_3,
        lambda x, p: by_head(x, {"weight": p["norm.weight"]}),
    ),
    "OLMo 2 queries": hf("olmo2", "Olmo2RMSNorm", lambda c: c(WIDTH), jointly),
    "Qwen2.5-Omni, adaLN-Zero": hf(
        "qwen2_5_omni",
        "Qwen2_5_OmniAdaLayerNormZero",
        lambda c: c(WIDTH),
        dit,
        ((2, WIDTH),),
    ),
    "ScaleNorm": xt(
        "ScaleNorm",
        lambda c: c(WIDTH),
        lambda x, p: norms.scale_norm(x, p["g"][0] * WIDTH**0.5),
    ),
    "DyT": xt(
        "DynamicTanh",
        lambda c: c(WIDTH, init_alpha=0.5),
        lambda x, p: norms.pointwise_norm(
            x, p["pre_tanh_scale"], None, p["gamma"], p["beta"], function="tanh"
        ),
    ),
    "Derf": xt(
        "Derf",
        lambda c: c(WIDTH),
        lambda x, p: norms.pointwise_norm(
            x, p["alpha"], p["s"], p["gamma"], p["beta"], function="erf"
        ),
    ),
}


def load(path):
    """A class of a library that may not be installed, or not in a version that has it."""
    module, _, name = path.rpartition(".")
    pytest.importorskip("torch")
    pytest.importorskip(module.split(".")[0], reason=f"{module} is not installed")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        pytest.skip(f"this version has no {path}")


def tensors(torch, arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def flat(outputs):
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def gradient_size(ours, inputs, parameters, key, expected, weights):
    """Largest element; for a scalar the sum of its terms' magnitudes, which may cancel."""
    if expected.size > 1:
        return np.abs(expected).max()

    def value(p):
        return flat(ours(*inputs, {**parameters, key: p}))

    terms = jax.jvp(value, (parameters[key],), (jnp.ones_like(parameters[key]),))[1]
    return sum(float(jnp.abs(t * w).sum()) for t, w in zip(terms, weights, strict=True))


@pytest.mark.table
@pytest.mark.parametrize("name", PEERS)
def test_values_and_gradients_are_the_peers(name):
    peer = PEERS[name]
    module = peer.make(load(peer.path))
    import torch

    rng = np.random.default_rng(0)
    parameters = {}
    with torch.no_grad():
        for key, p in module.named_parameters():
            p.copy_(torch.tensor(rng.normal(0.5, 0.4, tuple(p.shape))))
            parameters[key] = jnp.asarray(p.numpy().copy())
    inputs = [rng.normal(0.5, 1.5, shape).astype(np.float32) for shape in (ROW, *peer.others)]

    theirs = tensors(torch, inputs)
    expected = flat(module(*theirs))
    weights = [rng.normal(size=tuple(e.shape)).astype(np.float32) for e in expected]
    torch.autograd.backward(expected, [torch.tensor(w) for w in weights])

    outputs, pullback = jax.vjp(lambda *args: flat(peer.ours(*args)), *inputs, parameters)
    *d_inputs, d_parameters = pullback([jnp.asarray(w) for w in weights])
    for ours, other in zip(outputs, expected, strict=True):
        assert worst(ours, other.detach()) <= TOLERANCE
    for ours, other in zip(d_inputs, theirs, strict=True):
        assert worst(ours, other.grad) <= TOLERANCE
    grads = {key: p.grad.numpy() for key, p in module.named_parameters()}
    assert set(grads) == set(d_parameters)
    for key, other in grads.items():
        size = gradient_size(peer.ours, inputs, parameters, key, other, weights)
        assert np.abs(d_parameters[key] - other).max() <= TOLERANCE * size, key
        assert size > 1e-2


@pytest.mark.table
def test_voxtrals_factor():
    """The model multiplies what its RMS norm returned by one plus a network of the condition."""
    cls = load(
        "transformers.models.voxtral_realtime.modeling_voxtral_realtime"
        ".VoxtralRealtimeTextAdaRmsNorm"
    )
    import torch

    rng = np.random.default_rng(1)
    network = cls(SimpleNamespace(hidden_size=WIDTH))
    x, condition = (rng.normal(size=s).astype(np.float32) for s in (ROW, (2, WIDTH)))
    with torch.no_grad():
        scale = network(torch.tensor(condition))
        normed = torch.nn.functional.rms_norm(torch.tensor(x), (WIDTH,), eps=1e-6)
        expected = normed * (1 + scale)[:, None]
    assert worst(norms.adaptive_rms_norm(x, scale.numpy()), expected) <= TOLERANCE


@pytest.mark.table
@pytest.mark.parametrize("first", [2.0, 6.0], ids=["free", "clamped"])
def test_swins_attention(first):
    """Swin V2's cosine attention from ordinary attention of our queries and keys.

    Its position bias is made constant, which the softmax does not see. At 6 > log 100 the clamp
    holds: the weights are those of a factor of 100, and the parameter has no gradient.
    """
    cls = load("transformers.models.swinv2.modeling_swinv2.Swinv2SelfAttention")
    import torch

    config = SimpleNamespace(qkv_bias=True, attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    attention = cls(config, WIDTH, HEADS, (1, 3)).eval()
    rng = np.random.default_rng(2)
    x = rng.normal(size=ROW).astype(np.float32)
    parameter = (first + rng.normal(0, 0.3, HEADS)).astype(np.float32)
    with torch.no_grad():
        attention.continuous_position_bias_mlp[-1].weight.zero_()
        attention.logit_scale.copy_(torch.tensor(parameter)[:, None, None])
    _, probabilities = attention(torch.tensor(x), output_attentions=True)
    weights = rng.normal(size=probabilities.shape).astype(np.float32)
    probabilities.backward(torch.tensor(weights))

    q, k = (
        getattr(attention, role)(torch.tensor(x)).detach().numpy().reshape(2, 3, HEADS, -1)
        for role in ("query", "key")
    )

    def ours(parameter):
        query, key = norms.cosine_query_key(q, k, norms.swin_scale(parameter))
        logits = jnp.einsum("bthk,bshk->bhts", query, key) / query.shape[-1] ** 0.5
        return jax.nn.softmax(logits)

    found, pullback = jax.vjp(ours, parameter)
    # The exponential turns an error of a logit, up to 100, into one as large of a probability.
    assert worst(found, probabilities.detach()) <= (1e-6 if first == 2.0 else 5e-5)
    gradient = attention.logit_scale.grad.numpy()[:, 0, 0]
    if first == 2.0:
        assert np.abs(gradient).min() > 1e-3
        assert worst(pullback(weights)[0], gradient) <= 5e-6
    else:
        assert not gradient.any()
        assert not np.asarray(pullback(weights)[0]).any()
