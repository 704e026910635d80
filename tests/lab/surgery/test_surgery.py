"""Norm surgery: what is exact, what is not, fits against NumPy, and the command."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import resnorm_jax as rn
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.config import OptimizerConfig
from resnorm_jax.errors import UserError
from resnorm_jax.lab.surgery import pointwise
from resnorm_jax.lab.surgery.change import read_change
from resnorm_jax.lab.surgery.distill import Outputs, Recipe, distillation_loss
from resnorm_jax.lab.surgery.parameters import copied, to_rms, to_wide_rms
from resnorm_jax.ops.activations import gelu


def random_like(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(0.2, 0.5, p.shape).astype(p.dtype), shapes)


X = np.random.default_rng(1).normal(2, 3, (2, 7, 8)).astype(np.float32)
MASK = np.arange(7) < np.array([7, 3])[:, None]


def classifier(arrangement, norm, pooling="mean", **fields):
    return rn.SequenceClassifier(
        classes=3, front_end=rn.FeatureEmbedding(width=8), pooling=pooling, max_length=7, **fields,
        encoder=rn.TransformerEncoder(depth=2, heads=2, arrangement=arrangement, norm=norm),
    )  # fmt: skip


@pytest.mark.parametrize("pooling", ["statistics", pytest.param("cls", marks=pytest.mark.table)])
def test_a_pre_ln_classifier_keeps_its_logits(pooling):
    old, new = (classifier("pre_ln", norm, pooling) for norm in ("layer", "rms"))
    params = random_like(jax.eval_shape(old.init, jax.random.key(0), X)["params"])
    made = to_rms(params, pooling, "learned")
    before, after = (
        jax.jit(m.apply)({"params": p}, X, MASK) for m, p in ((old, params), (new, made.params))
    )
    assert np.abs(before).max() > 0.5
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_post_ln_classifier_keeps_its_logits_in_wider_layers():
    fields = {"arrangement": "post_ln", "depth": 2, "heads": 2}
    old, new = (
        rn.SequenceClassifier(
            classes=3, front_end=rn.FeatureEmbedding(width=8), max_length=7, pooling="last",
            encoder=rn.TransformerEncoder(
                norm=norm, norms={"embedding_norm": norm}, mlp_width=mlp_width, **fields
            ),
        )
        for norm, mlp_width in (("layer", 12), ("rms", 26))
    )  # fmt: skip
    params = random_like(jax.eval_shape(old.init, jax.random.key(0), X)["params"])
    made = to_wide_rms(params, "last", "learned", gelu)
    before, after = (
        jax.jit(m.apply)({"params": p}, X, MASK) for m, p in ((old, params), (new, made.params))
    )
    assert np.abs(before).max() > 0.5
    np.testing.assert_allclose(after, before, atol=1e-4)
    with pytest.raises(UserError, match="--widen: a model with pooling max"):
        to_wide_rms(params, "max", "learned", gelu)


def test_only_layer_norms_of_known_arrangements_are_converted():
    params = random_like(
        jax.eval_shape(classifier("sandwich_ln", "layer").init, jax.random.key(0), X)["params"]
    )
    assert to_rms(params, "mean", "learned") is None


def test_parameters_are_copied_layer_by_layer_through_other_segments():
    """Mix-LN has two segments: their layers take those of one stack, in order."""
    old = rn.TransformerEncoder(depth=4, heads=2, arrangement="pre_ln")
    new = rn.TransformerEncoder(depth=4, heads=2, arrangement="mix_ln")
    params, like = (
        random_like(jax.eval_shape(e.init, jax.random.key(0), X)["params"], seed)
        for seed, e in enumerate((old, new))
    )
    made = copied({"encoder": params}, {"encoder": like})
    assert made.random
    assert 0 < made.fresh < 0.2
    found = made.params["encoder"]
    kernels = np.concatenate(
        [
            found[name]["feed_forward"]["branch"]["fc1"]["kernel"]
            for name in sorted(found)
            if "layers" in name
        ]
    )
    np.testing.assert_array_equal(
        kernels, params["layers"]["feed_forward"]["branch"]["fc1"]["kernel"]
    )
    same = copied({"encoder": params}, {"encoder": params})
    assert same.fresh == 0
    assert not same.random


def test_a_point_wise_norm_is_fitted_by_least_squares(monkeypatch):
    """Against NumPy's solver, for the one norm whose inputs can be had by hand: the final one."""
    monkeypatch.setattr(pointwise, "ALPHAS", (0.1, 0.4, 2.0))
    model, new = classifier("pre_ln", "layer"), classifier("pre_ln", "dyt")
    variables = {"params": random_like(jax.eval_shape(model.init, jax.random.key(0), X)["params"])}
    batches = [{"x": X[:1], "mask": MASK[:1]}, {"x": X[1:], "mask": MASK[1:]}]
    sums = pointwise.norm_sums(model, variables, batches, jnp.tanh)
    like = random_like(jax.eval_shape(new.init, jax.random.key(0), X)["params"])
    made = pointwise.fitted(sums, variables["params"], like)
    _, named = model.apply(variables, X, MASK, return_intermediates=True)
    z = np.float64(named["feed_forward/stream"][-1][MASK])
    norm = variables["params"]["encoder"]["final_norm"]
    y = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)
    y = y * norm["scale"] + norm["bias"]
    errors, answers = [], []
    for alpha in pointwise.ALPHAS:
        t, error, answer = np.tanh(alpha * z), 0.0, []
        for d in range(8):
            a = np.stack([t[:, d], np.ones(len(t))], 1)
            w, *_ = np.linalg.lstsq(a, y[:, d], rcond=None)
            error += np.square(a @ w - y[:, d]).sum()
            answer.append(w)
        errors.append(error)
        answers.append(np.array(answer))
    best = int(np.argmin(errors))
    found = made.params["encoder"]["final_norm"]
    assert float(found["alpha"].item()) == pytest.approx(pointwise.ALPHAS[best])
    np.testing.assert_allclose(found["scale"], answers[best][:, 0], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(found["bias"], answers[best][:, 1], rtol=1e-2, atol=1e-3)
    rest = flatten_dict(made.params["encoder"]["layers"], sep="/")
    assert rest["attention/norm_before/alpha"].shape == (2,)
    assert made.fresh == 0


def test_the_loss_is_that_of_the_equation():
    rng = np.random.default_rng(0)
    (s, t), (hs, ht) = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 5))
    weight = np.array([1, 1, 0, 1.0])

    def soft(z):
        return np.exp(z / 2) / np.exp(z / 2).sum(-1, keepdims=True)

    kl = 4 * (soft(t) * np.log(soft(t) / soft(s))).sum(-1) @ weight / 3
    error = ((hs - ht) ** 2).sum(-1) @ weight / ((ht**2).sum(-1) @ weight)
    recipe = Recipe(1, OptimizerConfig(), temperature=2.0, hidden=0.5)
    student, teacher = (Outputs(z, h, h[:, None], weight[:, None]) for z, h in ((s, hs), (t, ht)))
    found = distillation_loss(student, teacher, weight, recipe)
    assert float(found) == pytest.approx(kl + 0.5 * error, rel=1e-5)
    assert float(distillation_loss(teacher, teacher, weight, recipe)) == pytest.approx(0, abs=1e-7)
    alone = replace(recipe, hidden=0.0)
    assert float(distillation_loss(student, teacher, weight, alone)) == pytest.approx(kl, rel=1e-5)


