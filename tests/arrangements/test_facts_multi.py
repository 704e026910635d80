"""Facts about arrangements of several streams: their papers' claims and constants, known faults."""

from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst
from tiers import every

from resnorm_jax import TransformerEncoder, arrangements
from resnorm_jax.arrangements import Place
from resnorm_jax.schemes import STREAMS, hyper, manifold, two_streams
from resnorm_jax.schemes.manifold import permutation_mix, sinkhorn
from resnorm_jax.streams import Site
from resnorm_jax.training.optimizers import decay_mask

B, L, D, N = 1, 3, 8, 4
ROWS = tuple(row.stream for row in (*hyper.ROWS, *manifold.ROWS, *two_streams.ROWS))
FIRST = [rows[0].stream for rows in (hyper.ROWS, manifold.ROWS, two_streams.ROWS)]
every_stream = pytest.mark.parametrize("stream", every(ROWS, FIRST, lambda row: row.name))


def encoder(name, depth, **options):
    return TransformerEncoder(depth=depth, heads=1, mlp_width=D, arrangement=name, **options)


def inputs(seed=0, batch=B, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(batch, L, D)).astype(dtype)


@cache
def initial(name, depth):
    """A new model's parameters; do not write into them."""
    return quick_jit(encoder(name, depth).init)(jax.random.key(0), inputs())["params"]


@cache
def program(name, depth):
    """The compiled encoder: output, and the stream after each layer."""

    @quick_jit
    def apply(params, x):
        model = encoder(name, depth)
        out, named = model.apply({"params": params}, x, return_intermediates=True)
        return out, named["feed_forward/stream"]

    return apply


def overlaid(params, others):
    """``params`` with what ``others`` has at the same paths."""
    if not isinstance(params, dict):
        return others
    return {k: overlaid(v, others[k]) if k in others else v for k, v in params.items()}


def change(params, names, function):
    """``params`` with a function applied to the leaves of some names."""

    def at(path, leaf):
        return function(leaf) if path[-1].key in names else leaf

    return jax.tree_util.tree_map_with_path(at, params)


def site_with(stream, dtype=jnp.float32, seed=0, spread=1.0, **fields):
    """A site in the middle of a stack, whose parameters are random around their first values."""
    site = Site(
        width=D, layers=6, sublayers=12, layer=3, sublayer=6, position=2, last=True, **fields
    )
    rng = np.random.default_rng(seed)
    made = {p.name: p.create(jax.random.key(0), dtype, site) for p in stream.parameters}
    moved = {k: v + jnp.asarray(spread * rng.normal(size=v.shape), dtype) for k, v in made.items()}
    return replace(site, parameters=moved)


def carry_of(stream, site, seed=0, dtype=jnp.float32):
    """A carry whose arrays differ from one another."""
    rng, opened = np.random.default_rng(seed), stream.open(jnp.zeros((B, L, D), dtype), site)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), dtype), opened)


# --- Each stream alone ---


@every_stream
def test_a_carry_keeps_its_shapes_and_dtype(stream):
    site = site_with(stream)
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jax.ShapeDtypeStruct((B, L, D), dtype)
        carry = jax.eval_shape(lambda x: stream.open(x, site), x)
        assert jax.eval_shape(lambda c, y: stream.write(c, y, site), carry, x) == carry
        for function in (stream.read, stream.finish, lambda carry, site: stream.view(carry)):
            out = jax.eval_shape(lambda c, f=function: f(c, site), carry)
            assert (out.shape, out.dtype) == ((B, L, D), dtype)


@every_stream
def test_weights_are_computed_in_float32_and_cast_once(stream):
    """A bf16 carry gives what the same numbers in float32 give, rounded."""
    site = site_with(stream)
    carry = carry_of(stream, site, dtype=jnp.bfloat16)
    y = jnp.asarray(inputs(1), jnp.bfloat16)

    @quick_jit
    def both(carry, y):
        return stream.read(carry, site), stream.write(carry, y, site)

    found, expected = (
        both(carry, y),
        both(*jax.tree.map(lambda a: a.astype(jnp.float32), (carry, y))),
    )
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert worst(got.astype(jnp.float32), want) <= 2 * 2**-8
        if not isinstance(carry, tuple):  # a pair's arrays may be rounded, then added to
            assert np.mean(got != want.astype(jnp.bfloat16)) < 0.02


