"""Masked pretraining: what is masked, its loss, and that a killed run goes on in either phase."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from rich.console import Console

from resnorm_jax.build import build_model
from resnorm_jax.config import PretrainConfig, experiment, from_dict
from resnorm_jax.data import describe
from resnorm_jax.errors import UserError
from resnorm_jax.training import loop
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.masked import Masked, masked_model, positions_asked
from resnorm_jax.training.masking import mask_stretches, mask_tokens
from resnorm_jax.training.pretraining import pretraining_of
from resnorm_jax.training.recipe import check_read
from resnorm_jax.training.step import train_step


def test_tokens_are_masked_as_often_as_told():
    x = jax.random.randint(jax.random.key(0), (200, 100), 1, 12)
    valid = jnp.arange(100) < jnp.full((200, 1), 80)
    seen, chosen = (np.asarray(a) for a in mask_tokens(jax.random.key(1), x, valid, 0.3, 12))
    x = np.asarray(x)
    assert not chosen[:, 80:].any()
    assert (seen[~chosen] == x[~chosen]).all()
    assert chosen[:, :80].mean() == pytest.approx(0.3, abs=0.02)  # of 16,000 positions
    masked = (seen == 0) & chosen
    assert masked.sum() / chosen.sum() == pytest.approx(0.8, abs=0.03)
    # A tenth is replaced, by the token itself in one of eleven cases.
    other = (seen[chosen & ~masked] != x[chosen & ~masked]).sum() / chosen.sum()
    assert other == pytest.approx(0.1 * 10 / 11, abs=0.02)
    assert set(seen[chosen & ~masked]) <= set(range(1, 12))
    seen, chosen = mask_tokens(jax.random.key(1), x, valid, 0.3, 12, mask_token=5, plain=True)
    assert (seen[chosen] == 5).all()


def test_stretches_have_the_share_and_the_mean_length():
    chosen = np.asarray(mask_stretches(jax.random.key(0), (40, 500, 3), 0.15, 4.0))
    assert chosen.mean() == pytest.approx(0.15, abs=0.01)
    rows = np.moveaxis(chosen, 1, 2).reshape(-1, 500)
    lengths = []
    for row in rows:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
        lengths += [
            b - a for a, b in zip(edges[::2], edges[1::2], strict=True) if a > 0 and b < 500
        ]
    assert np.mean(lengths) == pytest.approx(4.0, abs=0.3)
    # Geometric: a stretch ends at its first position with probability 1 / 4.
    assert np.mean(np.array(lengths) == 1) == pytest.approx(0.25, abs=0.03)
    assert (chosen[:, :, 0] != chosen[:, :, 1]).any()


def test_no_more_logits_are_computed_than_are_chosen():
    """Of 200 rows of 64 positions hardly one has more chosen ones than are asked for."""
    rng, asked = np.random.default_rng(0), []
    x = rng.integers(1, 7, (200, 64))
    answer = rng.normal(size=(200, 64, 7)).astype(np.float32)

    def apply(variables, x, at=None, **how):
        asked.append(at)
        return jnp.take_along_axis(jnp.asarray(answer), at[..., None], 1)

    masked = Masked("tokens", PretrainConfig(updates=1, rate=0.15), vocabulary=7)
    how = {"deterministic": False, "rngs": {"dropout": jax.random.key(0)}}
    out = masked.applied(apply)({}, jnp.asarray(x), **how)
    (at,) = asked
    assert at.shape == (200, 22)  # 64 * 0.15 = 9.6, and four deviations of 2.86
    valid = jnp.ones(x.shape, bool)
    _, chosen = masked._masked(jax.random.split(jax.random.key(0))[1], jnp.asarray(x), valid)
    losses = np.log(np.exp(answer).sum(-1)) - np.take_along_axis(answer, x[..., None], -1)[..., 0]
    np.testing.assert_allclose(out["loss"], (losses * chosen).sum(1), rtol=1e-4)
    np.testing.assert_array_equal(out["count"], chosen.sum(1))
    # Short rows, and rates near 1, ask for every position once.
    assert positions_asked(4, 0.5) == 4
    assert positions_asked(64, 0.99) == 64


@pytest.mark.parametrize("kind", ["tokens", "features"])
def test_the_loss_is_of_what_was_masked_alone(kind):
    """A model that answers with numbers drawn beforehand, against NumPy."""
    rng = np.random.default_rng(0)
    tokens = kind == "tokens"
    x = rng.integers(1, 7, (4, 9)) if tokens else rng.normal(size=(4, 9, 2)).astype(np.float32)
    mask = np.arange(9) < np.array([9, 5, 7, 9])[:, None]
    # Features come from tokens of three positions each.
    answer = rng.normal(size=(4, 9, 7) if tokens else (4, 3, 6))
    seen = []

    def apply(variables, x, mask, at=None, **how):
        seen.append(np.asarray(x))
        given = jnp.asarray(answer)
        return given if at is None else jnp.take_along_axis(given, at[..., None], 1)

    masked = Masked(kind, PretrainConfig(updates=1, rate=0.5), vocabulary=7)
    out = masked.applied(apply)(
        {}, jnp.asarray(x), jnp.asarray(mask), deterministic=False,
        rngs={"dropout": jax.random.key(0)},
    )  # fmt: skip
    weight = np.array([1, 1, 0, 1.0])
    sums = masked.sums(out, {"weight": jnp.asarray(weight)})
    if tokens:
        _, chosen = masked._masked(
            jax.random.split(jax.random.key(0))[1], jnp.asarray(x), jnp.asarray(mask)
        )
        losses = (
            np.log(np.exp(answer).sum(-1)) - np.take_along_axis(answer, x[..., None], -1)[..., 0]
        )
        right = (answer.argmax(-1) == x) & np.asarray(chosen)
        assert sums["correct"] == right.sum(1) @ weight
    else:
        chosen = (seen[0] == 0) & mask[..., None]
        losses = (answer.reshape(4, 9, 2) - x) ** 2
    chosen = np.asarray(chosen)
    assert 0 < chosen.sum() < chosen.size
    by_row = (losses * chosen).reshape(4, -1).sum(1)
    assert float(sums["loss"]) == pytest.approx(by_row @ weight, rel=1e-5)
    assert float(sums["count"]) == chosen.reshape(4, -1).sum(1) @ weight


def small(place=None, **fields):
    values = experiment(
        data={
            "source": "listops",
            "min_length": 4,
            "max_length": 16,
            "max_depth": 2,
            "max_args": 3,
            "train": 64,
            "valid": 8,
            "test": 16,
        },
        model={"width": 8, "depth": 1, "heads": 2, "dropout": 0.1},
        optimizer={"learning_rate": 1e-2},
        pretrain={"updates": 6, "rate": 0.3},
        train={"batch_size": 16, "log_every": 2, "buckets": 1, "steps": 4, "checkpoint_every": 2},
    ).to_dict()
    values["devices"] = 1
    for path, value in fields.items():
        section, name = path.split("__")
        values[section][name] = value
    return from_dict(values)


@pytest.mark.parametrize(
    "pooling", ["mean", *(pytest.param(p, marks=pytest.mark.table) for p in ("cls", "distilled"))]
)
def test_the_model_is_the_classifier_but_for_its_head(pooling):
    data = tiny.dataset()
    made = replace(
        tiny.config(model={"pooling": pooling, "stride": 2}), pretrain=PretrainConfig(updates=2)
    )
    meta = describe(data)
    model = build_model(made, meta)
    masked, _ = masked_model(made, model, meta)
    one, two = (
        {
            p: a.shape
            for p, a in flatten_dict(init_variables(m, data, (5, 8), 0)["params"], sep="/").items()
        }
        for m in (model, masked)
    )
    assert one.pop("head/kernel") == (8, 3)
    assert two.pop("head/kernel") == (8, 6)  # two positions of three channels
    assert one.pop("head/bias") != two.pop("head/bias")
    assert one == two
    # One step: the loss is finite, and the whole encoder learns.
    pretraining = pretraining_of(made, model, meta)
    variables = pretraining.first(init_variables(model, data, (5, 8), 0), data, (5, 8), 0)
    state = pretraining._state(np.uint32(0), variables)
    rows = data.train.take(np.arange(8))
    batch = {"x": rows.x, "y": rows.y, "weight": np.ones(8, np.float32),
             "mask": np.arange(8) < rows.lengths[:, None]}  # fmt: skip
    new, sums = jax.jit(lambda s: train_step(s, batch, pretraining.options))(state)
    assert np.isfinite(float(sums["loss"]))
    assert float(sums["count"]) > 0
    before, after = (flatten_dict(s.params, sep="/") for s in (state, new))
    still = {path for path in before if (np.asarray(before[path]) == after[path]).all()}
    assert still <= {"encoder/layers/attention/branch/key/bias"}  # softmax does not see it


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pretrain__updates": None}, "pretrain.rate: not read without pretraining"),
        ({"pretrain__mean_length": 5.0}, "pretrain.mean_length: not read: the data are tokens"),
        ({"pretrain__rate": 0.9}, "pretrain.rate: 0.9 with stretches"),
        ({"pretrain__rate": 1.0}, "pretrain.rate: 1.0 is no fraction"),
        ({"pretrain__masking": "brt"}, "did you mean 'bert'"),
    ],
)
def test_mistakes_are_one_line(fields, message):
    meta = {"kind": "tokens", "vocabulary": ["<pad>", "a"], "shape": (), "max_length": 4}
    with pytest.raises(UserError, match=message):
        masked_model(small(**fields), None, meta)


def test_images_and_the_lab_refuse():
    with pytest.raises(UserError, match="images are not masked here"):
        masked_model(small(), None, {"kind": "images"})
    with pytest.raises(UserError, match=r"pretrain\.updates: 6 is not read by the lab"):
        check_read(small(), "the lab")


@pytest.mark.table
def test_a_killed_run_goes_on_in_either_phase(tmp_path, monkeypatch):
    quiet, made = Console(quiet=True), small()
    whole = run_experiment(made, tmp_path / "whole", quiet)
    real = loop.iterate
    left = [0]

    def stopping(*given):
        for item in real(*given):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            yield item

    with monkeypatch.context() as patched:
        patched.setattr(loop, "iterate", stopping)
        for count in (3, 3, 3):  # in pretraining; at its end and beyond; in classification
            left[0] = count
            with pytest.raises(KeyboardInterrupt):
                run_experiment(made, tmp_path / "killed", quiet)
    again = run_experiment(made, tmp_path / "killed", quiet)
    assert again["params_sha256"] == whole["params_sha256"]
    for name in ("metrics.jsonl", "pretrain/metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "killed" / name).read_text()
    curve = whole["seeds"][0]["pretraining"]["curve"]
    assert [point["step"] for point in curve] == [2, 4, 6]
    assert again["seeds"][0]["pretraining"] == whole["seeds"][0]["pretraining"]
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["seeds"][0]["pretraining"]["steps"] == 6
    plain = run_experiment(replace(made, pretrain=PretrainConfig()), tmp_path / "plain", quiet)
    assert plain["params_sha256"] != whole["params_sha256"]