@pytest.mark.parametrize("text", ["rms", "norm=", "depth=3", ""])
def test_what_is_no_change_is_one_line(text):
    with pytest.raises(UserError, match="write norm=NAME or arrangement=NAME"):
        read_change(text)


@pytest.mark.table
@pytest.mark.parametrize("to", ["norm=rms", "norm=dyt", "arrangement=post_ln"])
def test_the_command(tiny_run, tmp_path, to, capsys):
    out = tmp_path / "out"
    command = ["lab", "surgery", str(tiny_run), f"--to={to}", "--steps=20", "--seeds=2"]
    assert resnorm([*command, f"--output={out}"]) == 0
    report = json.loads((out / "surgery.json").read_text())
    scored = json.loads((tiny_run / "report.json").read_text())
    before, after, end = (stage["mean"] for stage in report["stages"])
    assert before["accuracy"] == pytest.approx(scored["accuracy"])
    assert (before["agreement"], before["kl"]) == (1, 0)
    if to == "norm=rms":
        assert after["largest"] < 1e-4
        assert after["agreement"] == 1
    else:
        assert after["kl"] > end["kl"] >= 0
        assert report["losses"][0][-1] < report["losses"][0][0]
    assert [len(curve) for curve in report["losses"]] == [20, 20]
    page = (out / "surgery.html").read_text()
    assert "Before, after, and after distillation" in page
    assert "http" not in page.split("</style>")[1].replace("data:image", "")
    assert "after 20 steps" in capsys.readouterr().out


@pytest.mark.table
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to=norm=layer"], "the run has norm=layer already"),
        (["--to=norm=rmss"], "did you mean 'rms'"),
        (["--to=norm=batch"], "its statistics run over rows"),
        (["--to=arrangement=post_nl"], "did you mean 'post_ln'"),
        (["--to=norm=rms", "--steps=0", "--hidden=1"], "--hidden"),
        (["--to=norm=dyt", "--widen"], "--widen: not read with norm=dyt"),
        (["--to=norm=rms", "--widen"], "--widen: not the parameters of a Post-LN"),
    ],
)
def test_mistakes_are_one_line(tiny_run, tmp_path, capsys, flags, message):
    out = tmp_path / "out"
    assert resnorm(["lab", "surgery", str(tiny_run), *flags, f"--output={out}"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (out / "surgery.json").exists()