@pytest.mark.parametrize(
    "stream",
    every(
        [row.name for row in ROWS],
        [rows[-1].name for rows in (hyper.ROWS, manifold.ROWS, two_streams.ROWS)],
    ),
)
def test_derivatives_are_finite_at_zero(stream):
    stream = STREAMS.get(stream)
    site = site_with(stream)

    def out(x, parameters):
        here = replace(site, parameters=parameters)
        carry = stream.open(x, here)
        return stream.finish(stream.write(carry, stream.read(carry, here), here), here)

    @quick_jit
    def derivatives(x, parameters):
        grads = jax.grad(lambda *a: (out(*a) * inputs(3)).sum(), (0, 1))(x, parameters)
        return grads, jax.jvp(partial(out, parameters=parameters), (x,), (jnp.ones_like(x),))

    found = derivatives(jnp.zeros((B, L, D)), site.parameters)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_fractions_need_a_width_that_can_be_cut():
    with pytest.raises(ValueError, match="frac-connections cut the width in 4; it is 6"):
        STREAMS.get("fractions").open(jnp.ones((1, 1, 6)), Site(6))


@every_stream
def test_weight_decay_is_for_the_projections(stream):
    mask = decay_mask({"layer": dict(site_with(stream).parameters)})["layer"]
    assert {name for name, flag in mask.items() if flag} == {n for n in mask if "kernel" in n}


# --- At first ---

AS_PRE_LN = ("hyper_connections", "dynamic_hyper_connections", "frac_connections",
             "dynamic_frac_connections")  # fmt: skip


def beside_pre_ln(name, depth, edit=lambda params: params):
    """Outputs and streams of a scheme and of Pre-LN with the same branches, both as initialized."""
    plain, x = initial("pre_ln", depth), inputs(1)
    own = edit(overlaid(initial(name, depth), plain))
    return program(name, depth)(own, x), program("pre_ln", depth)(plain, x)


@pytest.mark.table
@pytest.mark.parametrize("name", every(AS_PRE_LN, ["dynamic_frac_connections"]))
def test_it_starts_as_pre_ln(name):
    """arXiv 2409.19606, section 2.3, and arXiv 2503.14125, section 4.3."""
    (out, stream), (expected, plain) = beside_pre_ln(name, 64)
    assert worst(out, expected) < 2e-5
    # The sum of streams is four times Pre-LN's at every layer: it is no accident of the last norm.
    assert worst(stream, (1 if "frac" in name else N) * np.asarray(plain)) < 2e-5


@pytest.mark.parametrize("name", every(["mhc", "unmixed_hyper_connections"]))
def test_sigmoid_weights_start_near_pre_ln(name):
    """Within what alpha = 0.01 adds; and at Pre-LN with alpha = 0."""
    (out, _), (expected, _) = beside_pre_ln(name, 64)
    assert 1e-5 < worst(out, expected) < 0.05
    off = partial(change, names=("alpha", "head_alpha"), function=jnp.zeros_like)
    (out, _), (expected, _) = beside_pre_ln(name, 64, off)
    assert worst(out, expected) < 1e-3  # of the epsilons, 1e-6 in each sum


def test_each_sublayer_reads_the_next_stream_at_first():
    """A_m = e_(k mod n): 0, 1, 2, 3, 0, 1 over three layers of two sublayers."""
    layers = initial("hyper_connections", 3)["layers"]
    blocks = ("attention", "feed_forward")
    reads = np.array([layers[b]["read_gate"][n, :, 0] for n in range(3) for b in blocks])
    np.testing.assert_array_equal(reads, np.eye(N)[[0, 1, 2, 3, 0, 1]])
    for block in blocks:
        np.testing.assert_array_equal(layers[block]["mix_gate"], np.stack([np.eye(N)] * 3))
        np.testing.assert_array_equal(layers[block]["write_gate"], np.ones((3, N)))


