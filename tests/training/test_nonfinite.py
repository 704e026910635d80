"""Steps that are not finite: found on the device, held back, explained, and dealt with as asked."""

import contextlib
import json
import re
from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from rich.console import Console
from tiers import every

from resnorm_jax.config import from_dict
from resnorm_jax.data import TrainBatches
from resnorm_jax.data.dataset import Examples
from resnorm_jax.errors import DivergedError, UserError
from resnorm_jax.training import loop
from resnorm_jax.training.advice import explained
from resnorm_jax.training.checkpoint import CheckpointStore, params_sha256
from resnorm_jax.training.evaluation import predict
from resnorm_jax.training.forensics import examine
from resnorm_jax.training.loop import train_seed
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.run_directory import seed_directory
from resnorm_jax.training.step import StepOptions, create_state, train_step

# --- The flag, and what it holds back ---


class Linear(nn.Module):
    """Enough of a model for the step: it compiles in no time."""

    @nn.compact
    def __call__(self, x, mask=None, *, deterministic=True):
        return nn.Dense(3, name="head")(x.mean(1))


def linear(rate=0.1, **options):
    config = replace(tiny.config().optimizer, learning_rate=rate, clip=None)
    optimizer, _ = make_optimizer(config, 10)
    model = Linear()
    variables = model.init(jax.random.key(0), jnp.ones((1, 8, 3)))
    made = StepOptions(model.apply, optimizer, **options)
    return made, create_state(variables, optimizer, 0, made.ema)


def batch_of(data, index=0, size=16):
    return TrainBatches(data.train, size, (8,), 0).batch_at(index)


def poisoned(batch, value=np.nan, row=3):
    x = batch["x"].copy()
    x[row] = value
    return {**batch, "x": x}


def saved_part(state):
    return state.replace(step=0)


@pytest.mark.parametrize("rate", [0.1, np.inf], ids=["batch", "rate"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(rate):
    options, state = linear(rate, ema=0.9, log_every=10)
    step = jax.jit(partial(train_step, options=options))
    batch = batch_of(tiny.dataset())
    if rate == 0.1:
        state, sums = step(state, batch)
        assert bool(sums["finite"])
        batch = poisoned(batch)
    new, sums = step(state, batch)
    assert not bool(sums["finite"])
    jax.tree.map(np.testing.assert_array_equal, saved_part(new), saved_part(state))
    assert int(new.step) == int(state.step) + 1
    assert set(state.sums) == set(new.sums) == {"loss", "correct", "count", "grad_norm", "steps"}


@pytest.mark.table
def test_a_step_that_is_not_guarded_lets_it_through():
    options, state = linear(guarded=False)
    new, sums = train_step(state, poisoned(batch_of(tiny.dataset())), options)
    assert not bool(sums["finite"])
    assert np.isnan(new.params["head"]["kernel"]).any()


# --- Where it began: planted in ten places ---


def model_parts(**train):
    made = tiny.config(**train)
    _, state, options, _ = tiny.parts(made, tiny.dataset())
    return made, options, jax.tree.map(np.array, state)


@pytest.fixture(scope="module")
def usual():
    return model_parts()


def planted(state, path, value, layer=None):
    *parents, name = path.split("/")
    params = jax.tree.map(np.array, state.params)
    tree = params
    for parent in parents:
        tree = tree[parent]
    tree[name][... if layer is None else layer - 1] = value
    return state.replace(params=params)


FC = "encoder/layers/feed_forward/branch"
PLACES = {
    "a kernel": (f"{FC}/fc2/kernel", np.nan, 2, f"layer 2, feed_forward: {FC}/fc2"),
    "a norm's scale": (
        "encoder/layers/attention/norm_before/scale", np.inf, 2,
        "layer 2, attention: encoder/layers/attention/norm_before",
    ),
    "attention logits": (
        "encoder/layers/attention/branch/query/bias", 1e38, 1,
        "layer 1, attention: encoder/layers/attention/branch",
    ),
    "the embedding": ("front_end/project/bias", np.nan, None, "front_end/project"),
    "the final norm": ("encoder/final_norm/scale", np.nan, None, "encoder/final_norm"),
}  # fmt: skip


@pytest.mark.parametrize("place", every(PLACES))
def test_what_is_planted_in_the_forward_pass_is_named(usual, place):
    made, options, state = usual
    path, value, layer, expected = PLACES[place]
    state, batch = planted(state, path, value, layer), batch_of(tiny.dataset())
    if place == "attention logits":
        state = planted(state, path.replace("query", "key"), 1e5, layer)
    found = examine(options, state, batch, 1)
    assert (found.phase, found.place[: len(expected)]) == ("forward", expected)
    assert len(found.rows) == 16
    why, _ = explained(made.train, options, state, batch, found, 1, [])
    if place == "attention logits":
        assert found.place.endswith("the attention logits or weights, before its out")
    else:
        assert "is not finite" in why


@pytest.mark.table
@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param(np.nan, "values that are not finite", marks=pytest.mark.table),
        (1e38, r"values of 1e\+38, scaled"),
    ],
)
def test_data_at_fault_are_named_by_row(usual, value, why):
    made, options, state = usual
    batch = poisoned(batch_of(tiny.dataset()), value, 5)
    found = examine(options, state, batch, 1)
    assert found.phase == "forward"
    assert list(found.rows) == [5]
    told = explained(made.train, options, state, batch, found, 1, [])
    assert re.search(why, told[0])
    raw = explained(replace(made.train, scale=False), options, state, batch, found, 1, [])
    assert value != 1e38 or "train.scale=true" in raw[1]


