"""The statistics of the claims, against float64 NumPy, finite differences and closed forms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import every

from resnorm_jax import arrangements
from resnorm_jax.lab.theory import (
    curse_of_depth,
    deepnet,
    hyper_gain,
    mix_ln,
    noci,
    probe,
    rezero,
    rezero_training,
    xiong,
)
from resnorm_jax.lab.theory.claim import DIVERGED, finite, slope, spread_line
from resnorm_jax.lab.theory.probe import FC2, QUERY, VALUE, Setup, draw, head_loss, kernels_by_layer

SMALL = Setup(width=4, heads=2, mlp_width=6, tokens=3, batch=2, classes=5)
STEP = 1e-4


def key(number=0):
    return jax.random.key(number)


def rows(number, *shape):
    return np.random.default_rng(number).normal(size=shape)


# --- Small pure functions ---


def test_token_cosine_is_the_mean_over_pairs_of_different_tokens():
    x = rows(0, 2, 5, 7) + 0.5
    pairs = [
        s[i] @ s[j] / np.linalg.norm(s[i]) / np.linalg.norm(s[j])
        for s in x for i in range(5) for j in range(5) if i != j
    ]  # fmt: skip
    np.testing.assert_allclose(probe.token_cosine(jnp.asarray(x)), np.mean(pairs), rtol=1e-5)
    same = np.broadcast_to(x[:, :1] * np.arange(1, 6)[:, None], x.shape)
    np.testing.assert_allclose(probe.token_cosine(jnp.asarray(same)), 1, rtol=1e-5)
    np.testing.assert_allclose(probe.token_cosine(jnp.eye(4)[None]), 0, atol=1e-6)


def test_mean_square_and_norm_by_layer():
    x = rows(1, 3, 4, 5)
    np.testing.assert_allclose(probe.mean_square(jnp.asarray(x)), (x**2).mean(), rtol=1e-6)
    tree = {"layers_1": {"k": x[1:]}, "layers_0": {"k": x[:1]}, "final_norm": {}}
    expected = [np.sqrt((layer**2).sum()) for layer in x]
    np.testing.assert_allclose(probe.norm_by_layer(tree, ("k",)), expected, rtol=1e-6)


def test_head_loss_is_the_cross_entropy_of_the_mean_token():
    out, head, labels = rows(2, 3, 4, 5), rows(3, 5, 6), np.array([0, 5, 2])
    logits = out.mean(1) @ head
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -logs[np.arange(3), labels].mean()
    found = head_loss(jnp.asarray(out), jnp.asarray(head), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_slope_is_the_exponent_of_a_power():
    x = np.array([8, 16, 32, 64])
    assert slope(x, 3 * x**-0.5) == pytest.approx(-0.5)
    assert slope(x, np.full(4, 2.0)) == pytest.approx(0)


def test_what_is_not_finite_counts_as_large_and_lines_hold_their_range():
    np.testing.assert_array_equal(
        finite(np.array([1.0, np.nan, np.inf, 1e38])), [1, DIVERGED, DIVERGED, DIVERGED]
    )
    line = spread_line("a", [1, 2], np.array([[1.0, 3.0], [5.0, 5.0]]))
    assert (line.y, line.low, line.high) == ([2, 5], [1, 5], [3, 5])


# --- Xiong's toy, written out in NumPy ---

TOY = Setup(width=4, heads=1, mlp_width=4, tokens=3, batch=2, classes=5, norm="layer_plain")


def plain_norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def toy_forward(name, kernels, x):
    """Return the output, and the mean square of each layer's stream before and after its last norm."""
    before, after = [], []
    for value, first, second in zip(*kernels, strict=True):
        if name == "post_ln":
            x = plain_norm(x + (x @ value).mean(1, keepdims=True))
            x = x + np.maximum(x @ first, 0) @ second
            before.append((x**2).mean())
            x = plain_norm(x)
        else:
            x = x + (plain_norm(x) @ value).mean(1, keepdims=True)
            x = x + np.maximum(plain_norm(x) @ first, 0) @ second
        after.append((x**2).mean())
    return (x if name == "post_ln" else plain_norm(x)), before, after


def toy_kernels(params):
    paths = (VALUE, ("feed_forward", "branch", "fc1", "kernel"), FC2)
    return [np.asarray(kernels_by_layer(params, p), np.float64).reshape(-1, 4, 4) for p in paths]