@pytest.mark.table
@pytest.mark.parametrize("name", ["sinkhorn_streams", "permuted_streams"])
def test_fault_0_7_mixing_starts_near_the_identity(name):
    """Biases of 0, as in transformers, would mix four streams evenly from the start."""
    stream = STREAMS.get(name)
    site = site_with(stream, spread=0.0)
    np.testing.assert_array_equal(site.parameters["alpha"], np.full(3, np.float32(0.01)))
    streams, nothing = carry_of(stream, site), jnp.zeros((B, L, D))
    assert worst(stream.write(streams, nothing, site), streams) < 0.02
    even = {**site.parameters, "bias": jnp.zeros_like(site.parameters["bias"])}
    mixed = stream.write(streams, nothing, replace(site, parameters=even))
    mean = np.mean(streams, -2, keepdims=True)
    assert worst(mixed, np.broadcast_to(mean, streams.shape)) < 0.05


def test_mhc_lites_first_biases_are_those_of_its_code():
    bias = site_with(STREAMS.get("permuted_streams"), spread=0.0).parameters["bias"]
    turn = [-1, 1, -1, -1]  # sublayer 6, 4 streams
    np.testing.assert_array_equal(bias, [*turn, *turn, 0, *[-8] * 23])


# --- Doubly stochastic mixing ---


def logits_of(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


MIXES = {
    "sinkhorn": lambda seed: sinkhorn(logits_of(seed, (50, N, N))),
    "permutations": lambda seed: permutation_mix(logits_of(seed, (50, 24))),
}


@pytest.mark.parametrize("name", MIXES)
def test_fault_0_1_sinkhorn_of_the_right_axes(name):
    """x-transformers normalizes an axis of size 1: all ones, sums of 4, no gradient to the logits."""
    found = MIXES[name](0)
    for axis in (-1, -2):
        np.testing.assert_allclose(found.sum(axis), np.ones((50, N)), atol=1e-5)
    assert found.min() >= 0
    assert np.abs(found - MIXES[name](1)).max() > 0.1  # of these logits, not of any


@pytest.mark.table
def test_fault_0_1_gradients_reach_the_mixing_logits():
    weight = logits_of(2, (N, N))
    for project, shape in ((sinkhorn, (N, N)), (permutation_mix, (24,))):
        gradient = jax.grad(lambda z, f=project: (f(z) * weight).sum())(logits_of(3, shape))
        assert np.abs(gradient).max() > 1e-2
        assert np.abs(gradient).min() > 1e-5
    far = jax.grad(lambda z: (sinkhorn(z) * weight).sum())(40 * logits_of(4, (N, N)))
    assert np.isfinite(far).all()


@pytest.mark.parametrize("name", ["sinkhorn_streams", "permuted_streams"])
def test_fault_0_1_gradients_reach_the_mixing_of_a_stream(name):
    stream = STREAMS.get(name)
    site = site_with(stream)
    carry, weight = carry_of(stream, site), carry_of(stream, site, seed=6)

    def loss(parameters):
        here = replace(site, parameters=parameters)
        return (stream.write(carry, jnp.zeros((B, L, D)), here) * weight).sum()

    found = quick_jit(jax.grad(loss))(site.parameters)
    assert np.abs(found["bias"][2 * N :]).min() > 1e-6
    assert np.abs(found["kernel"][:, 2 * N :]).max() > 1e-3
    assert np.abs(found["alpha"][2]) > 1e-3


ORDER = (1, 2, 3, 0)
SHIFT = np.eye(N)[list(ORDER)]  # R[j, j + 1] = 1: stream j goes to place j + 1
SHIFTED = {
    "streams": {"mix_gate": SHIFT},
    "dynamic_streams": {"mix_gate": SHIFT},
    "fractions": {"mix_gate": SHIFT},
    "sinkhorn_streams": {"bias": [*np.zeros(2 * N), *np.where(SHIFT.ravel(), 0, -30)]},
    "permuted_streams": {
        "bias": [*np.zeros(2 * N), *(0 if p == ORDER else -30 for p in manifold.PERMUTATIONS)]
    },
}


@pytest.mark.table
@pytest.mark.parametrize("name", SHIFTED)
def test_fault_0_2_the_mixing_matrix_is_applied(name):
    """With an empty branch what is written is R^T H, R the given permutation, not its transpose."""
    stream = STREAMS.get(name)
    site = site_with(stream, spread=0.0)
    given = {key: jnp.asarray(value, jnp.float32) for key, value in SHIFTED[name].items()}
    if "alpha" in site.parameters:
        given["alpha"] = jnp.zeros_like(site.parameters["alpha"])
    site = replace(site, parameters={**site.parameters, **given})
    streams = carry_of(stream, site)
    written = stream.write(streams, jnp.zeros((B, L, D)), site)
    assert worst(written, np.roll(streams, 1, -2)) < 1e-5


def through_depth(name, edit, depth=64):
    """The input, and the sum of streams after a stack whose branches write nothing."""

    def silent(path, leaf):
        keys = {key.key for key in path}
        return 0 * leaf if "branch" in keys and keys & {"out", "fc2"} else leaf

    params = jax.tree_util.tree_map_with_path(silent, edit(initial(name, depth)))
    x = inputs(7)
    return x, np.asarray(program(name, depth)(params, x)[1][-1])


@pytest.mark.parametrize("name", every(["mhc", "mhc_lite"]))
def test_the_sum_of_streams_is_kept_through_depth(name):
    """Doubly stochastic maps compose to one (arXiv 2512.24880, section 4.1): gain 1 at depth 64."""
    x, end = through_depth(name, lambda p: change(p, ("bias",), lambda b: logits_of(8, b.shape)))
    assert worst(end, N * x) < 1e-3


@pytest.mark.table
def test_hyper_connections_have_no_bounded_gain():
    x, end = through_depth(
        "hyper_connections",
        lambda p: change(p, ("mix_gate",), lambda m: m + 0.2 * logits_of(9, m.shape)),
    )
    assert np.linalg.norm(end) > 100 * N * np.linalg.norm(x)


@pytest.mark.table
def test_composite_gain_of_a_chain_of_mixing_matrices():
    """Largest sum of a row or column over 128 sublayers: 1.6 in mHC, 3000 in HC by the paper."""
    chains = {
        "sinkhorn": sinkhorn(2 * logits_of(10, (128, N, N))),
        "permutations": permutation_mix(3 * logits_of(11, (128, 24))),
        "free": jnp.eye(N) + 0.3 * logits_of(12, (128, N, N)),
    }
    gains = {}
    for name, chain in chains.items():
        product = np.linalg.multi_dot(np.asarray(chain, np.float64))
        gains[name] = max(np.abs(product).sum(axis).max() for axis in (0, 1))
    assert gains["sinkhorn"] < 1.6
    assert gains["permutations"] < 1 + 1e-4
    assert gains["free"] > 100


def test_sinkhorn_is_in_float32_whatever_it_is_given():
    logits = (logits_of(13, (20, N, N)) / 2).astype(jnp.bfloat16)
    found = sinkhorn(logits)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found.sum(-1), np.ones((20, N)), atol=1e-5)
    np.testing.assert_array_equal(found, sinkhorn(logits.astype(jnp.float32)))


