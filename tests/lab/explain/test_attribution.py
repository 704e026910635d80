"""Parts of a logit, against a model of two layers computed by hand in float64."""

from functools import cache
from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax.lab.explain.attribution import METHODS, attribute, fit_norm
from resnorm_jax.lab.explain.model import Case, observe_case
from resnorm_jax.schemes import STREAMS

LENGTH, WIDTH, HEADS, DEPTH, CLASSES, CHANNELS = 5, 6, 2, 2, 3, 4
DIRECT, INTEGRATED = METHODS


@cache
def case_and_seen(arrangement, pooling="mean", width=WIDTH, **fields):
    model = rn.SequenceClassifier(
        classes=CLASSES,
        front_end=rn.FeatureEmbedding(width=width),
        encoder=rn.TransformerEncoder(depth=DEPTH, heads=HEADS, arrangement=arrangement, **fields),
        positions="none",
        pooling=pooling,
    )
    rng = np.random.default_rng(7)
    x = rng.normal(size=(1, LENGTH, CHANNELS)).astype(np.float32)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + 0.4 * rng.normal(size=leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    case = Case(model, jax.tree_util.tree_map_with_path(draw, shapes), x)
    return case, observe_case(case)


def wide(tree):
    return jax.tree.map(lambda p: np.asarray(p, np.float64), tree)


def norm(z, own):
    z = z - z.mean(-1, keepdims=True)
    return z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-6) * own["scale"] + own["bias"]


def attend(h, own):
    q, k, v = (
        np.einsum("td,dhk->htk", h, own[n]["kernel"]) + own[n]["bias"][:, None]
        for n in ("query", "key", "value")
    )
    scores = np.einsum("htk,hsk->hts", q, k) / np.sqrt(WIDTH / HEADS)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    y = np.einsum("hts,hsk->thk", weights, v)
    return np.einsum("thk,hkd->td", y, own["out"]["kernel"]) + own["out"]["bias"], weights


def feed(h, own):
    z = h @ own["fc1"]["kernel"] + own["fc1"]["bias"]
    z = z * 0.5 * (1 + np.vectorize(erf)(z / np.sqrt(2)))
    return z @ own["fc2"]["kernel"] + own["fc2"]["bias"]


def forward(case, norm_first):
    """Return the embedding, every branch's write and the attention weights."""
    params = wide(case.variables["params"])
    start = x = case.x[0].astype(float) @ params["front_end"]["project"]["kernel"]
    start = x = x + params["front_end"]["project"]["bias"]
    writes, seen = [], []
    for layer in range(DEPTH):
        own = jax.tree.map(lambda p, n=layer: p[n], params["encoder"]["layers"])
        for name in ("attention", "feed_forward"):
            block = own[name]
            h = norm(x, block["norm_before"]) if norm_first else x
            if name == "attention":
                y, weights = attend(h, block["branch"])
                seen.append(weights)
            else:
                y = feed(h, block["branch"])
            x = x + y if norm_first else norm(x + y, block["norm_on_stream"])
            writes.append(y)
    return start, writes, seen


def head(case, pooled):
    own = wide(case.variables["params"])["head"]
    return pooled @ own["kernel"] + own["bias"]


@pytest.mark.table
def test_direct_parts_are_those_of_a_frozen_norm_by_hand():
    case, seen = case_and_seen("pre_ln")
    start, writes, weights = forward(case, norm_first=True)
    final = wide(case.variables["params"])["encoder"]["final_norm"]
    x = start + sum(writes)
    logits = head(case, norm(x, final).mean(0))
    np.testing.assert_allclose(seen.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.attention, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.output, norm(x, final), rtol=1e-4, atol=1e-5)
    for chosen in range(CLASSES):
        found = attribute(case, seen, chosen)
        assert found.method is DIRECT
        column = wide(case.variables["params"])["head"]["kernel"][:, chosen] * final["scale"]
        deviation = np.sqrt(x.var(-1) + 1e-6)
        for (*_, part), write in zip(found.parts, [start, *writes], strict=True):
            centred = write - write.mean(-1, keepdims=True)
            expected = centred @ column / deviation / LENGTH
            np.testing.assert_allclose(part, expected, rtol=1e-3, atol=2e-5)
        names = [(layer, branch) for layer, branch, _ in found.parts]
        assert names[:3] == [(0, "embedding"), (1, "attention"), (1, "feed_forward")]
        assert names[3:] == [(2, "attention"), (2, "feed_forward")]
        assert found.start == pytest.approx(head(case, final["bias"])[chosen], rel=1e-4)
        assert abs(found.residual) < 2e-5
        total = sum(part.sum() for *_, part in found.parts)
        assert total == pytest.approx(logits[chosen] - head(case, final["bias"])[chosen], rel=1e-4)


