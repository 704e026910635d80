"""Which parameter is what, by name, in stacks too; and which decay."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from oracles import quick_jit
from tiers import every, one_and_many, showing

from resnorm_jax import TransformerEncoder, arrangements, norms
from resnorm_jax.config import OptimizerConfig
from resnorm_jax.errors import UserError
from resnorm_jax.planning.roles import ROLE_NAMES, ROLES, parameter_roles
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.roles import decay_mask, decay_roles


def named(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@cache
def trained_parameters(**model):
    """Do not write into them."""
    _, state, _, _ = tiny.parts(tiny.config(model=model), tiny.dataset())
    return state.params


# What the roles of a real, scanned model must be: the last two words of a path decide here.
EXPECTED = {
    "norm_before/scale": "input_norm_scale",
    "norm_after/scale": "output_norm_scale",
    "norm_on_stream/scale": "stream_norm_scale",
    "final_norm/scale": "final_norm_scale",
    "positions/embedding": "embedding",
    "layers/gate": "gate",
    "gate/kernel": "kernel",
}


@pytest.mark.table
@pytest.mark.parametrize(
    "arrangement", every(["pre_ln", "sandwich_ln", "post_ln", "rezero"], ["sandwich_ln"])
)
def test_roles_in_a_scanned_stack(arrangement):
    params = trained_parameters(arrangement=arrangement, pooling="cls", activation="swiglu")
    roles, leaves = named(parameter_roles(params)), named(params)
    assert set(roles) == set(leaves)
    for name, role in roles.items():
        last = "/".join(name.split("/")[-2:])
        expected = EXPECTED.get(last, {"cls": "class_token"}.get(name, name.split("/")[-1]))
        assert role == expected, name
    scales = [n for n in roles if n.startswith("encoder/layers") and n.endswith("scale")]
    assert all(leaves[n].ndim == 2 for n in scales)  # a rule by rank would take them for kernels
    assert any("gate/kernel" in n for n in roles)
    slots = {name.split("/")[-2] for name in roles if name.endswith("scale")}
    found = {"norm_before", "norm_after", "norm_on_stream"} & slots
    row = arrangements.get(arrangement)
    assert found == {s for s in ("norm_before", "norm_after", "norm_on_stream") if getattr(row, s)}


def test_every_role_has_a_path_and_slots_may_hold_deeper_norms():
    paths = {
        "layers/attention/query_norm/scale": "query_key_norm_scale",
        "layers/attention/key_norm/scale": "query_key_norm_scale",
        "layers/attention/value_norm/scale": "input_norm_scale",
        "layers/attention/branch/heads_norm/inner/scale": "input_norm_scale",
        "layers/feed_forward/branch/mlp_norm/scale": "input_norm_scale",
        "embedding_norm/scale": "stream_norm_scale",
        "norm_after/scale": "output_norm_scale",
        "final_norm/scale": "final_norm_scale",
        "anybodys/scale": "norm_scale",
        "scale": "norm_scale",
        "final_norm/bias": "bias",
        "final_norm/alpha": "norm_shape",
        "embed/embedding": "embedding",
        "layers/gate": "gate",
        "layers/attention/head_scale": "factor",
        "layers/attention/read_gate": "gate",
        "layers/attention/head_kernel": "kernel",
        "layers/attention/head_bias": "bias",
        "lora/layers/attention/query/kernel/lora_a": "low_rank",
        "layers/attention/pre_norm/scale": "input_norm_scale",
        "layers/attention/post_norm/scale": "stream_norm_scale",
        "cls": "class_token",
        "distillation": "class_token",
        "kernel": "kernel",
    }
    for path, role in paths.items():
        tree = 1.0
        for key in reversed(path.split("/")):
            tree = {key: tree}
        assert list(named(parameter_roles(tree)).items()) == [(path, role)]
    assert set(paths.values()) == set(ROLE_NAMES)
    assert len(set(ROLE_NAMES)) == len(ROLES)


def test_a_parameter_without_a_role_is_an_error():
    with pytest.raises(ValueError, match=r"no role covers the parameters \['layer/odd'\]"):
        parameter_roles({"layer": {"odd": jnp.ones(3), "kernel": jnp.ones((2, 2))}})


def test_kernels_alone_decay_by_default():
    flags = named(decay_mask(trained_parameters(arrangement="sandwich_ln"), decay_roles("kernel")))
    assert flags == {name: name.endswith("/kernel") for name in flags}
    assert OptimizerConfig().decay == "kernel"


@pytest.mark.table
@pytest.mark.parametrize("algorithm", every(["adamw", "lion", "sgd"], ["adamw"]))
@pytest.mark.parametrize(
    ("decay", "decays"),
    [
        pytest.param("kernel", ["kernel"], marks=pytest.mark.table),
        pytest.param(
            "kernel, input_norm_scale", ["kernel", "input_norm_scale"], marks=pytest.mark.table
        ),
        ("output_norm_scale+gate", ["output_norm_scale", "gate"]),
    ],
)
def test_only_what_is_named_shrinks_without_a_gradient(decay, decays, algorithm):
    config = OptimizerConfig(
        algorithm=algorithm, learning_rate=0.1, schedule="constant", weight_decay=0.5, decay=decay
    )
    optimizer, _ = make_optimizer(config, 10)
    params = jax.tree.map(
        lambda p: np.full(p.shape, 2.0, p.dtype), trained_parameters(arrangement="sandwich_ln")
    )
    still = jax.tree.map(np.zeros_like, params)
    updates, _ = quick_jit(lambda p, g: optimizer.update(g, optimizer.init(p), p))(params, still)
    new, roles = named(optax.apply_updates(params, updates)), named(parameter_roles(params))
    assert {"kernel", "input_norm_scale", "output_norm_scale"} <= set(roles.values())
    for name, leaf in new.items():
        expected = 2.0 * (1 - 0.1 * 0.5) if roles[name] in decays else 2.0
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, err_msg=name)


def test_mistakes_are_one_line():
    with pytest.raises(
        UserError, match=r"optimizer.decay: unknown value 'kernels'; did you mean 'ker"
    ):
        decay_roles("bias,kernels")
    with pytest.raises(UserError, match="did you mean 'input_norm_scale'"):
        make_optimizer(OptimizerConfig(decay="kernel,input_norm_scales"), 10)
    for algorithm in ("adam", "sgd"):  # neither decays unless it is told to
        with pytest.raises(
            UserError, match=f"optimizer.decay: not read: {algorithm} has no weight"
        ):
            make_optimizer(OptimizerConfig(algorithm=algorithm, decay="bias"), 10)
    assert decay_roles("kernel,gate") == decay_roles("gate + kernel") == {"gate", "kernel"}


# Default: each new name of a parameter, and each name that stands inside.
NORMS = showing(norms.rows(), lambda row: [row.module, *(p.name for p in row.parameters)])


@pytest.mark.parametrize(
    "name",
    [
        *every(arrangements.names(), one_and_many()),
        *every([f"norm={n}" for n in norms.names()], [f"norm={row.name}" for row in NORMS]),
    ],
)
def test_every_scheme_and_norm_is_covered_and_only_kernels_decay(name):
    chosen = {"norm": name[5:]} if name.startswith("norm=") else {"arrangement": name}
    encoder = TransformerEncoder(depth=4, heads=2, **chosen)
    x = jax.ShapeDtypeStruct((2, 5, 8), jnp.float32)
    params = jax.eval_shape(encoder.init, jax.random.key(0), x)["params"]
    decaying = {path.split("/")[-1] for path, decays in named(decay_mask(params)).items() if decays}
    assert "kernel" in decaying
    assert all(
        last.endswith("kernel") or last in ("seed_alpha", "seed_beta") for last in decaying
    ), decaying