@pytest.mark.table
def test_the_loss_of_finite_logits_is_named(usual):
    _, options, state = usual
    signs = np.array([3e38, -3e38, -3e38], np.float32)
    found = examine(options, planted(state, "head/bias", signs), batch_of(tiny.dataset()), 1)
    assert found.phase == "loss"
    assert 0 < len(found.rows) < 16  # those of the classes that got the small logits


class Rooted(nn.Module):
    """Its gradient at 0 is not finite, its value is."""

    @nn.compact
    def __call__(self, x):
        return jnp.sqrt(jnp.square(x) * 0)


class Backward(nn.Module):
    """A model of two layers' names, of which the second has the fault."""

    @nn.compact
    def __call__(self, x, mask=None, *, deterministic=True):
        h = nn.Dense(4, name="first")(x)
        h = h + Rooted(name="rooted")(h)
        return nn.Dense(3, name="head")(h.mean(1))


def test_what_is_wrong_in_the_backward_pass_alone_is_named():
    options, state = linear()
    model = Backward()
    variables = model.init(jax.random.key(0), jnp.ones((1, 8, 3)))
    state = create_state(variables, options.optimizer, 0, None)
    found = examine(replace(options, apply=model.apply), state, batch_of(tiny.dataset()), 1)
    assert (found.phase, found.place) == ("backward", "rooted")


@pytest.mark.table
def test_an_update_that_overflows_is_named():
    options, state = linear(np.inf)
    found = examine(options, state, batch_of(tiny.dataset()), 1)
    assert (found.phase, found.place) == ("update", "the update of head/bias")


@pytest.mark.table
def test_an_overflow_of_bfloat16_is_told_from_divergence():
    made, options, state = model_parts(precision="bfloat16")
    batch = batch_of(tiny.dataset())
    state = planted(state, "front_end/project/bias", 3.4e38)  # beyond bfloat16, not float32
    found = examine(options, state, batch, 1)
    assert (found.phase, found.place) == ("forward", "front_end/project")
    told = explained(made.train, options, state, batch, found, 1, [])
    assert told[0] == "it is finite in float32: bfloat16 overflows"


@pytest.mark.table
def test_rows_and_layers_are_right_however_the_batch_is_spread():
    made = tiny.config(accumulate=2, model={"dropout": 0.2})
    _, state, options, _ = tiny.parts(made, tiny.dataset(), 2)
    state = jax.tree.map(np.array, state)
    for row in (1, 6, 14):
        found = examine(options, state, poisoned(batch_of(tiny.dataset()), row=row), 2)
        assert list(found.rows) == [row]


# --- What the run does about it ---


