"""`measure` against the model taken apart by hand, for every make of stack."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiers import every

from resnorm_jax import FeatureEmbedding, SequenceClassifier, TransformerEncoder, arrangements
from resnorm_jax.lab.signals import ALL, CHEAP, JacobianOptions, measure, summary
from resnorm_jax.lab.signals.measure import COMPUTE
from resnorm_jax.lab.signals.table import STATISTICS

B, L, C, D, H, K, N = 4, 5, 3, 8, 2, 3, 4
LENGTHS = np.array([5, 3, 1, 4])
SGD = optax.sgd(0.1)
OPTIONS = JacobianOptions(rows=3)
SOME = (
    "pre_ln", "none", "mix_ln", "parallel_one_norm", "sandwich_order", "macaron", "value_residual",
    "rezero", "mhc", "resi_dual", "denseformer", "ngpt",
)  # fmt: skip


def classifier(arrangement="pre_ln", **options):
    encoder = TransformerEncoder(
        **{"depth": N, "heads": H, "mlp_width": 12, "arrangement": arrangement} | options
    )
    return SequenceClassifier(K, FeatureEmbedding(D), encoder, max_length=L, pooling="cls")


def batch(seed=0, padding=np.nan):
    rng = np.random.default_rng(seed)
    mask = np.arange(L) < LENGTHS[:, None]
    x = np.where(mask[..., None], rng.normal(size=(B, L, C)), padding).astype(np.float32)
    weight = np.array([1, 1, 1, 0], np.float32)  # the last row only fills the batch
    return {"x": x, "y": np.array([0, 2, 1, 1], np.int32), "weight": weight, "mask": mask}


def initial(model):
    given = batch()
    return jax.jit(model.init)(jax.random.key(0), given["x"], given["mask"])


@pytest.fixture(scope="module")
def plain():
    model = classifier()
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda a: (a + rng.normal(0, 0.2, a.shape)).astype(np.float32), initial(model)
    )
    found = measure(model, variables, batch(), optimizer=SGD, jacobian=OPTIONS)
    return model, variables, found


@pytest.mark.table
def test_every_row_is_measured_in_its_shape(plain):
    _, _, found = plain
    assert tuple(found.values) == ALL
    assert set(COMPUTE) | {"jacobian_singular_values", "jacobian_mean_square"} == set(ALL)
    shapes = {"level": (N + 1,), "layer": (N,), "none": ()}
    for row in STATISTICS.rows():
        for line in found.values[row.name].values():
            assert line.shape == shapes.get(row.axis, line.shape), row.name
            assert np.isfinite(line).all(), row.name
    assert set(found.values["branch_ratio"]) == {"attention", "feed_forward"}
    json.dumps(found.to_json(), allow_nan=False)


def apart(model, variables, given):
    """Streams and branches of the real rows, as a list of valid vectors by example."""
    _, named = model.apply(variables, given["x"], given["mask"], return_intermediates=True)
    named = {k: np.asarray(v, np.float64) for k, v in named.items()}
    lengths = LENGTHS[:3] + 1  # with the class token

    def take(x):
        return [x[r, :n] for r, n in enumerate(lengths)]

    return named, take


def rms(rows):
    return np.sqrt(np.mean(np.concatenate(rows) ** 2))


@pytest.mark.table
def test_forward_statistics_count_only_valid_positions_of_real_rows(plain):
    model, variables, found = plain
    named, take = apart(model, variables, batch(padding=0))
    streams = [*named["stream_in"], named["feed_forward/stream"][-1]]
    expected = [rms(take(x)) ** 2 for x in streams]
    np.testing.assert_allclose(found.line("stream_power"), expected, rtol=1e-4)
    ratios = [
        rms(take(out)) / rms(take(stream))
        for out, stream in zip(
            named["feed_forward/branch_out"], named["attention/stream"], strict=True
        )
    ]
    np.testing.assert_allclose(found.line("branch_ratio", "feed_forward"), ratios, rtol=1e-4)
    ratios = [
        rms(take(out)) / rms(take(stream))
        for out, stream in zip(named["attention/branch_out"], named["stream_in"], strict=True)
    ]
    np.testing.assert_allclose(found.line("branch_ratio", "attention"), ratios, rtol=1e-4)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in take(streams[-1])]
    means = [np.mean((u @ u.T)[np.triu_indices(len(u), 1)]) for u in units if len(u) > 1]
    np.testing.assert_allclose(found.line("token_cosine")[-1], np.mean(means), rtol=1e-4)
    pooled = named["pooled"][:3]
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    expected = np.mean((unit @ unit.T)[np.triu_indices(3, 1)])
    np.testing.assert_allclose(found.line("example_cosine"), expected, rtol=1e-4)


def loss_of(model, given, params):
    logits = model.apply({"params": params}, given["x"], given["mask"])
    each = optax.softmax_cross_entropy_with_integer_labels(logits, given["y"])
    return jnp.sum(each[:3]) / 3


def norm(*arrays):
    return np.sqrt(sum((np.asarray(a, np.float64) ** 2).sum() for a in arrays))


@pytest.mark.table
def test_gradients_and_updates_by_layer_and_group(plain):
    model, variables, found = plain
    given, params = batch(padding=0), variables["params"]
    loss, gradient = jax.value_and_grad(lambda p: loss_of(model, given, p))(params)
    np.testing.assert_allclose(found.line("loss"), loss, rtol=1e-5)
    layers = gradient["encoder"]["layers"]
    fc2, fc2_p = (t["feed_forward"]["branch"]["fc2"] for t in (layers, params["encoder"]["layers"]))
    np.testing.assert_allclose(
        found.line("layer_gradient", "fc2"),
        [norm(fc2["kernel"][n], fc2["bias"][n]) for n in range(N)], rtol=1e-4,
    )  # fmt: skip
    norms = [layers[s]["norm_before"] for s in ("attention", "feed_forward")]
    np.testing.assert_allclose(
        found.line("layer_gradient", "norms"),
        [norm(*(g[k][n] for g in norms for k in ("scale", "bias"))) for n in range(N)], rtol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(
        found.line("outer_gradient", "head"), norm(*gradient["head"].values()), rtol=1e-4
    )
    expected = [
        0.1 * norm(fc2["kernel"][n], fc2["bias"][n]) / norm(fc2_p["kernel"][n], fc2_p["bias"][n])
        for n in range(N)
    ]
    np.testing.assert_allclose(found.line("layer_update", "fc2"), expected, rtol=1e-4)


@pytest.mark.table
def test_the_change_by_one_step(plain):
    model, variables, found = plain
    given, params = batch(padding=0), variables["params"]
    gradient = jax.grad(lambda p: loss_of(model, given, p))(params)
    moved = {"params": jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)}
    before, take = apart(model, variables, given)
    after, _ = apart(model, moved, given)
    expected = [
        rms(take(b - a)) for a, b in zip(before["stream_in"], after["stream_in"], strict=True)
    ]
    np.testing.assert_allclose(found.line("stream_change")[:-1], expected, rtol=2e-3, atol=1e-6)
    logits = [
        np.asarray(model.apply(v, given["x"], given["mask"]), np.float64)[:3]
        for v in (variables, moved)
    ]
    expected = np.sqrt(np.mean((logits[1] - logits[0]) ** 2))
    np.testing.assert_allclose(found.line("logits_change"), expected, rtol=2e-3)


def dense_jacobian(model, variables, rows):
    """By jacfwd, of the encoder on the model's own embedding."""
    given = batch(padding=0)
    _, named = model.apply(variables, given["x"], given["mask"], return_intermediates=True)
    x = named["stream_in"][0][:rows]
    mask = np.pad(given["mask"], ((0, 0), (1, 0)), constant_values=True)[:rows]
    parameters = {"params": variables["params"]["encoder"]}
    function = lambda z: model.encoder.apply(parameters, z, mask)  # noqa: E731
    whole = np.asarray(jax.jit(jax.jacfwd(function))(x), np.float64)
    kept = np.repeat(mask.ravel(), D)
    return whole.reshape(len(kept), -1)[kept][:, kept]


