"""Layers that share parameters: what the same layers with copies of them compute, at any depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax.errors import ChoiceError, UserError
from resnorm_jax.interop.pre_rms import centre, pre_rms_params
from resnorm_jax.interop.torch_encoder import to_torch_encoder
from resnorm_jax.lab.pruning.layers import layer_sizes, size_of
from resnorm_jax.modules.admin import admin_profile
from resnorm_jax.modules.hooks import stream_gradients
from resnorm_jax.planning.parameters import parameters

X = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
MASK = np.arange(5) < np.array([5, 3])[:, None]
DEPTH = 6


def encoder(groups, arrangement="post_ln", depth=DEPTH, **more):
    return rn.TransformerEncoder(
        depth=depth, heads=2, arrangement=arrangement, layer_groups=groups, **more
    )


def started(model, seed=1):
    """Parameters of which none is zero or one."""
    params = jax.jit(model.init)(jax.random.key(seed), X)["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def copies(params, groups):
    times = DEPTH // groups
    return {**params, "layers": jax.tree.map(lambda a: jnp.repeat(a, times, 0), params["layers"])}


@pytest.mark.table
@pytest.mark.parametrize(
    ("groups", "arrangement", "more"),
    [
        (1, "post_ln", {}),
        (2, "layer_scale", {"unroll": 6}),
        (3, "deepnorm", {"remat": "full"}),
        (2, "layer_norm_scaling", {}),  # its scales differ by layer, inside a group too
    ],
)
def test_it_computes_what_copies_compute(groups, arrangement, more):
    shared, apart = encoder(groups, arrangement, **more), encoder(None, arrangement)
    params = started(shared)
    weights = np.random.default_rng(3).normal(size=X.shape).astype(np.float32)

    def loss(params, model):
        out, named = model.apply({"params": params}, X, MASK, return_intermediates=True)
        return (out * weights).sum(), (out, named)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, (out, named)), gradient = run(params, shared)
    (_, (expected, other)), copied = run(copies(params, groups), apart)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    for name, value in other.items():
        np.testing.assert_allclose(named[name], value, atol=5e-6, err_msg=name)
    summed = jax.tree.map(lambda g: g.reshape(groups, -1, *g.shape[1:]).sum(1), copied["layers"])
    for a, b in zip(*map(jax.tree.leaves, (gradient["layers"], summed)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()))


def test_parameters_are_those_of_the_plan():
    model = encoder(2, "layer_scale")
    made = jax.eval_shape(model.init, jax.random.key(0), X)["params"]
    paths = jax.tree_util.tree_leaves_with_path(made)
    found = {jax.tree_util.keystr(p, simple=True, separator="/"): a.shape for p, a in paths}
    plan = model.plan(8)
    assert found == {p.path: p.shape for p in parameters(plan)}
    assert found["layers/attention/branch/query/kernel"] == (2, 8, 2, 4)
    assert "3 layers in a row share their parameters" in str(plan)


@pytest.mark.table
def test_first_values_are_those_of_a_groups_first_layer():
    """As in a stack of its own, whatever the depth decides: here a smaller deviation, further up."""
    shared = encoder(2, "ds_init")
    together, apart = (
        np.std(first_kernels(model), axis=(1, 2)) for model in (shared, encoder(None, "ds_init"))
    )
    np.testing.assert_allclose(together / apart[[0, 3]], 1, atol=0.2)
    assert apart[2] < 0.7 * apart[0]


def first_kernels(model):
    params = jax.jit(model.init)(jax.random.key(1), X)["params"]
    return np.asarray(params["layers"]["feed_forward"]["branch"]["fc1"]["kernel"])


@pytest.mark.table
def test_layers_of_a_group_drop_differently_and_hooks_see_each():
    model = encoder(1, "pre_ln", dropout=0.5)
    params = started(model)
    _, named = model.apply(
        {"params": params}, X, deterministic=False, return_intermediates=True,
        rngs={"dropout": jax.random.key(0)},
    )  # fmt: skip
    written = np.asarray(named["attention/stream"] - named["stream_in"])
    zero = written == 0
    assert len({z.tobytes() for z in zero}) == DEPTH
    seen = stream_gradients(model, {"params": params}, lambda y: (y**2).sum(), X, MASK)
    expected = stream_gradients(
        encoder(None, "pre_ln"), {"params": copies(params, 1)}, lambda y: (y**2).sum(), X, MASK
    )
    assert seen["stream"].shape[0] == DEPTH + 1
    np.testing.assert_allclose(seen["stream"], expected["stream"], atol=1e-5)


@pytest.mark.table
@pytest.mark.parametrize("groups", [1, 2])
def test_depth_costs_nothing_to_compile(groups):
    def size(depth):
        model = encoder(groups, "pre_ln", depth, unroll=1)
        params = jax.eval_shape(model.init, jax.random.key(0), X)
        lowered = jax.jit(jax.grad(lambda p: model.apply(p, X).sum())).lower(params)
        return lowered.as_text().count("\n")

    assert size(100) == size(6 * groups)


@pytest.mark.table
def test_the_exact_change_to_rms_holds():
    shared = encoder(2, "pre_ln")
    params = started(shared)
    new, bias = pre_rms_params(params)
    out = encoder(2, "pre_ln", norm="rms").apply({"params": new}, centre(X)) + bias
    np.testing.assert_allclose(out, shared.apply({"params": params}, X), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"groups": 4}, r"^layer_groups: 4 does not divide 6 layers; try 3"),
        ({"groups": 0}, r"^layer_groups: 0 must be over 0"),
        ({"groups": 2, "remat": "full", "remat_every": 3}, r"^remat_every: 3 with layers that share"),
        ({"groups": 2, "norm": "batch"}, r"^layer_groups: norm 'batch' keeps the running mean"),
        ({"groups": 2, "norm": "layer*2+rms"}, r"^layer_groups: of 3 layers in a row .* from layer 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused(change, says):
    with pytest.raises(ChoiceError, match=says):
        encoder(**change).plan(8)


def test_others_that_need_a_set_a_layer_say_so():
    model = encoder(2, "post_ln")
    with pytest.raises(
        UserError, match=r"^layer_groups: 2: torch's encoder has parameters for each"
    ):
        to_torch_encoder({}, model, 8)
    assert encoder(DEPTH).plan(8).segments == encoder(None).plan(8).segments
    sizes = layer_sizes({"layers": {"kernel": np.zeros((2, 5))}})
    assert sizes == [5, 5]
    assert size_of([0, 1, 3], sizes, DEPTH) == 0
    assert size_of([0, 1, 2, 3], sizes, DEPTH) == 5
    assert size_of([0], [4, 3], 2) == 4


@pytest.mark.table
def test_admins_profile_needs_a_weight_a_layer():
    model = encoder(2, "admin")
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="each would need its own skip weight"):
        admin_profile(model, variables, X)