@pytest.mark.table
def test_integrated_parts_are_the_integral_by_hand():
    case, seen = case_and_seen("post_ln")
    start, writes, _ = forward(case, norm_first=False)
    params = wide(case.variables["params"])["encoder"]["layers"]

    def logit(factors, chosen):
        x = start
        for number, (factor, write) in enumerate(zip(factors, writes, strict=True)):
            name = ("attention", "feed_forward")[number % 2]
            own = {k: v[number // 2] for k, v in params[name]["norm_on_stream"].items()}
            x = norm(x + factor * write, own)
        return head(case, x.mean(0))[chosen]

    chosen, count, small = 1, len(writes), 1e-6
    np.testing.assert_allclose(logit(np.ones(count), chosen), seen.logits[chosen], rtol=1e-4)
    found = attribute(case, seen, chosen)
    assert found.method is INTEGRATED
    nodes, weights = np.polynomial.legendre.leggauss(64)
    for number, (layer, branch, part) in enumerate(found.parts):
        assert (layer, branch) == (number // 2 + 1, ("attention", "feed_forward")[number % 2])
        ahead = small * np.eye(count)[number]

        def slope(a, ahead=ahead):
            above, below = (logit(np.full(count, a) + d, chosen) for d in (ahead, -ahead))
            return (above - below) / (2 * small)

        expected = sum(w / 2 * slope(a) for a, w in zip((nodes + 1) / 2, weights, strict=True))
        assert part.sum() == pytest.approx(expected, rel=2e-3, abs=2e-4)
    assert found.start == pytest.approx(logit(np.zeros(count), chosen), rel=1e-4)
    assert found.complete
    assert abs(found.residual) < 1e-4


@pytest.mark.table
@pytest.mark.parametrize(
    ("pooling", "method"),
    [
        ("cls", DIRECT),
        *(
            pytest.param(*case, marks=pytest.mark.table)
            for case in (("last", DIRECT), ("max", INTEGRATED), ("statistics", INTEGRATED))
        ),
    ],
)
def test_parts_add_up_under_every_pooling(pooling, method):
    case, seen = case_and_seen("pre_ln", pooling=pooling)
    found = attribute(case, seen, 0)
    assert found.method is method
    assert found.complete
    if pooling in ("cls", "last"):
        place = {"cls": 0, "last": -1}[pooling]
        for *_, part in found.parts:
            assert np.abs(np.delete(part, place)).max() == 0
            assert part[place] != 0


@pytest.mark.table
def test_a_stream_that_only_scales_as_a_sum_is_not_taken_for_one():
    """Twice the writes give twice the stream, yet two writes together are not their sum."""
    case, seen = case_and_seen("pre_ln", stream="orthogonal_sum")
    found = attribute(case, seen, 0)
    assert found.method is INTEGRATED
    assert found.complete


@pytest.mark.table
def test_a_norm_that_is_not_linear_is_not_taken_for_one():
    case, seen = case_and_seen("pre_ln", norm="dyt")
    found = attribute(case, seen, 0)
    assert found.method is INTEGRATED
    assert found.complete


@pytest.mark.table
def test_side_by_side_branches_and_segments_have_their_places():
    case, seen = case_and_seen("mix_ln")
    found = attribute(case, seen, 0)
    assert found.complete
    assert [(n, b) for n, b, _ in found.parts][-4:] == [
        (1, "attention"), (1, "feed_forward"), (2, "attention"), (2, "feed_forward"),
    ]  # fmt: skip
    case, seen = case_and_seen("gpt_j")
    found = attribute(case, seen, 0)
    assert [(n, b) for n, b, _ in found.parts] == [
        (0, "embedding"), (1, "parallel"), (2, "parallel"),
    ]  # fmt: skip
    assert len(seen.attention) == DEPTH
    assert abs(found.residual) < 1e-4


def test_the_fit_tells_a_frozen_norm_from_others():
    rng = np.random.default_rng(0)
    z, own = rng.normal(size=(3, 7)) + 1, {"scale": rng.normal(size=7), "bias": rng.normal(size=7)}
    inverse, error = fit_norm(z, norm(z, own), own, centred=True)
    np.testing.assert_allclose(inverse[:, 0], 1 / np.sqrt(z.var(-1) + 1e-6))
    assert error < 1e-12
    assert fit_norm(z, norm(z, own), own, centred=False)[1] > 0.01
    assert fit_norm(z, np.tanh(z), {}, centred=False)[1] > 0.01
    rms = z / np.sqrt((z**2).mean(-1, keepdims=True))
    assert fit_norm(z, rms, {}, centred=False)[1] < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS.names())
def test_parts_of_every_stream_add_up(stream):
    """Or the page says that they do not, as where a stream stops the gradient."""
    width = 8 if "fractions" in stream else WIDTH  # these cut it in four
    case, seen = case_and_seen("pre_ln", width=width, stream=stream)
    found = attribute(case, seen, 0)
    assert np.isfinite(found.residual)
    assert found.complete or stream in INCOMPLETE


# Measured: 0.03 and 0.9 of a logit are left over, and the page says so. `held_back` stops part
# of the gradient: JAX's derivative is not the function's. `delta_rule` reads a write's direction
# alone, whose derivative along the path is a spike at 0, between two nodes of the integral.
INCOMPLETE = ("held_back", "delta_rule")