@pytest.mark.table
def test_singular_values_are_those_of_the_dense_jacobian(plain):
    model, variables, found = plain
    matrix = dense_jacobian(model, variables, 3)
    expected = np.linalg.svd(matrix, compute_uv=False)
    values = found.line("jacobian_singular_values")
    assert values.shape == ((6 + 4 + 2) * D,)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.line("jacobian_mean_square"), np.mean(expected**2), rtol=1e-4)
    assert "exact" in found.notes["jacobian"]


@pytest.mark.table
def test_without_the_matrix_they_are_the_same(plain):
    model, variables, found = plain
    names = ("jacobian_singular_values", "jacobian_mean_square")
    options = replace(OPTIONS, dense=0, block=4, depth=8, probes=16)
    free = measure(model, variables, batch(), only=names, jacobian=options)
    exact = found.line("jacobian_singular_values")[:4]
    np.testing.assert_allclose(free.line("jacobian_singular_values"), exact, rtol=1e-3)
    square = free.values["jacobian_mean_square"]
    distance = abs(square["mean"] - found.line("jacobian_mean_square"))
    assert distance < 4 * square["standard error"]
    assert set(free.values) == set(names)


@pytest.mark.table
def test_no_gate_open_is_an_isometry():
    model = classifier("rezero")
    names = ("jacobian_singular_values", "jacobian_mean_square")
    found = measure(model, initial(model), batch(), only=names, jacobian=OPTIONS)
    np.testing.assert_allclose(found.line("jacobian_singular_values"), 1, rtol=1e-5)


def check(name, only=ALL):
    model = classifier(name)
    found = measure(model, initial(model), batch(), optimizer=SGD, jacobian=OPTIONS, only=only)
    assert set(found.values) == set(only)
    for row in map(STATISTICS.get, only):
        for key, line in found.values[row.name].items():
            absent = np.isnan(line)
            if row.axis == "level":
                assert np.isfinite(line).all(), (row.name, key)
            assert not np.isinf(line).any(), (row.name, key)
            # NaN only where a layer lacks it, or where its parameters are 0.
            assert not absent.all() or row.needs == "update", (row.name, key)
    assert all(np.isfinite(v) for v in summary(found).values())


@pytest.mark.parametrize("name", every(SOME))
def test_arrangements_of_every_make(name):
    """Their streams; all statistics of all arrangements take some minutes."""
    check(name, [row.name for row in STATISTICS.rows() if row.needs == "forward"])


@pytest.mark.parametrize("name", every(["sandwich_order", "mhc"]))
def test_gradients_of_segments_and_of_many_streams(name):
    check(name, CHEAP)


@pytest.mark.slow
@pytest.mark.parametrize("name", arrangements.names())
def test_every_arrangement(name):
    check(name)


@pytest.mark.table
def test_only_what_is_asked_for_is_computed(plain):
    model, variables, found = plain
    one = measure(model, variables, batch(), only=("stream_power",))
    assert set(one.values) == {"stream_power"}
    np.testing.assert_allclose(one.line("stream_power"), found.line("stream_power"), rtol=1e-5)
    assert set(CHEAP) < set(ALL)
    assert "update" not in {STATISTICS.get(name).needs for name in CHEAP}
