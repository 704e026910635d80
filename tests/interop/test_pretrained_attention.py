"""ModernBERT, DeBERTa and decoders: layer by layer, gradients, variants of their configs, refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hugging_face import TINY, tiny, token_batch
from oracles import worst

import resnorm_jax as rn
from resnorm_jax.errors import UserError
from resnorm_jax.interop.config_json import describe_checkpoint, their_config
from resnorm_jax.interop.families import FAMILIES
from resnorm_jax.interop.mapping import load
from resnorm_jax.interop.pretrained import save_pretrained
from resnorm_jax.interop.special import Joined, check_derived

BASES = {"rope_parameters": {
    "full_attention": {"rope_type": "default", "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
}}  # fmt: skip
# model_type, and what its tiny model has beside TINY's.
VARIANTS = {
    "modernbert-biased": ("modernbert", {
        "norm_bias": True, "attention_bias": True, "classifier_bias": True, **BASES,
        "classifier_pooling": "mean", "hidden_activation": "silu", "global_attn_every_n_layers": 2,
    }),
    "deberta-v2-types": ("deberta-v2", {
        "type_vocab_size": 2, "pos_att_type": "c2p|p2c", "pooler_hidden_act": "tanh",
        "max_relative_positions": -1,
    }),
    "qwen3-windows": ("qwen3", {
        "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
    }),
    "gemma3-both-sides": ("gemma3_text", {
        "use_bidirectional_attention": True, "sliding_window": 6, **BASES,
    }),
}  # fmt: skip


def logits_of(model, ids, mask):
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(ids, dtype=torch.long), attention_mask=torch.tensor(mask)
        ).logits.numpy()


@pytest.mark.table
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_their_logits_and_go_back(name, tmp_path):
    family, changed = VARIANTS[name]
    theirs = tiny(family, **changed)
    theirs.save_pretrained(tmp_path / "theirs")
    model, variables = rn.from_pretrained(tmp_path / "theirs")
    ids, mask = token_batch()
    expected = logits_of(theirs, ids, mask)
    assert worst(jax.jit(model.apply)(variables, ids, mask), expected) < 1e-5
    described = describe_checkpoint(tmp_path / "theirs")
    save_pretrained(
        tmp_path / "back", described.model(), variables, described.classes, family=family
    )
    assert describe_checkpoint(tmp_path / "back").fields == described.fields
    back = type(theirs).from_pretrained(tmp_path / "back").eval()
    assert worst(logits_of(back, ids, mask), expected) < 1e-6


def batch_of(family, theirs):
    """Return what ours is given, which of its positions are valid, and what theirs is given."""
    if FAMILIES.get(family).kind == "tokens":
        ids, mask = token_batch()
        told = {
            "input_ids": torch.tensor(ids, dtype=torch.long), "attention_mask": torch.tensor(mask),
        }  # fmt: skip
        return (jnp.asarray(ids), jnp.asarray(mask)), mask, told
    side = theirs.config.image_size
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    told = {"pixel_values": torch.tensor(images.transpose(0, 3, 1, 2))}
    return (jnp.asarray(images),), np.s_[:], told


@pytest.mark.table
@pytest.mark.parametrize(
    "family",
    ["modernbert", "deberta-v2", "gemma3_text", "mpnet", "albert", "roformer", "vit", "deit",
     "deit-with-teacher", "beit"],
)  # fmt: skip
def test_layers_and_gradients_are_theirs(family, tmp_path):
    """After each layer, and the gradient of every parameter, by the mapping of the parameters."""
    theirs = tiny(family)
    theirs.save_pretrained(tmp_path)
    model, variables = rn.from_pretrained(tmp_path)
    given, mask, told = batch_of(family, theirs)
    out = theirs(**told, output_hidden_states=True)
    weights = np.random.default_rng(3).normal(size=out.logits.shape).astype(np.float32)
    (out.logits * torch.tensor(weights)).sum().backward()

    def loss(params):
        logits, named = model.apply({"params": params}, *given, return_intermediates=True)
        return (logits * weights).sum(), named

    gradients, named = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for layer, hidden in enumerate(out.hidden_states[:-1]):
        ours = np.asarray(named["stream_in"][layer])[mask]
        assert worst(ours, hidden.detach().numpy()[mask]) < 1e-5, layer
    described = describe_checkpoint(tmp_path)
    plan = model.encoder.plan(described.model().width)
    found = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    # Of a head in two halves the gradient of each is half of that of ours, which is the whole's.
    found = {name: 2 * g if "_classifier.weight" in name else g for name, g in found.items()}
    found = Joined(described.family, found)
    expected = load(described.family, plan, found, variables["params"]).params
    if family == "deit-with-teacher":
        expected["head"] = jax.tree.map(lambda g: 2 * g, expected["head"])
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    if "embed" in expected["front_end"]:  # rows that are padding have no gradient there
        expected["front_end"]["embed"]["embedding"][1] = 0
        gradients["front_end"]["embed"]["embedding"] = (
            gradients["front_end"]["embed"]["embedding"].at[1].set(0)
        )
    for ours, true in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        # That of a key's bias is 0 but for rounding: softmax does not see it.
        scale = max(np.abs(true).max(), 1e-4 * largest)
        assert np.abs(ours - true).max() / scale < 2e-5 * max(1, largest)


def written(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_configs_of_older_files_are_read(tmp_path):
    """As on the Hub: bases and patterns in the words of before."""
    found = describe_checkpoint(
        written(
            tmp_path, model_type="modernbert", global_rope_theta=160000.0, local_rope_theta=10000.0,
            global_attn_every_n_layers=3, local_attention=128, num_hidden_layers=22,
        )
    ).fields  # fmt: skip
    assert (found["window"], found["rotary_base"]) == ("all+64*2", "160000+10000*2")
    assert found["attention_norm_before"] == "none*1+layer_no_bias"
    assert found["use_bias"] == "none"
    found = describe_checkpoint(
        written(
            tmp_path, model_type="gemma3_text", rope_theta=1e6, rope_local_base_freq=1e4,
            sliding_window=512, hidden_size=640, num_hidden_layers=18, intermediate_size=2048,
            num_attention_heads=4, num_key_value_heads=1, vocab_size=262144, pad_token_id=0,
        )
    ).fields  # fmt: skip
    assert (found["window"], found["rotary_base"]) == ("511*5+all", "10000*5+1000000")
    assert found["attention_scale"] == 1 / 16
    assert found["causal"] is True


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "deberta-v2", "relative_attention": False}, "relative_attention is"),
        ({"model_type": "deberta-v2"}, "relative_attention is False"),
        (
            {"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": ["c2p"]},
            "pos_att_type is",
        ),
        (
            {"model_type": "qwen3", "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "scaled frequencies",
        ),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias is True"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"model_type": "olmo2", "hidden_act": "relu6"}, "hidden_act is 'relu6'"),
        ({"model_type": "roformer", "rotary_value": True}, "rotary_value is True"),
        ({"model_type": "albert", "inner_group_num": 2}, "inner_group_num is 2"),
        (
            {"model_type": "albert", "num_hidden_groups": 2, "num_hidden_layers": 3},
            "num_hidden_groups is 2 of num_hidden_layers 3",
        ),
        ({"model_type": "albert", "num_hidden_groups": "2"}, "value is not of its field's kind"),
        ({"model_type": "albert", "num_hidden_groups": 0}, "value is not of its field's kind"),
        ({"model_type": "roformer", "hidden_act": ["gelu"]}, r"hidden_act is \['gelu'\]"),
        ({"model_type": "deit", "image_size": [224, 192]}, r"image_size is \[224, 192\]"),
        ({"model_type": "beit", "layer_scale_init_value": 0}, "layer_scale_init_value is 0"),
        (
            {
                "model_type": "beit",
                "use_relative_position_bias": True,
                "use_shared_relative_position_bias": True,
            },
            "are both true",
        ),
    ],
)
def test_what_is_not_read_is_named(config, says, tmp_path):
    with pytest.raises(UserError, match=says):
        describe_checkpoint(written(tmp_path, **config))


def test_roformers_table_of_angles_is_checked():
    family, model = FAMILIES.get("roformer"), {"max_length": 5, "width": 16, "heads": 2}
    ((name, table),) = family.derived(model).items()
    full = family.prefix + name
    assert check_derived(family, model, {full: table.astype(np.float32)}) == {full}
    assert check_derived(family, model, {full: table.astype(np.float16)}) == {full}
    assert check_derived(family, model, {}) == frozenset()
    for other in (table[:, ::-1], table[1:], 1.001 * table):
        with pytest.raises(
            UserError, match=r"embed_positions\.weight: .* not those of the formula"
        ):
            check_derived(family, model, {full: other.astype(np.float32)})


@pytest.mark.parametrize(
    ("family", "changed", "says"),
    [
        ("modernbert", {"window": "all+3+2"}, "model.window: .*have one window"),
        ("modernbert", {"use_bias": "query"}, "model.use_bias: 'query'"),
        ("modernbert", {"rotary_base": "7+8+9"}, "model.rotary_base: .*one base"),
        ("gemma3_text", {"embedding_multiplier": 2.0}, "model.embedding_multiplier: 2.0"),
        ("qwen3", {"relative": "bias"}, "model.relative: .*has no place"),
        ("olmo2", {"padding": None}, "model.padding: not given"),
        ("bert", {"layer_groups": 1}, "model.layer_groups: 1 has no place in a 'bert' model"),
        ("roformer", {"head_activation": "tanh"}, "model.head_activation: 'tanh'.*'gelu'"),
        ("albert", {"embedding_width": None}, "model.embedding_width: not given"),
        ("beit", {"head_norm": None}, "model.head_norm: None.*'layer'"),
    ],
)
def test_models_that_are_none_of_a_family(family, changed, says, tmp_path):
    import transformers

    architecture = getattr(transformers, TINY[family][0])
    config = architecture.config_class(**TINY[family][1], architectures=[TINY[family][0]])
    config.save_pretrained(tmp_path)
    described = describe_checkpoint(tmp_path)
    their_config(described.family, described.model(), described.classes)
    with pytest.raises(UserError, match=says):
        their_config(described.family, described.model(**changed), described.classes)
