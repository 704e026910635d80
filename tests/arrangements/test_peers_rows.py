"""Layers against those of transformers, x-transformers and torchscale: weights copied, all else ours.

Where a peer's layer has something that an arrangement does not speak of, it is switched off there by
its weights (Swin's position bias, GPT-J's rotation, which pairs features in another way).
"""

import copy

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst

from resnorm_jax import TransformerEncoder, TransformerEncoderLayer
from resnorm_jax.arrangements import Place

torch = pytest.importorskip("torch")
B, L, D, H, F = 2, 4, 8, 2, 12
K = D // H
CAUSAL = np.tril(np.ones((L, L), bool))
EVERY = np.ones((L, L), bool)
PEERS = {}


def peer(function):
    """Register a peer: it returns its module, a call, and our row, options and parameters."""
    PEERS[function.__name__] = function
    return function


def shaken(module):
    """The module with no norm at 1 and no bias at 0, or a wrong one would pass."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def array(tensor):
    return tensor.detach().numpy()


def heads_in(linear, rows=slice(None), bias=True):
    """A projection to heads: torch's ``[H K, D]`` as ``[D, H, K]``."""
    made = {"kernel": array(linear.weight)[rows].T.reshape(-1, H, K)}
    if bias:
        flat = np.zeros(D) if linear.bias is None else array(linear.bias)[rows]
        made["bias"] = flat.reshape(H, K)
    return made


def heads_out(linear, bias=True):
    made = {"kernel": array(linear.weight).T.reshape(H, K, -1)}
    if bias:
        made["bias"] = np.zeros(D) if linear.bias is None else array(linear.bias)
    return made


def dense(linear, bias=True):
    made = {"kernel": array(linear.weight).T}
    return {**made, "bias": array(linear.bias)} if bias else made


def norm(module):
    made = {"scale": array(module.weight)}
    return (
        {**made, "bias": array(module.bias)} if getattr(module, "bias", None) is not None else made
    )


def additive(mask):
    """Where not to look, as transformers' eager attention takes it."""
    return torch.tensor(np.where(mask, 0.0, -1e30).astype(np.float32))[None, None]


def attention(q, k, v, o, bias=True):
    named = {"query": q, "key": k, "value": v}
    return {n: heads_in(m, bias=bias) for n, m in named.items()} | {"out": heads_out(o, bias)}


