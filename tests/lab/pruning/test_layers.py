"""Which layers go, and what a model without them computes."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import every

import resnorm_jax as rn
from resnorm_jax.arrangements import Place
from resnorm_jax.lab.pruning import layers
from resnorm_jax.modules.hooks import layer_switch
from resnorm_jax.schemes import STREAMS

DEPTH = 3


def random_loss(depth, seed):
    rng = np.random.default_rng(seed)
    table = {}
    return lambda gone: table.setdefault(gone, float(rng.random()))


@pytest.mark.parametrize("seed", range(5))
def test_greedy_removes_the_cheapest_layer_each_time(seed):
    loss = random_loss(5, seed)
    asked = []
    order = layers.greedy(lambda gone: (asked.append(gone), loss(gone))[1], 5)
    fits = [
        p
        for p in permutations(range(5))
        if all(
            loss(frozenset(p[: k + 1])) == min(loss(frozenset({*p[:k], q})) for q in p[k:])
            for k in range(5)
        )
    ]
    assert fits == [tuple(order)]
    assert len(asked) == next(o for o in layers.ORDERS if o.name == "greedy").losses(5) == 15


def test_alone_sorts_by_the_single_loss_and_puts_nan_last():
    single = {frozenset([i]): v for i, v in enumerate([3.0, float("nan"), 1.0, 3.0])}
    assert layers.alone(single.__getitem__, 4) == [2, 0, 3, 1]


def test_counts_round_half_up_and_come_once():
    assert layers.kept_counts([1.0, 0.9, 0.5, 0.4, 0.0], 3) == [3, 2, 1, 0]


def encoder_of(arrangement, depth=DEPTH, **fields):
    return rn.TransformerEncoder(depth=depth, heads=2, arrangement=arrangement, **fields)


def random_variables(model, x):
    """Every parameter drawn: what is 0 or 1 at first could hide a wrong sum."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def run(model, variables, x=None):
    return np.asarray(jax.jit(model.apply)(variables, X if x is None else x))


X = np.random.default_rng(5).normal(size=(2, 5, 8)).astype(np.float32)


@pytest.mark.parametrize("arrangement", every(["pre_ln", "post_ln"]))
def test_a_removed_layer_is_a_layer_that_is_not_there(arrangement):
    model = encoder_of(arrangement)
    variables = random_variables(model, X)
    params = variables["params"]
    left = np.array([0, 2])
    short = {**params, "layers": jax.tree.map(lambda p: p[left], params["layers"])}
    expected = run(encoder_of(arrangement, depth=2), {"params": short})
    cut = layer_switch(model, variables, X)
    np.testing.assert_allclose(run(model, cut([1, 0, 1])), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(run(model, cut([1, 1, 0])) - expected).max() > 0.01


@pytest.mark.table
def test_constants_of_depth_stay_those_of_the_trained_depth():
    """Layers one by one, each told its place among three, give what the cut stack gives."""
    model = encoder_of("layer_norm_scaling")  # its scale falls with the layer's index
    variables = random_variables(model, X)
    h = X
    for number in (1, 3):
        place = Place(layers=DEPTH, layer=number, sublayer=2 * number - 1, sublayers=2 * DEPTH)
        layer = rn.TransformerEncoderLayer(heads=2, arrangement="layer_norm_scaling", place=place)
        own = jax.tree.map(lambda p, n=number: p[n - 1], variables["params"]["layers"])
        h = run(layer, {"params": own}, h)
    norm = variables["params"]["final_norm"]
    centred = np.asarray(h, np.float64) - np.asarray(h, np.float64).mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    expected = unit * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    got = run(model, layer_switch(model, variables, X)([1, 0, 1]))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def check_stream(arrangement, **fields):
    model = encoder_of(arrangement, **fields)
    variables = random_variables(model, X)
    cut = layer_switch(model, variables, X)
    whole, none = run(model, variables), run(model, cut([0, 0, 0]))
    np.testing.assert_allclose(run(model, cut([1, 1, 1])), whole, rtol=1e-6, atol=1e-6)
    assert np.isfinite(none).all()
    assert np.abs(none - whole).max() > 1e-4  # `progressive` writes 7e-4 here; rounding is 1e-6
    # Without any layer, nothing that a layer holds is read.
    changed = {
        name: jax.tree.map(lambda p: p + 1.0, p) if name.startswith("layers") else p
        for name, p in variables["params"].items()
    }
    np.testing.assert_array_equal(run(model, {**cut([0, 0, 0]), "params": changed}), none)


@pytest.mark.table
def test_segments_and_memory_streams_pass_layers_by():
    check_stream("mix_ln")
    check_stream("pre_ln", stream="depth_attention")


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS.names())
def test_every_stream_passes_layers_by(stream):
    check_stream("pre_ln", stream=stream)


@pytest.mark.table
def test_blocks_that_are_computed_again_are_cut_too():
    plain, again = encoder_of("pre_ln", 4), encoder_of("pre_ln", 4, remat="full", remat_every=2)
    variables = random_variables(plain, X)
    keep = [1, 0, 0, 1]
    got, expected = (run(m, layer_switch(m, variables, X)(keep)) for m in (again, plain))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_a_wrong_number_of_layers_is_refused():
    model = encoder_of("pre_ln")
    cut = layer_switch(model, random_variables(model, X), X)
    with pytest.raises(ValueError, match="3 layers"):
        cut([True, False])


def test_sizes_of_layers_add_up():
    model = rn.SequenceClassifier(
        classes=3,
        front_end=rn.FeatureEmbedding(width=8),
        encoder=encoder_of("mix_ln", 4),
        max_length=5,
    )
    params = random_variables(model, jnp.ones((1, 5, 2)))["params"]
    sizes = layers.layer_sizes(params)
    stacks = {k: v for k, v in params["encoder"].items() if k.startswith("layers")}
    assert len(stacks) == 2
    assert len(sizes) == 4
    assert sum(sizes) == sum(p.size for p in jax.tree.leaves(stacks))