def run_of(tmp_path, data=None, model=None, **train):
    """A run of `Linear`, which compiles in no time."""
    tmp_path.mkdir(exist_ok=True)
    made = tiny.config(log_every=2, **train)
    data = (data or tiny.dataset()).replace(valid=None)
    optimizer, schedule = make_optimizer(made.optimizer, 12)
    model = model or Linear()
    variables = model.init(jax.random.key(0), jnp.ones((1, 8, 3)))
    options = StepOptions(model.apply, optimizer, log_every=2)
    parallel = tiny.DataParallel(options, jax.local_devices()[:1])
    state = create_state(variables, optimizer, 0, None)
    log = tiny.MetricsLog(tmp_path / "metrics.jsonl")
    console = Console(file=(tmp_path / "console.txt").open("a"), width=400)
    return loop.Run(made.train, data, parallel, schedule, (8,), tmp_path, log, console), state


BAD = 17  # the row of the training set that is poisoned, from 0


def bad_data():
    data = tiny.dataset(96)  # six batches an epoch, one of them bad
    x = data.train.x.copy()
    x[BAD] = np.inf
    return data.replace(train=Examples(x, data.train.lengths, data.train.y))


def bad_steps(data, steps):
    batches = TrainBatches(data.train, 16, (8,), 0)
    return [s for s in range(steps) if BAD in batches.rows_at(s)]


def test_abort_names_the_step_and_the_row_and_keeps_the_batch(tmp_path):
    run, state = run_of(tmp_path, bad_data())
    step = bad_steps(run.dataset, 12)[0] + 1
    with pytest.raises(DivergedError) as error:
        train_seed(run, 0, state, 12)
    told = str(error.value)
    assert told.startswith(f"seed 0: step {step} is not finite: forward: ")
    assert f"training row {BAD + 1};" in told
    assert "values that are not finite; mend or leave out these rows" in told
    assert "\n" not in told
    folder = tmp_path / "nonfinite" / "seed_0" / f"step_{step}"
    record = json.loads((folder / "finding.json").read_text())
    assert (record["rows"], record["step"], record["checkpoint"]) == ([BAD + 1], step, 0)
    with np.load(folder / "batch.npz") as kept:
        assert np.isinf(kept["x"][list(kept["rows"]).index(BAD + 1)]).any()


def test_skip_counts_logs_and_goes_on(tmp_path):
    run, state = run_of(tmp_path, bad_data(), nonfinite="skip")
    outcome = train_seed(run, 0, state, 12)
    expected = bad_steps(run.dataset, 12)
    assert outcome.counts == {"nonfinite_steps": len(expected), "rollbacks": 0}
    assert np.isfinite(outcome.params["head"]["kernel"]).all()
    assert run.log.rows()[-1]["nonfinite_steps"] == len(expected)
    run.console.file.flush()
    told = (tmp_path / "console.txt").read_text()
    for step in expected:
        assert f"step {step + 1} is not finite: skipped" in told


def test_rollback_passes_over_the_batches(tmp_path):
    run, state = run_of(tmp_path, bad_data(), nonfinite="rollback", checkpoint_every=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStore, "save", spied := Spy(CheckpointStore.save))
        outcome = train_seed(run, 0, state, 8)
    bad = bad_steps(run.dataset, 40)
    assert outcome.counts["rollbacks"] == outcome.counts["nonfinite_steps"] > 0
    # What was trained on is what a run gets whose batches begin later.
    taken, offset, step = [], 0, 0
    while step < 8:
        if step + offset in bad:
            back = step // 3 * 3
            offset, taken, step = offset + step - back + 1, taken[:back], back
            continue
        taken.append(step + offset)
        step += 1
    fresh = run_of(tmp_path / "again", bad_data())
    again = fresh[0].parallel.replicate(fresh[1])
    batches = TrainBatches(run.dataset.train, 16, (8,), 0)
    for index in taken:
        again, _ = fresh[0].parallel.train(again, batches.batch_at(index))
    assert params_sha256(again.params) == params_sha256(outcome.params)
    assert spied.notes[-1]["batch_offset"] == offset
    steps = [row["step"] for row in run.log.rows()]
    assert steps == sorted(set(steps))


