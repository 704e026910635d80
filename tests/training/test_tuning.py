"""Fine-tuning: rates by layer, frozen parts, low-rank matrices, class weights, early stopping."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax.traverse_util import flatten_dict
from rich.console import Console
from tiny import batch_of, started

from resnorm_jax.build import build_model
from resnorm_jax.config import OptimizerConfig
from resnorm_jax.data import describe
from resnorm_jax.errors import UserError
from resnorm_jax.reporting.metrics import score
from resnorm_jax.training import loop
from resnorm_jax.training.checkpoint import params_sha256
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.learned import Learned, cut, join, learned_of
from resnorm_jax.training.losses import balanced_weights, classification_sums
from resnorm_jax.training.low_rank import LowRank
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.parts import layer_numbers
from resnorm_jax.training.patience import Patience
from resnorm_jax.training.recipe import check_read, step_options
from resnorm_jax.training.saved_run import load_trained
from resnorm_jax.training.step import create_state, train_step

# Two segments of a stack, of two layers and one, without a model: only names and shapes count.
TREE = {
    "front_end": {"embed": {"embedding": np.full((5, 2), 2.0, np.float32)}},
    "positions": {"embedding": np.full((3, 2), 2.0, np.float32)},
    "encoder": {
        "layers_0": {"a": {"kernel": np.full((2, 2, 2), 2.0, np.float32)}},
        "layers_1": {"norm_before": {"scale": np.full((1, 2), 2.0, np.float32)}},
        "final_norm": {"scale": np.full(2, 2.0, np.float32)},
    },
    "head": {"kernel": np.full((2, 3), 2.0, np.float32)},
}


def updates(tree, **fields):
    """The first update of plain gradient descent with every gradient 1."""
    made, _ = make_optimizer(
        OptimizerConfig(
            algorithm="sgd", learning_rate=1.0, schedule="constant", clip=None, **fields
        ),
        10,
    )
    ones = jax.tree.map(np.ones_like, tree)
    return flatten_dict(made.update(ones, made.init(tree), tree)[0], sep="/")


def test_layers_are_counted_through_all_segments():
    found = {path: n.tolist() for path, n in layer_numbers(TREE).items()}
    assert found == {
        "front_end/embed/embedding": 0,
        "positions/embedding": 0,
        "encoder/layers_0/a/kernel": [1, 2],
        "encoder/layers_1/norm_before/scale": [3],
        "encoder/final_norm/scale": 4,
        "head/kernel": 4,
    }


def test_the_rate_of_a_layer_is_a_power():
    found = updates(TREE, layer_decay=0.5)
    assert (found["front_end/embed/embedding"] == -(0.5**4)).all()
    kernel = found["encoder/layers_0/a/kernel"]
    assert (kernel[0] == -(0.5**3)).all()
    assert (kernel[1] == -(0.5**2)).all()
    assert (found["encoder/layers_1/norm_before/scale"] == -0.5).all()
    assert (found["encoder/final_norm/scale"] == -1).all()
    assert (found["head/kernel"] == -1).all()


@pytest.mark.parametrize(
    ("frozen", "still"),
    [
        ("embeddings", {"front_end/embed/embedding", "positions/embedding"}),
        ("layers:1-2", {"encoder/layers_0/a/kernel"}),
        ("norms", {"encoder/layers_1/norm_before/scale", "encoder/final_norm/scale"}),
        ("head + input_norm_scale", {"head/kernel", "encoder/layers_1/norm_before/scale"}),
        ("kernel", {"encoder/layers_0/a/kernel", "head/kernel"}),
    ],
)
def test_frozen_parts_have_no_update_no_decay_and_no_state(frozen, still):
    config = OptimizerConfig(frozen=frozen, weight_decay=0.5, decay="kernel,embedding")
    made, _ = make_optimizer(config, 10)
    state = made.init(TREE)
    ones = jax.tree.map(np.ones_like, TREE)
    found, _ = made.update(ones, state, TREE)
    flat = flatten_dict(found, sep="/")
    assert {path for path, leaf in flat.items() if not np.asarray(leaf).any()} == still
    size = sum(leaf.size for leaf in jax.tree.leaves(state))
    moving = sum(leaf.size for path, leaf in flat.items() if path not in still)
    assert size == 2 * moving + 2  # two moments, and two counts of steps


def test_some_layers_of_a_stack_are_frozen():
    learned = learned_of(OptimizerConfig(frozen="layers:2"))
    kept = learned(TREE)
    part = cut(TREE, kept)
    assert part["encoder"]["layers_0"]["a"]["kernel"].shape == (1, 2, 2)
    whole = join(jax.tree.map(lambda a: a + 1, part), jax.tree.map(jnp.asarray, TREE), kept)
    assert np.asarray(whole["encoder"]["layers_0"]["a"]["kernel"])[:, 0, 0].tolist() == [3, 2]
    assert (
        updates(TREE, frozen="layers:2", layer_decay=0.5)["encoder/layers_0/a/kernel"][1] == 0
    ).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frozen": "embedings"}, "optimizer.frozen: unknown part 'embedings'; did you mean 'embed"),
        ({"frozen": "layers:3-1"}, "unknown part 'layers:3-1'; write layers:3 or layers:1-6"),
        ({"frozen": " , "}, "names no part"),
        ({"frozen": "layers:2-9"}, "'layers:2-9': the encoder has layers 1 to 3"),
        ({"frozen": "gate"}, "'gate': the model has no such parameters"),
        ({"frozen": "embeddings,encoder,head"}, "leaves nothing to train"),
        ({"lora_alpha": 4.0}, "optimizer.lora_alpha: not read without low-rank matrices"),
        ({"lora_on": "fc1"}, "optimizer.lora_on: not read without low-rank matrices"),
        ({"lora_rank": 2, "lora_on": "querry"}, "lora_on: unknown value 'querry'; did you mean"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(fields, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(OptimizerConfig(**fields), 10)[0].init(TREE)


def test_ranges():
    for name, value in (("layer_decay", 0.0), ("layer_decay", 1.5), ("lora_rank", 0)):
        with pytest.raises(UserError, match=f"optimizer.{name}"):
            tiny.config(optimizer={name: value})
    with pytest.raises(UserError, match=r"train\.class_weights: .* did you mean 'balanced'"):
        tiny.config(class_weights="balance")
    with pytest.raises(UserError, match=r"optimizer\.lora_rank: 4 is not read by the lab"):
        check_read(tiny.config(optimizer={"lora_rank": 4}), "the lab")


LORA = {"lora_rank": 2, "lora_alpha": 4.0, "lora_on": "query,out,fc1"}


def test_low_rank_begins_as_the_base_and_trains_little():
    made, data = tiny.config(optimizer=LORA, ema=0.9), tiny.dataset()
    model, options, state = started(made, data)
    batch = batch_of(data)
    base = {name: tree for name, tree in state.params.items() if name != "lora"}
    same = model.apply({"params": base}, batch["x"], batch["mask"])
    np.testing.assert_array_equal(
        options.apply({"params": state.params}, batch["x"], batch["mask"]), same
    )
    sizes = {"query": 8 + 8, "out": 8 + 8, "fc1": 8 + 32}  # inputs and outputs
    matrices = sum(2 * 2 * size for size in sizes.values())  # layers, rank
    head = 8 * 3 + 3
    assert sum(a.size for a in jax.tree.leaves(state.params["lora"])) == matrices
    moments = sum(a.size for a in jax.tree.leaves(state.opt_state) if a.ndim)
    assert moments == 2 * (matrices + head)
    new = state
    for _ in range(2):  # B is 0 at first, so that A moves in the second
        new, _ = jax.jit(lambda s: train_step(s, batch, options))(new)
    before, after = (flatten_dict(s.params, sep="/") for s in (state, new))
    moved = {path for path in before if (np.asarray(before[path]) != after[path]).any()}
    assert moved == {path for path in before if path.startswith(("lora/", "head/"))}
    averages = flatten_dict(new.ema, sep="/")
    for path in set(before) - moved:
        np.testing.assert_array_equal(averages[path], before[path])


def test_low_rank_matrices_are_added_to_the_kernels():
    made = tiny.config(optimizer=LORA)
    _, _, state = started(made)
    rng = np.random.default_rng(0)
    params = {**state.params, "lora": jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(np.float32), state.params["lora"]
    )}  # fmt: skip
    merged = LowRank(2, 2.0, ("query", "out", "fc1")).merged({"params": params})["params"]
    assert "lora" not in merged
    flat, new = flatten_dict(params, sep="/"), flatten_dict(merged, sep="/")
    for path, value in new.items():
        expected = np.asarray(flat[path], np.float64)
        if f"lora/{path}/lora_a" in flat:
            a, b = (np.float64(flat[f"lora/{path}/lora_{n}"]) for n in "ab")
            expected = expected + 2.0 * (a @ b).reshape(expected.shape)
        np.testing.assert_allclose(value, expected, atol=1e-5, err_msg=path)


def test_low_rank_mistakes():
    for fields, message in (
        ({"lora_rank": 9}, r"lora_rank: 9: .*query/kernel has at most rank 8; give 8 or less"),
        ({"lora_rank": 2, "lora_on": "gate"}, "lora_on: 'gate': no layer has such a kernel"),
        (
            {"lora_rank": 2, "frozen": "embeddings"},
            "'embeddings': the model has no such parameters",
        ),
    ):
        with pytest.raises(UserError, match=message):
            started(tiny.config(optimizer=fields))


def test_only_what_is_trained_has_a_gradient():
    """The gradient's norm is that of the head alone, and so is what clipping sees."""
    data = tiny.dataset()
    _, options, state = started(tiny.config(optimizer={"frozen": "encoder,embeddings"}), data)
    batch = batch_of(data)
    new, sums = jax.jit(lambda s: train_step(s, batch, options))(state)
    whole = replace(options, learned=None)
    _, all_sums = jax.jit(lambda s: train_step(s, batch, whole))(state)
    assert 0 < float(sums["grad_norm"]) < float(all_sums["grad_norm"])
    for name in ("front_end", "encoder", "positions"):
        jax.tree.map(np.testing.assert_array_equal, state.params[name], new.params[name])
    assert (np.asarray(state.params["head"]["kernel"]) != new.params["head"]["kernel"]).any()