def turned():
    """Angles of the half-split layout, as (cosine, sine)."""
    angle = np.arange(L)[:, None] * 10_000.0 ** (-np.arange(K // 2) / (K // 2))
    angle = torch.tensor(np.concatenate([angle, angle], -1)[None], dtype=torch.float32)
    return torch.cos(angle), torch.sin(angle)


# --- transformers ---


@peer
def gpt_j():
    from transformers import GPTJConfig
    from transformers.models.gptj.modeling_gptj import GPTJBlock

    config = GPTJConfig(
        n_embd=D, n_head=H, n_inner=F, activation_function="gelu", rotary_dim=K,
        attn_implementation="eager",
    )  # fmt: skip
    m = shaken(GPTJBlock(config, 0))
    a = m.attn
    params = {
        "parallel": {
            "norm_before": norm(m.ln_1),
            "branch": {
                "branches_attention": attention(a.q_proj, a.k_proj, a.v_proj, a.out_proj),
                "branches_feed_forward": {"fc1": dense(m.mlp.fc_in), "fc2": dense(m.mlp.fc_out)},
            },
        }
    }
    cos, sin = torch.ones(1, L, K // 2), torch.zeros(1, L, K // 2)

    def call(x, mask):
        return m(x, attention_mask=additive(mask), position_embeddings=(sin, cos))

    return call, "parallel_one_norm", {"norm_epsilon": config.layer_norm_epsilon}, params


@peer
def gpt_neox():
    from transformers import GPTNeoXConfig
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer

    config = GPTNeoXConfig(
        hidden_size=D, num_attention_heads=H, intermediate_size=F, hidden_act="gelu",
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
        attn_implementation="eager",
    )  # fmt: skip
    m = shaken(GPTNeoXLayer(config, 0))
    joint = m.attention.query_key_value  # by head: query, key, value
    weight = array(joint.weight).reshape(H, 3, K, D).transpose(1, 3, 0, 2)
    bias = array(joint.bias).reshape(H, 3, K).transpose(1, 0, 2)
    parts = {
        role: {"kernel": weight[i], "bias": bias[i]}
        for i, role in enumerate(("query", "key", "value"))
    }
    params = {
        "parallel": {
            "branch": {
                "attention_norm": norm(m.input_layernorm),
                "feed_forward_norm": norm(m.post_attention_layernorm),
                "branches_attention": {**parts, "out": heads_out(m.attention.dense)},
                "branches_feed_forward": {
                    "fc1": dense(m.mlp.dense_h_to_4h),
                    "fc2": dense(m.mlp.dense_4h_to_h),
                },
            }
        }
    }

    def call(x, mask):
        return m(x, attention_mask=additive(mask), position_embeddings=turned())

    options = {"norm_epsilon": config.layer_norm_eps, "rotary": True}
    return call, "parallel_two_norms", options, params


def swiglu(mlp):
    named = {"fc1": mlp.gate_proj, "gate": mlp.up_proj, "fc2": mlp.down_proj}
    return {name: dense(linear, bias=False) for name, linear in named.items()}


def llama_like(config, m, norms):
    """What OLMo 2 and Gemma 2 share; ``norms`` maps our places to their modules."""
    a = m.self_attn
    params = {
        "attention": {
            "branch": attention(a.q_proj, a.k_proj, a.v_proj, a.o_proj, bias=False),
        },
        "feed_forward": {"branch": swiglu(m.mlp)},
    }
    for place, module in norms.items():
        block, slot = place.split("/")
        params[block][slot] = norm(module)

    def call(x, mask):
        return m(x, attention_mask=additive(mask), position_embeddings=turned())

    options = {
        "norm_epsilon": config.rms_norm_eps, "rotary": True, "use_bias": False,
        "activation": "swiglu",
    }  # fmt: skip
    return call, options, params


SIZES = {
    "hidden_size": D, "num_attention_heads": H, "num_key_value_heads": H, "intermediate_size": F,
    "num_hidden_layers": 2, "attn_implementation": "eager",
}  # fmt: skip


@peer
def olmo2():
    from transformers import Olmo2Config
    from transformers.models.olmo2.modeling_olmo2 import Olmo2DecoderLayer

    config = Olmo2Config(**SIZES, hidden_act="silu")
    m = shaken(Olmo2DecoderLayer(config, 0))
    call, options, params = llama_like(
        config,
        m,
        {
            "attention/norm_after": m.post_attention_layernorm,
            "feed_forward/norm_after": m.post_feedforward_layernorm,
        },
    )
    params["attention"]["branch"] |= {
        "query_norm": norm(m.self_attn.q_norm), "key_norm": norm(m.self_attn.k_norm),
    }  # fmt: skip
    return call, "reordered_ln", {**options, "norm": "rms"}, params


@peer
def gemma2():
    from transformers import Gemma2Config
    from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer

    config = Gemma2Config(
        **SIZES, head_dim=K, query_pre_attn_scalar=K, hidden_activation="silu",
        attn_logit_softcapping=None,
    )  # fmt: skip
    m = shaken(Gemma2DecoderLayer(config, 0))
    call, options, params = llama_like(
        config,
        m,
        {
            "attention/norm_before": m.input_layernorm,
            "attention/norm_after": m.post_attention_layernorm,
            "feed_forward/norm_before": m.pre_feedforward_layernorm,
            "feed_forward/norm_after": m.post_feedforward_layernorm,
        },
    )
    return call, "sandwich_ln", {**options, "norm": "rms_zero_centred"}, params


@peer
def swin_v2():
    from transformers import Swinv2Config
    from transformers.models.swinv2.modeling_swinv2 import Swinv2Layer

    config = Swinv2Config(
        embed_dim=D, num_heads=[H], depths=[1], mlp_ratio=F / D, window_size=2, image_size=4,
        hidden_act="gelu", layer_norm_eps=1e-5,
    )  # fmt: skip
    m = shaken(Swinv2Layer(config, D, (2, 2), H))  # one window of all positions, no shift
    inner = m.attention.self
    with torch.no_grad():  # equal for all pairs: softmax does not see it
        inner.continuous_position_bias_mlp[2].weight.zero_()
    params = {
        "attention": {
            "norm_after": norm(m.layernorm_before),
            "branch": attention(inner.query, inner.key, inner.value, m.attention.output.dense)
            | {"query_key_log_scale": array(inner.logit_scale)[:, 0, 0]},
        },
        "feed_forward": {
            "norm_after": norm(m.layernorm_after),
            "branch": {"fc1": dense(m.intermediate.dense), "fc2": dense(m.output.dense)},
        },
    }

    def call(x, mask):
        assert mask.all()
        return m(x, (2, 2))

    return call, "res_post_norm_cosine", {"norm_epsilon": 1e-5, "mask": EVERY}, params


@peer
def gpt2():
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    config = GPT2Config(
        n_embd=D, n_head=H, n_inner=F, activation_function="gelu", attn_implementation="eager"
    )
    m = shaken(GPT2Block(config, 0))
    joint, out = m.attn.c_attn, m.attn.c_proj  # kernels lie as ours: [in, out]
    parts = {
        role: {
            "kernel": array(joint.weight)[:, i * D : (i + 1) * D].reshape(D, H, K),
            "bias": array(joint.bias)[i * D : (i + 1) * D].reshape(H, K),
        }
        for i, role in enumerate(("query", "key", "value"))
    }
    parts["out"] = {"kernel": array(out.weight).reshape(H, K, D), "bias": array(out.bias)}
    mlp = {"fc1": m.mlp.c_fc, "fc2": m.mlp.c_proj}
    params = {
        "attention": {"norm_before": norm(m.ln_1), "branch": parts},
        "feed_forward": {
            "norm_before": norm(m.ln_2),
            "branch": {
                n: {"kernel": array(c.weight), "bias": array(c.bias)} for n, c in mlp.items()
            },
        },
    }

    def call(x, mask):
        return m(x, attention_mask=additive(mask))

    return call, "pre_ln", {"norm_epsilon": config.layer_norm_epsilon}, params


@peer
def bert():
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    config = BertConfig(
        hidden_size=D, num_attention_heads=H, intermediate_size=F, hidden_act="gelu",
        attn_implementation="eager",
    )  # fmt: skip
    m = shaken(BertLayer(config))
    inner, outer = m.attention.self, m.attention.output
    params = {
        "attention": {
            "norm_on_stream": norm(outer.LayerNorm),
            "branch": attention(inner.query, inner.key, inner.value, outer.dense),
        },
        "feed_forward": {
            "norm_on_stream": norm(m.output.LayerNorm),
            "branch": {"fc1": dense(m.intermediate.dense), "fc2": dense(m.output.dense)},
        },
    }

    def call(x, mask):
        return m(x, additive(mask))

    return call, "post_ln", {"norm_epsilon": config.layer_norm_eps}, params


# --- x-transformers: whole encoders of one layer, with their final norm ---


def x_encoder(**options):
    x_transformers = pytest.importorskip("x_transformers")
    m = shaken(
        x_transformers.Encoder(
            dim=D, depth=1, heads=H, attn_dim_head=K, ff_mult=F / D, rotary_pos_emb=False, **options
        )
    )
    (norms_a, a, _), (norms_f, f, _) = m.layers
    blocks = {
        "attention": (
            norms_a,
            attention(a.to_q, a.to_k, a.to_v, a.to_out, bias=True),
        ),
        "feed_forward": (norms_f, {"fc1": dense(f.ff[0][0]), "fc2": dense(f.ff[-1])}),
    }
    slots = ("norm_before", "norm_after", "norm_on_stream")
    params = {
        block: {
            "branch": branch,
            **{slot: factor(n) for slot, n in zip(slots, norms, strict=True) if n is not None},
        }
        for block, (norms, branch) in blocks.items()
    }
    final = {} if options.get("pre_norm") is False else {"final_norm": factor(m.final_norm)}

    def call(x, mask):
        return m(x, attn_mask=torch.tensor(mask))

    return call, {"norm": "layer_no_bias", "norm_epsilon": 1e-5}, {"layers": params, **final}


def factor(norm):
    """Its encoders' norms may be zero-centred."""
    return {"scale": array(norm.gamma) + float(norm.unit_offset)}


@peer
def x_pre_norm():
    call, options, params = x_encoder()
    return call, "pre_ln", options, params


@peer
def x_sandwich_norm():
    call, options, params = x_encoder(sandwich_norm=True)
    return call, "sandwich_ln", options, params


@peer
def x_post_norm():
    call, options, params = x_encoder(pre_norm=False)
    return call, "post_ln", options, params


# --- torchscale, where it is installed ---


def torchscale_layer(layers, **options):
    encoder = pytest.importorskip("torchscale.architecture.encoder", exc_type=ImportError)
    from torchscale.architecture.config import EncoderConfig

    config = EncoderConfig(
        encoder_embed_dim=D, encoder_attention_heads=H, encoder_ffn_embed_dim=F,
        encoder_layers=layers, activation_fn="gelu", **options,
    )  # fmt: skip
    m = shaken(encoder.EncoderLayer(config, 0))
    a = m.self_attn
    params = {
        "attention": {"branch": attention(a.q_proj, a.k_proj, a.v_proj, a.out_proj)},
        "feed_forward": {"branch": {"fc1": dense(m.ffn.fc1), "fc2": dense(m.ffn.fc2)}},
    }

    def call(x, mask):
        return m(x, None, attn_mask=torch.tensor(np.where(mask, 0.0, 1.0)))

    place = Place(layers, 1, 1, 2 * layers)
    return m, call, {"norm_epsilon": config.layernorm_eps, "place": place}, params


@peer
def torchscale_deepnorm():
    m, call, options, params = torchscale_layer(6, deepnorm=True)
    params["attention"]["norm_on_stream"] = norm(m.self_attn_layer_norm)
    params["feed_forward"]["norm_on_stream"] = norm(m.final_layer_norm)
    return call, "deepnorm", options, params


@peer
def torchscale_sub_ln():
    m, call, options, params = torchscale_layer(6, subln=True)
    params["attention"]["norm_before"] = norm(m.self_attn_layer_norm)
    params["feed_forward"]["norm_before"] = norm(m.final_layer_norm)
    params["attention"]["branch"]["heads_norm"] = norm(m.self_attn.inner_attn_ln)
    params["feed_forward"]["branch"]["mlp_norm"] = norm(m.ffn.ffn_layernorm)
    return call, "sub_ln", options, params


@pytest.mark.table
@pytest.mark.parametrize("name", PEERS)
def test_a_layer_is_the_peers(name):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    call, row, options, params = PEERS[name]()
    mask = options.pop("mask", CAUSAL)
    rng = np.random.default_rng(0)
    x, cotangent = (rng.normal(size=(B, L, D)).astype(np.float32) for _ in range(2))
    tensor = torch.tensor(x, requires_grad=True)
    expected = call(tensor, mask)
    expected = expected[0] if isinstance(expected, tuple) else expected
    expected.backward(torch.tensor(cotangent))

    fields = {"heads": H, "mlp_width": F, "arrangement": row, **options}
    if "layers" in params:
        layer = TransformerEncoder(depth=1, **fields)
        params["layers"] = jax.tree.map(lambda a: np.asarray(a)[None], params["layers"])
    else:
        layer = TransformerEncoderLayer(**fields)
    like = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda a: a.shape, like)
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)

    @quick_jit
    def run(params, x):
        out, pullback = jax.vjp(
            lambda x: layer.apply({"params": params}, x, attention_mask=mask), x
        )
        return out, *pullback(jnp.asarray(cotangent))

    out, dx = run(params, x)
    assert worst(out, expected.detach()) <= 1e-5
    assert worst(dx, tensor.grad) <= 1e-5
    # Another value of any one parameter is seen: nothing was copied in vain.
    flat = flax.traverse_util.flatten_dict(params)
    for path in flat:
        if path[-2:] == ("key", "bias"):
            continue  # softmax does not see what is added to all keys alike
        other = copy.copy(flat)
        other[path] = flat[path] + 0.1 * rng.normal(size=flat[path].shape).astype(np.float32)
        moved, _ = run(flax.traverse_util.unflatten_dict(other), x)
        assert worst(moved, expected.detach()) > 1e-4, path