class Spy:
    def __init__(self, real):
        self.real, self.notes = real, []

    def __get__(self, store, owner):
        def save(step, tree, note):
            self.notes.append(note)
            self.real(store, step, tree, note)

        return save


def test_rollbacks_end(tmp_path):
    data = tiny.dataset()
    data = data.replace(
        train=Examples(np.full_like(data.train.x, np.nan), data.train.lengths, data.train.y)
    )
    run, state = run_of(tmp_path, data, nonfinite="rollback", max_rollbacks=2)
    with pytest.raises(DivergedError, match=r"step 1 is not finite: .* after 2 rollbacks"):
        train_seed(run, 0, state, 8)


def test_skipping_all_there_is_ends(tmp_path):
    data = tiny.dataset()
    data = data.replace(
        train=Examples(np.full_like(data.train.x, np.nan), data.train.lengths, data.train.y)
    )
    run, state = run_of(tmp_path, data, nonfinite="skip")
    with pytest.raises(DivergedError, match=r"every one of 4 steps was skipped"):
        train_seed(run, 0, state, 4)
    assert CheckpointStore(seed_directory(tmp_path, 0, "last")).steps() == []


class StopError(Exception):
    pass


@pytest.mark.parametrize("policy", every(["skip", "rollback"]))
def test_resume_is_bit_equal_under_each_policy(tmp_path, policy, monkeypatch):
    options = {"nonfinite": policy, "checkpoint_every": 3}
    run, state = run_of(tmp_path / "whole", bad_data(), **options)
    whole = train_seed(run, 0, state, 12)
    assert whole.counts["nonfinite_steps"]
    real = loop.iterate
    for stop in (2, 5, 7, 10):

        def stopping(*given, stop=stop):
            for index, batch in real(*given):
                if index == stop:
                    raise StopError
                yield index, batch

        monkeypatch.setattr(loop, "iterate", stopping)
        run, state = run_of(tmp_path / "parts", bad_data(), **options)
        with contextlib.suppress(StopError):  # a batch that is passed over stops nothing
            train_seed(run, 0, state, 12)
    monkeypatch.setattr(loop, "iterate", real)
    run, state = run_of(tmp_path / "parts", bad_data(), **options)
    resumed = train_seed(run, 0, state, 12)
    assert params_sha256(resumed.params) == params_sha256(whole.params)
    assert resumed.counts == whole.counts
    log = "metrics.jsonl"
    assert (tmp_path / "parts" / log).read_bytes() == (tmp_path / "whole" / log).read_bytes()


def test_the_last_step_is_looked_at(tmp_path):
    run, state = run_of(tmp_path, optimizer={"learning_rate": 1e-2})
    config = replace(tiny.config().optimizer, learning_rate=np.inf)
    optimizer, schedule = make_optimizer(config, 1)
    options = replace(run.parallel.options, optimizer=optimizer)
    run = replace(run, parallel=tiny.DataParallel(options, jax.local_devices()[:1]))
    run.schedule = schedule
    with pytest.raises(DivergedError, match=r"step 1 is not finite: update: .*learning_rate"):
        train_seed(run, 0, state, 1)
    assert CheckpointStore(seed_directory(tmp_path, 0, "last")).steps() == []


def test_scores_of_what_is_not_finite_are_refused():
    data, (options, state) = tiny.dataset(), linear()
    parallel = tiny.DataParallel(options, jax.local_devices()[:1])
    huge = jax.tree.map(lambda p: jnp.full_like(p, 3e38), state.params)
    with pytest.raises(DivergedError, match=r"row 1 of those scored, .*\.learning_rate"):
        predict(parallel, {"params": huge}, data.test, 16, (8,))
    x = data.test.x.copy()
    x[4] = 3e38
    rows = Examples(x, data.test.lengths, data.test.y)
    with pytest.raises(UserError, match=r"row 5 of those scored: .* its values reach 3e\+38"):
        predict(parallel, {"params": state.params}, rows, 16, (8,))


def test_a_field_that_is_not_read_is_an_error():
    values = tiny.config().to_dict()
    values["train"]["max_rollbacks"] = 5
    with pytest.raises(
        UserError, match=r"config\.train\.max_rollbacks: 5 is not read with train.non"
    ):
        from_dict(values)