def test_class_weights_against_numpy():
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 2, 2])
    weights = balanced_weights(labels, 4)
    assert weights == (6 / 9, 2.0, 1.0, 0.0)
    logits, rows = rng.normal(size=(6, 4)), np.array([1, 1, 0, 1, 1, 1.0])
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(6), labels]
    found = classification_sums(*map(jnp.asarray, (logits, labels, rows)), 0.0, weights)
    by_row = rows * np.array(weights)[labels]
    np.testing.assert_allclose(found["loss"], losses @ by_row, rtol=1e-5)
    np.testing.assert_allclose(found["mass"], by_row.sum(), rtol=1e-6)
    assert found["count"] == 5


@pytest.mark.table
def test_the_weighted_mean_is_taken_over_all_devices_and_micro_batches():
    """Two micro-batches of unequal classes: the gradient is that of one batch."""
    data = tiny.dataset()
    batch = batch_of(data)
    found = []
    for count in (1, 2):
        made = tiny.config(accumulate=count, class_weights="balanced")
        model = build_model(made, describe(data))
        descent = optax.sgd(1.0)
        options = step_options(model, made.optimizer, made.train, descent, (3.0, 0.5, 1.0))
        variables = init_variables(model, data, (5, 8), 0)
        state = create_state(variables, descent, 0, None, options.names)
        new, sums = jax.jit(lambda s, o=options: train_step(s, batch, o))(state)
        found.append((new.params, sums["loss"] / sums["mass"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


def test_patience_counts_and_is_resumed():
    patience = Patience(2)
    for merit in ((0.5, -1.0), (0.5, -0.9), (0.4, -0.1)):
        patience.saw(merit)
        assert not patience.over
    again = Patience(2)
    again.resume(patience.note())
    assert not again.over
    again.saw((0.5, -0.9))  # as good is not better
    assert again.over
    assert Patience(None).note() == {}
    assert not Patience(None).over


def test_learned_is_hashable():
    assert hash(Learned(("norms",))) == hash(learned_of(OptimizerConfig(frozen="norms,norms")))


def run_of(made, data, place, steps, stop_after=None, monkeypatch=None):
    """Train as a run does; end as a kill would after so many batches of this sitting."""
    _model, options, state = started(made, data)
    weights = balanced_weights(data.train.y, 3) if made.train.class_weights != "none" else None
    options = replace(options, class_weights=weights, log_every=made.train.log_every)
    state = create_state(
        {"params": state.params}, options.optimizer, 0, made.train.ema, options.names
    )
    run, _ = tiny.run(replace(made, optimizer=OptimizerConfig()), data, place, 1, steps)
    run.parallel = tiny.DataParallel(options, jax.local_devices()[:1])
    state = run.parallel.replicate(state)
    if stop_after is None:
        return loop.train_seed(run, 0, state, steps), run
    real = loop.iterate

    def stopping(batches, start, *more):
        for index, batch in real(batches, start, *more):
            if index == start + stop_after:
                raise KeyboardInterrupt
            yield index, batch

    with monkeypatch.context() as patched:
        patched.setattr(loop, "iterate", stopping)
        with pytest.raises(KeyboardInterrupt):
            loop.train_seed(run, 0, state, steps)
    return None


SHORT = {
    "source": "listops", "min_length": 4, "max_length": 16, "max_depth": 2, "max_args": 3,
    "train": 64, "valid": 8, "test": 16, "seed": 0, "cache": "",
}  # fmt: skip
FINE_TUNING = {
    "low rank": {"optimizer": LORA},
    "frozen, by layer": {"optimizer": {"frozen": "layers:1,embeddings", "layer_decay": 0.7}},
    "class weights": {"class_weights": "balanced"},
}


@pytest.mark.table
@pytest.mark.parametrize("case", FINE_TUNING)
def test_a_killed_run_goes_on_with_the_same_bits(case, tmp_path, monkeypatch):
    fields = {"checkpoint_every": 5, "log_every": 3, "ema": 0.9, **FINE_TUNING[case]}
    made, data = tiny.config(model={"dropout": 0.2}, **fields), tiny.dataset()
    whole, _ = run_of(made, data, tmp_path / "whole", 12)
    run_of(made, data, tmp_path / "killed", 12, 8, monkeypatch)
    again, _ = run_of(made, data, tmp_path / "killed", 12)
    assert params_sha256(again.params) == params_sha256(whole.params)
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]


@pytest.mark.table
def test_training_stops_early_and_a_killed_run_at_the_same_step(tmp_path, monkeypatch):
    """A rate of almost nothing: the first evaluation stays the best, or the next ones tie."""
    made = tiny.config(
        optimizer={"learning_rate": 1e-12},
        patience=2, evaluate_every=2, checkpoint_every=3, log_every=4, select="best",
    )  # fmt: skip
    data = tiny.dataset()
    whole, run = run_of(made, data, tmp_path / "whole", 40)
    stopped = whole.counts["stopped_at"]
    assert stopped is not None
    assert stopped < 40
    assert stopped % 2 == 0
    assert run.log.rows()[-1]["step"] == stopped
    run_of(made, data, tmp_path / "killed", 40, stopped - 1, monkeypatch)
    again, _ = run_of(made, data, tmp_path / "killed", 40)
    assert again.counts == whole.counts
    assert again.step == whole.step
    assert params_sha256(again.params) == params_sha256(whole.params)
    # It has ended: once more nothing is trained.
    log = (tmp_path / "killed" / "metrics.jsonl").read_text()
    assert log == (tmp_path / "whole" / "metrics.jsonl").read_text()
    once_more, _ = run_of(made, data, tmp_path / "killed", 40)
    assert once_more.counts == whole.counts
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == log
    never, _ = run_of(
        replace(made, train=replace(made.train, patience=50)), data, tmp_path / "n", 6
    )
    assert never.counts["stopped_at"] is None


@pytest.mark.table
def test_a_run_of_low_rank_is_merged_when_it_is_loaded(tmp_path):
    """The whole way: trained, scored, loaded again, predicted; plain parameters come out."""
    made = tiny.config(steps=3, optimizer=LORA, class_weights="balanced", batch_size=8)
    quiet = Console(quiet=True)
    made = replace(made, devices=1, data=SHORT)
    report = run_experiment(made, tmp_path / "run", quiet)
    trained = load_trained(tmp_path / "run")
    assert "lora" not in trained.params
    rows = trained.dataset().test
    found = score(trained.log_probs(rows), rows.y, trained.classes)
    assert found["log_loss"] == pytest.approx(report["seeds"][0]["log_loss"], rel=1e-5)