# --- Depth ---

DEEP = ("hyper_connections", "mhc", "mhc_lite", "resi_dual", "siamese_norm", "bottom_to_top")


@cache
def gradients_of(name, depth):
    """Output, gradients, and the norm of the gradient of each layer's fc2."""
    model, x, weight = encoder(name, depth), inputs(14), inputs(15)

    @quick_jit
    def both(params):
        def loss(p):
            out = model.apply({"params": p}, x)
            return (out * weight).sum(), out

        return jax.grad(loss, has_aux=True)(params)

    grads, out = both(initial(name, depth))
    kernel = np.asarray(grads["layers"]["feed_forward"]["branch"]["fc2"]["kernel"], np.float64)
    return out, grads, np.sqrt((kernel**2).sum((1, 2)))


@pytest.mark.table
@pytest.mark.parametrize("name", DEEP)
def test_finite_at_depth_1024(name):
    out, grads, _ = gradients_of(name, 1024)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 100
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.table
def test_resi_duals_first_layers_keep_their_gradient():
    """arXiv 2304.14802: Post-LN's gradient vanishes towards the input, the dual stream's does not."""
    *_, post = gradients_of("post_ln", 64)
    *_, dual = gradients_of("resi_dual", 1024)
    assert post[0] / post[-1] < 1e-3
    assert dual[0] / dual[-1] > 1e-2