@pytest.mark.parametrize("name", every(["post_ln", "pre_ln"]))
def test_stream_sizes_of_the_toy(name):
    found = xiong.stream_sizes(name, 3, key(), TOY)
    first, second = jax.random.split(key(), 2)
    x = TOY.inputs(first)
    params = xiong.variables(TOY.encoder(xiong.toy(name), 3), second, x)["params"]
    assert not np.any(kernels_by_layer(params, QUERY))
    _, before, after = toy_forward(name, toy_kernels(params), np.asarray(x, np.float64))
    np.testing.assert_allclose(found["after"], after, rtol=1e-4)
    if name == "post_ln":
        np.testing.assert_allclose(found["before"], before, rtol=1e-4)


@pytest.mark.parametrize("name", every(["post_ln", "pre_ln"]))
def test_last_gradient_of_the_toy_by_finite_differences(name):
    keys = jax.random.split(key(1), 4)
    x = TOY.inputs(keys[0])
    params = xiong.variables(TOY.encoder(xiong.toy(name), 2), keys[1], x)["params"]
    head = np.asarray(jax.random.normal(keys[2], (4, 5)), np.float64) * 4**-0.5
    labels = np.asarray(jax.random.randint(keys[3], (2, 3), 0, 5))
    kernels, x = toy_kernels(params), np.asarray(x, np.float64)

    def loss(second):
        changed = [*kernels[:2], np.stack([kernels[2][0], second])]
        logits = toy_forward(name, changed, x)[0] @ head
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -np.take_along_axis(logs, labels[..., None], -1).mean()

    expected = np.linalg.norm(differences(loss, kernels[2][1]))
    found = xiong.last_gradient(name, 2, key(1), TOY)["last"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def differences(function, at):
    """Return the gradient of a scalar function by central differences."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[place] = STEP
        gradient[place] = (function(at + step) - function(at - step)) / (2 * STEP)
    return gradient


# --- Rank collapse ---


@pytest.mark.table
def test_collapse_by_finite_differences_in_float64():
    row, depth = probe.normal_init("pre_ln"), 2
    found = noci.collapse(row, depth, key(2), SMALL)
    params, x, head, labels = draw(SMALL, SMALL.encoder(row, depth), key(2))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (params, x, head))
        encoder = SMALL.encoder(row, depth).clone(param_dtype=jnp.float64)
        params, x, head = wide
        norms = []
        for path in (QUERY, VALUE):
            flat = np.asarray(kernels_by_layer(params, path))[-1]

            def loss(kernel, path=path):
                changed = jax.tree_util.tree_map_with_path(
                    lambda p, a: a.at[-1].set(kernel) if names(p)[-4:] == list(path) else a, params
                )
                return head_loss(encoder.apply({"params": changed}, x), head, labels)

            norms.append(np.linalg.norm(differences(jax.jit(loss), flat)))
        _, named = encoder.apply({"params": params}, x, return_intermediates=True)
        cosine = probe.token_cosine(named["feed_forward/stream"][-1])
    np.testing.assert_allclose(found["ratio"], norms[0] / norms[1], rtol=1e-3)
    np.testing.assert_allclose(found["cosine"], cosine, rtol=1e-4)


def names(path):
    return [entry.key for entry in path]


def test_branches_are_scaled_by_the_root_of_depth():
    place = arrangements.Place(layers=16)
    for row in noci.SCALED.values():
        assert row.branch_scale(place) == 0.25
        assert row.skip_scale(place) == 1


@pytest.mark.table
def test_distance_to_rank_one_is_that_of_numpy(monkeypatch):
    monkeypatch.setattr(noci, "LAYERS", 2)
    row = noci.attention_only("residual_only")
    found = noci.residual_by_layer(row, key(3), SMALL)["residual"]
    params, x, *_ = draw(SMALL, SMALL.encoder(row, 2), key(3))
    assert set(params["layers"]) == {"attention"}
    _, named = SMALL.encoder(row, 2).apply({"params": params}, x, return_intermediates=True)
    for layer, stream in enumerate(np.asarray(named["attention/stream"], np.float64)):
        apart = stream - stream.mean(1, keepdims=True)
        expected = np.linalg.norm(apart) / np.linalg.norm(stream)
        np.testing.assert_allclose(found[layer], expected, rtol=1e-4)


# --- DeepNet ---


@pytest.mark.table
def test_one_step_is_small_where_the_rate_is_and_its_ratio_is_of_norms():
    row = deepnet.DEEPNORM
    setup = replace(SMALL, norm="layer_plain")
    full, half = (deepnet.one_step(row, 3, key(4), setup, rate) for rate in (0.02, 0.01))
    np.testing.assert_allclose(full["update"] / half["update"], 2, rtol=0.05)
    np.testing.assert_allclose(full["ratio"], half["ratio"], rtol=1e-5)
    encoder = setup.encoder(row, 3)
    params, x, head, labels = draw(setup, encoder, key(4))
    gradient = jax.grad(lambda p: head_loss(encoder.apply({"params": p}, x), head, labels))(params)
    fc2 = np.asarray(kernels_by_layer(gradient, FC2), np.float64)
    expected = np.sqrt((fc2[0] ** 2).sum() / (fc2[-1] ** 2).sum())
    np.testing.assert_allclose(full["ratio"], expected, rtol=1e-4)
    moved = jax.tree.map(lambda p, g: p - 0.02 * g, params, gradient)
    change = encoder.apply({"params": moved}, x) - encoder.apply({"params": params}, x)
    lengths = np.sqrt((np.asarray(change, np.float64) ** 2).sum(-1))
    np.testing.assert_allclose(full["update"], lengths.mean(), rtol=1e-4)


# --- ReZero ---


@pytest.mark.table
def test_jacobian_by_finite_differences_and_its_spectrum():
    row, setup = rezero.ROWS["ReZero"], Setup(width=4, heads=2, mlp_width=8, tokens=2, batch=1)
    matrix = np.asarray(rezero.jacobian(row, 0.3, 2, key(5), setup), np.float64)
    encoder = setup.encoder(row, 2).clone(use_bias=True)
    first, second, third = jax.random.split(key(5), 3)
    x = setup.inputs(first)
    params = rezero.as_torch(encoder.init(second, x)["params"], 0.3, third)
    columns = []
    for place in range(x.size):
        step = jnp.zeros(x.size).at[place].set(1e-2).reshape(x.shape)
        ends = [np.asarray(encoder.apply({"params": params}, x + s)) for s in (step, -step)]
        columns.append((ends[0] - ends[1]).ravel() / 2e-2)
    np.testing.assert_allclose(matrix, np.stack(columns, 1), atol=5e-3)
    assert not np.allclose(matrix, np.eye(len(matrix)), atol=0.05)
    values = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose((matrix**2).sum() / len(matrix), (values**2).mean())


@pytest.mark.table
def test_spectrum_of_a_closed_gate_is_one():
    found = rezero.spectrum(rezero.ROWS["ReZero"], None, 3, key(6))
    np.testing.assert_allclose(found["values"], np.ones(64), atol=1e-6)
    np.testing.assert_allclose(found["square"], 1, atol=1e-6)
    open_gate = rezero.spectrum(rezero.ROWS["ReZero"], 0.1, 3, key(6))
    np.testing.assert_allclose(
        open_gate["square"], np.square(open_gate["values"]).mean(), rtol=1e-4
    )
    assert open_gate["square"] > 1.001


@pytest.mark.table
def test_parameters_as_torch_draws_them():
    row = rezero.ROWS["ReZero"]
    encoder = rezero.SETUP.encoder(row, 8).clone(use_bias=True)
    params = encoder.init(key(7), rezero.SETUP.inputs(key(8)))["params"]
    made = rezero.as_torch(params, 0.1, key(9))["layers"]
    np.testing.assert_allclose(made["gate"], np.full(8, 0.1))
    assert not np.any(made["attention"]["branch"]["out"]["bias"])
    for name, fan in rezero.FAN_IN.items():
        bias = np.asarray(made["feed_forward"]["branch"][name]["bias"])
        assert 0.8 * fan**-0.5 < np.abs(bias).max() <= fan**-0.5
    query = np.asarray(made["attention"]["branch"]["query"]["kernel"])
    bound = (6 / (4 * 16)) ** 0.5  # Xavier's of a 48 x 16 kernel
    assert 0.9 * bound < np.abs(query).max() <= bound + 1e-6


@pytest.mark.parametrize("name", every(rezero_training.LAYERS))
def test_deep_logits_layer_by_layer(name):
    p = rezero_training.deep_parameters(key(10), 6, 3, depth=4, width=5)
    p = {**p, "gate": jnp.linspace(0.1, 0.4, 4)}
    n = {k: np.asarray(v, np.float64) for k, v in p.items()}
    x = rows(4, 7, 6)
    h = x @ n["first"] + n["first_bias"]
    for w, b, g in zip(n["kernel"], n["bias"], n["gate"], strict=True):
        f = np.maximum(h @ w + b, 0)
        h = {"vanilla": f, "residual": h + f, "layer norm": plain_norm(f), "ReZero": h + g * f}[
            name
        ]
    found = rezero_training.deep_logits(rezero_training.LAYERS[name], p, jnp.asarray(x))
    np.testing.assert_allclose(found, h @ n["last"] + n["last_bias"], rtol=1e-3, atol=1e-4)


def test_adagrad_divides_by_the_root_of_the_sum_of_squares():
    direction = rezero_training.DIRECTIONS["adagrad"]()
    g = np.array([3.0, -0.1])
    state = direction.init(jnp.zeros(2))
    first, state = direction.update(jnp.asarray(g), state)
    second, state = direction.update(jnp.asarray(2 * g), state)
    np.testing.assert_allclose(first, np.sign(g), rtol=1e-5)
    np.testing.assert_allclose(second, 2 / 5**0.5 * np.sign(g), rtol=1e-5)


# --- The stream's growth, removal of layers, mixings ---


@pytest.mark.table
def test_growth_is_of_the_stream_and_the_feed_forward_branch():
    row = probe.normal_init("layer_norm_scaling")
    found = curse_of_depth.growth(row, key(11), SMALL, depth=3)
    encoder = SMALL.encoder(row, 3)
    params, x, *_ = draw(SMALL, encoder, key(11))
    _, named = encoder.apply({"params": params}, x, return_intermediates=True)
    stream = np.asarray(named["feed_forward/stream"], np.float64)
    branch = stream - np.asarray(named["attention/stream"], np.float64)
    squares = (stream**2).mean((1, 2, 3))
    np.testing.assert_allclose(found["stream"], squares, rtol=1e-4)
    np.testing.assert_allclose(found["branch"], (branch**2).mean((1, 2, 3)) / squares, rtol=1e-3)


@pytest.mark.table
def test_a_removed_layer_is_as_one_that_was_never_there():
    row = arrangements.get("pre_ln")
    encoder = SMALL.encoder(row, 3).clone(use_bias=True)
    x = SMALL.inputs(key(12))
    params = encoder.init(key(13), x)["params"]
    params = jax.tree.map(lambda a: a + 0.1, params)  # biases too
    without = curse_of_depth.without_layer({"encoder": params}, 1)["encoder"]
    cut = {**params, "layers": jax.tree.map(lambda a: np.delete(a, 1, 0), params["layers"])}
    expected = encoder.clone(depth=2).apply({"params": cut}, x)
    np.testing.assert_allclose(
        encoder.apply({"params": without}, x), expected, rtol=1e-5, atol=1e-5
    )
    whole = encoder.apply({"params": params}, x)
    assert not np.allclose(whole, expected, atol=1e-2)


def test_deep_over_shallow():
    drop = np.array([[0.4, 0.2, 0.1, 0.0], [0.4, 0.2, 0.1, 0.2]])
    assert curse_of_depth.deep_over_shallow(drop) == pytest.approx(0.1 / 0.3)
    assert curse_of_depth.deep_over_shallow(-drop) == 0


@pytest.mark.table
def test_gains_are_those_of_the_product(monkeypatch):
    monkeypatch.setattr(hyper_gain, "SUBLAYERS", 5)
    found = hyper_gain.gains(key(14))
    square = np.asarray(jax.random.normal(key(14), (5, 4, 4)), np.float64)
    product = np.eye(4)
    for count, matrix in enumerate(np.eye(4) + 0.3 * square):
        product = product @ matrix
        expected = max(np.abs(product).sum(axis).max() for axis in (0, 1))
        np.testing.assert_allclose(found["unconstrained"][count], expected, rtol=1e-4)
    np.testing.assert_allclose(found["permutations"], np.ones(5), atol=1e-5)
    np.testing.assert_allclose(found["Sinkhorn"], np.ones(5), atol=2e-2)


@pytest.mark.table
def test_gradients_of_two_stacks_come_in_the_order_of_layers(monkeypatch):
    monkeypatch.setattr(mix_ln, "DEPTH", 4)
    row = probe.normal_init("mix_ln")
    found = jax.jit(lambda k: mix_ln.gradient_by_layer(row, k, SMALL))(key(15))["norm"]
    encoder = SMALL.encoder(row, 4)
    params, x, head, labels = draw(SMALL, encoder, key(15))
    assert [len(params[n]["feed_forward"]["branch"]["fc2"]["kernel"]) for n in
            ("layers_0", "layers_1")] == [1, 3]  # fmt: skip
    loss = lambda p: head_loss(encoder.apply({"params": p}, x), head, labels)  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(params)
    stacks = [gradient[n]["feed_forward"]["branch"]["fc2"]["kernel"] for n in
              ("layers_0", "layers_1")]  # fmt: skip
    expected = [np.linalg.norm(k) for stack in stacks for k in np.asarray(stack, np.float64)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_over_seeds_gives_each_seed_its_own_draw():
    found = probe.over_seeds(lambda k: {"a": jax.random.normal(k, (2,))}, (3, 5))["a"]
    for row, seed in zip(found, (3, 5), strict=True):
        np.testing.assert_allclose(row, jax.random.normal(key(seed), (2,)), rtol=1e-6)
