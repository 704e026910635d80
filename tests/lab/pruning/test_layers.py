"""Which layers go, and what a model without them computes."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax import arrangements
from resnorm_jax.arrangements import Place
from resnorm_jax.lab.pruning import layers
from resnorm_jax.modules.interventions import layer_switch
from resnorm_jax.ops.streams import STREAMS

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
    variables = model.init(jax.random.key(0), x)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return structure.unflatten(drawn)


X = jax.random.normal(jax.random.key(5), (2, 5, 8))


@pytest.mark.parametrize("arrangement", ["pre_ln", "post_ln"])
def test_a_removed_layer_is_a_layer_that_is_not_there(arrangement):
    model = encoder_of(arrangement)
    variables = random_variables(model, X)
    params = variables["params"]
    left = np.array([0, 2])
    short = {**params, "layers": jax.tree.map(lambda p: p[left], params["layers"])}
    expected = encoder_of(arrangement, depth=2).apply({"params": short}, X)
    cut = layer_switch(model, variables, X)
    np.testing.assert_allclose(model.apply(cut([1, 0, 1]), X), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(model.apply(cut([1, 1, 0]), X) - expected).max() > 0.01


def test_constants_of_depth_stay_those_of_the_trained_depth():
    """Layers one by one, each told its place among three, give what the cut stack gives."""
    model = encoder_of("lns")  # its scale falls with the layer's index
    variables = random_variables(model, X)
    h = X
    for number in (1, 3):
        place = Place(number, DEPTH, 2 * number - 1, 2 * DEPTH, stack="encoder")
        layer = rn.TransformerEncoderLayer(heads=2, arrangement="lns", place=place)
        own = jax.tree.map(lambda p, n=number: p[n - 1], variables["params"]["layers"])
        h = layer.apply({"params": own}, h)
    norm = variables["params"]["final_norm"]
    centred = np.asarray(h, np.float64) - np.asarray(h, np.float64).mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    expected = unit * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    got = model.apply(layer_switch(model, variables, X)([1, 0, 1]), X)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def check_stream(arrangement, **fields):
    model = encoder_of(arrangement, **fields)
    variables = random_variables(model, X)
    cut = layer_switch(model, variables, X)
    whole = model.apply(variables, X)
    np.testing.assert_array_equal(
        jax.jit(model.apply)(cut([1, 1, 1]), X), jax.jit(model.apply)(variables, X)
    )
    other = dict(variables)
    other["params"] = dict(variables["params"])
    for name in variables["params"]:
        if name.startswith("layers"):
            other["params"][name] = jax.tree.map(lambda p: p + 1.0, variables["params"][name])
    none = model.apply(cut([0, 0, 0]), X)
    assert np.isfinite(none).all()
    assert np.abs(none - whole).max() > 1e-3
    # Without any layer, nothing that a layer holds is read.
    np.testing.assert_array_equal(
        model.apply({**other, **{"kept_layers": cut([0, 0, 0])["kept_layers"]}}, X), none
    )


def test_segments_and_memory_streams_pass_layers_by():
    check_stream("mix_ln")
    check_stream("pre_ln", stream="depth_attention")


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS.names())
def test_every_stream_passes_layers_by(stream):
    check_stream("pre_ln", stream=stream)


def test_blocks_that_are_computed_again_are_cut_too():
    plain, again = encoder_of("pre_ln", 4), encoder_of("pre_ln", 4, remat="full", remat_every=2)
    variables = random_variables(plain, X)
    keep = [1, 0, 0, 1]
    np.testing.assert_allclose(
        again.apply(layer_switch(again, variables, X)(keep), X),
        plain.apply(layer_switch(plain, variables, X)(keep), X),
        rtol=1e-6,
    )


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
    params = model.init(jax.random.key(0), jnp.ones((1, 5, 2)))["params"]
    sizes = layers.layer_sizes(params)
    stacks = {k: v for k, v in params["encoder"].items() if k.startswith("layers")}
    assert len(stacks) == 2
    assert len(sizes) == 4
    assert sum(sizes) == sum(p.size for p in jax.tree.leaves(stacks))
    assert arrangements.get("mix_ln").name == "mix_ln"