# --- Constants ---


def test_constants_by_hand():
    place = Place(layers=16, layer=8, sublayer=15, sublayers=32)
    row = arrangements.get("siamese_norm")
    assert row.branch_scale(place) == pytest.approx(0.25)  # 1 / sqrt(2 * 8)
    assert row.branch_scale(replace(place, layer=2)) == pytest.approx(0.5)
    gains = arrangements.get("b2t").init.gains
    assert set(gains) == {"query", "key", "value", "out", "fc1", "fc2"}
    assert {gain(place) for gain in gains.values()} == {0.25}  # 16 ** -0.5
    assert (hyper.RATE, hyper.ALPHA, manifold.ITERATIONS) == (4, 0.01, 20)


@pytest.mark.table
def test_lambdas_fall_from_the_first_layer_to_the_last():
    layers = initial("input_lambdas", 6)["layers"]
    np.testing.assert_allclose(layers["resid_gate"], [1.15, 1.13, 1.11, 1.09, 1.07, 1.05], 1e-6)
    np.testing.assert_allclose(layers["input_gate"], [0.2, 0.17, 0.14, 0.11, 0.08, 0.05], 1e-6)
    assert initial("input_lambdas", 1)["layers"]["resid_gate"] == np.float32(1.15)


@pytest.mark.table
def test_lambdas_mix_before_each_layer():
    """With branches that write nothing: x <- l x + m x0, once a layer and not once a sublayer."""
    x, end = through_depth("input_lambdas", lambda params: params, depth=6)
    gain = 1.0
    for layer in range(6):
        gain = (1.15 - 0.02 * layer) * gain + (0.2 - 0.03 * layer)
    normed = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    assert worst(end, gain * normed) < 1e-5


# --- Against transformers ---


def peers_of(model, prefix):
    """Its module between layers and its head, with random parameters."""
    torch = pytest.importorskip("torch")
    module = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    config = SimpleNamespace(
        hc_mult=N, hc_sinkhorn_iters=20, hc_eps=1e-6, rms_norm_eps=1e-6, hidden_size=D,
        hc_magnitude=2.0,
    )  # fmt: skip
    rng = np.random.default_rng(16)
    for kind in ("HyperConnection", "HyperHead"):
        peer = getattr(module, prefix + kind)(config)
        for parameter in peer.parameters():
            drawn = rng.normal(0, 0.5, parameter.shape)
            parameter.data = torch.tensor(drawn, dtype=torch.float32)
        numbers = {name: p.detach().numpy() for name, p in peer.named_parameters()}

        def run(streams, peer=peer):
            with torch.no_grad():
                out = peer(torch.tensor(streams))
            return [z.numpy() for z in out] if isinstance(out, tuple) else out.numpy()

        yield run, numbers


@pytest.mark.table
@pytest.mark.parametrize(
    ("model", "prefix", "name"),
    [("deepseek_v4", "DeepseekV4", "sinkhorn_streams"), ("hy_v4", "HYV4", "unmixed_streams")],
)
def test_parity_with_transformers(model, prefix, name):
    """Its parameters in our stream: what the branch reads, what is written, and the end."""
    (between, p), (head, q) = peers_of(model, prefix)
    ours = {
        "kernel": p["fn"].T, "bias": p["base"], "alpha": p["scale"], "head_kernel": q["hc_fn"].T,
        "head_bias": q["hc_base"], "head_alpha": q["hc_scale"][0],
    }  # fmt: skip
    site, stream = Site(D, parameters=jax.tree.map(jnp.asarray, ours)), STREAMS.get(name)
    rng = np.random.default_rng(17)
    streams, y = (rng.normal(size=s).astype(np.float32) for s in ((2, L, N, D), (2, L, D)))
    post, *comb, read = between(streams)
    mixed = np.swapaxes(comb[0], -1, -2) @ streams if comb else streams
    assert worst(stream.read(streams, site), read) < 1e-5
    written = post[..., None] * y[..., None, :] + mixed
    assert worst(stream.write(streams, jnp.asarray(y), site), written) < 1e-5
    if stream.close is not None:
        assert worst(stream.close(streams, site), head(streams)) < 1e-5
