"""The table of claims: rows, bands, short trainings, the document, the page and the command."""

import dataclasses
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import resnorm_jax
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.errors import UserError
from resnorm_jax.lab.problems import Problem, Rows
from resnorm_jax.lab.theory import (
    curse_of_depth,
    norms_compared,
    rezero_training,
    short_training,
    warmup,
)
from resnorm_jax.lab.theory.claim import Bound, Claim, Line, Measured, Panel
from resnorm_jax.lab.theory.report import measured_words, page, print_table, summary
from resnorm_jax.lab.theory.run import measure_all, measure_claim, rounded
from resnorm_jax.lab.theory.table import CLAIMS, TOPICS, choose
from resnorm_jax.training.step import StepOptions, create_state, train_step

RESULTS = Path(resnorm_jax.__file__).parent / "lab" / "results" / "theory_cpu.json"
each_claim = pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)


# --- Rows ---


def test_the_table_has_every_topic_and_no_id_twice():
    assert len(CLAIMS) == sum(len(topic.CLAIMS) for topic in TOPICS) >= 20
    assert sum(claim.seconds for claim in CLAIMS.values()) < 20 * 60


@each_claim
def test_a_row_says_what_is_claimed_by_whom_and_how_it_is_measured(claim):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", claim.id)
    assert claim.statement.endswith(".")
    assert re.search(r"arXiv \d{4}\.\d{5}", claim.source)
    assert re.search(r"theorem|lemma|abstract|section|figure|table", claim.source)
    assert claim.setup
    assert claim.reading.endswith(".")
    assert claim.why
    assert claim.seeds >= 3
    assert claim.command == f"resnorm lab theory --only={claim.id}"


@each_claim
def test_each_bound_is_seen_to_hold_and_to_fail(claim):
    inside = {b.number: middle(b) for b in claim.bounds}
    assert claim.holds(inside)
    for bound in claim.bounds:
        for outside in (bound.low - 1e-3, bound.high + 1e-3, math.nan):
            if not math.isinf(outside):
                assert not claim.holds({**inside, bound.number: outside})
                assert not claim.holds({**inside, bound.number: [inside[bound.number], outside]})
        assert claim.holds({**inside, bound.number: [inside[bound.number]] * 3})
        assert not claim.holds({**inside, bound.number: []})
    for bound in claim.bounds:
        for edge in (bound.low, bound.high):
            if not math.isinf(edge):
                assert f"{edge:g}" in claim.band


def middle(bound):
    low, high = bound.low, bound.high
    if math.isinf(low):
        return high - 1e-6 if high <= 0 else high / 2
    return low + 1.0 if math.isinf(high) else (low + high) / 2


def test_words_of_a_bound():
    assert Bound("a_b", 1, 2).words == "a b in [1, 2]"
    assert Bound("a", high=0.5).words == "a at most 0.5"
    assert Bound("a", low=-3).words == "a at least -3"


def test_choose_by_id_keeps_the_order_given_and_names_the_nearest():
    assert [claim.id for claim in choose(("mhc_gain", "keel_gradient"))] == [
        "mhc_gain",
        "keel_gradient",
    ]
    assert choose() == tuple(CLAIMS.values())
    with pytest.raises(
        UserError, match=r"--only: unknown value 'mhc_gian'; did you mean 'mhc_gain'"
    ):
        choose(("mhc_gian",))


# --- The committed results are of this table ---


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def committed(claim, results):
    """The claim's row; a claim that is newer than the results has none."""
    rows = [row for row in results["claims"] if row["id"] == claim.id]
    if not rows:
        pytest.skip("not among the committed results")
    assert len(rows) == 1
    return rows[0]


@each_claim
def test_the_committed_results_are_of_this_row(claim, results):
    row = committed(claim, results)
    for name in ("statement", "source", "band", "setup", "command"):
        assert row[name] == getattr(claim, name)
    assert {bound.number for bound in claim.bounds} <= set(row["numbers"])
    assert claim.holds(row["numbers"]) == (row["verdict"] == "reproduced")
    assert len(row["seeds"]) == claim.seeds
    assert row["panels"]


def test_at_least_twelve_claims_were_reproduced_in_under_twenty_minutes(results):
    verdicts = [row["verdict"] for row in results["claims"]]
    assert results["reproduced"] == verdicts.count("reproduced") >= 12
    assert results["measured"] == len(verdicts)
    assert results["processor_seconds"] < 20 * 60  # other programs ran beside it
    assert {"date", "device", "cores", "versions"} <= set(results)


# --- Short trainings ---

TINY = short_training.Recipe(depth=1, width=8, heads=2, mlp_width=8, batch=4, steps=3)


@pytest.fixture
def tiny_task(monkeypatch):
    """Twelve rows of five positions and three channels, some shorter, two classes."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5, 3)).astype(np.float32), np.arange(12) % 2
    mask = np.arange(5) < (3 + np.arange(12) % 3)[:, None]
    rows = Rows(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask))
    task = Problem("tiny", "features", rows, rows, 2, 0, 0.5)
    monkeypatch.setattr(short_training, "load_task", lambda name: task)
    return task


def test_warm_up_rises_to_the_peak_and_stays():
    np.testing.assert_allclose(short_training.warm(2.0, 4, 6), [0.5, 1, 1.5, 2, 2, 2])
    np.testing.assert_allclose(short_training.warm(2.0, 0, 3), [2, 2, 2])


@pytest.mark.table
def test_runs_are_the_trainers_own_steps_seed_by_seed(tiny_task):
    model = short_training.classifier("post_ln", "layer", TINY)
    rates = [short_training.warm(1e-2, 2, 3), short_training.warm(3e-2, 0, 3)]
    runs = short_training.train_runs(model, TINY, rates, [4, 7])
    assert runs.loss.shape == (2, 3)
    x, y, mask = tiny_task.train
    adam = optax.scale_by_adam()

    @jax.jit
    def step(state, batch, rate):
        optimizer = optax.chain(adam, optax.scale(-rate))
        return train_step(state, batch, StepOptions(model.apply, optimizer))

    init = jax.jit(lambda key: model.init(key, x[:1], mask[:1]))
    for run, (seed, rate) in enumerate(zip((4, 7), rates, strict=True)):
        key = jax.random.key(seed)
        first = init(jax.random.fold_in(key, short_training.INIT_KEY))
        state = create_state(first, optax.chain(adam, optax.scale(1.0)), 0, None)
        for count in range(3):
            rows = jax.random.randint(jax.random.fold_in(key, count), (4,), 0, 12)
            batch = {"x": x[rows], "y": y[rows], "mask": mask[rows], "weight": jnp.ones(4)}
            state, sums = step(state, batch, rate[count])
            np.testing.assert_allclose(runs.loss[run, count], sums["loss"] / 4, rtol=1e-4)
        logits = np.asarray(model.apply({"params": state.params}, x, mask), np.float64)
        assert runs.train_accuracy[run] == pytest.approx((logits.argmax(-1) == y).mean())
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert runs.train_loss[run] == pytest.approx(-logs[np.arange(12), y].mean(), rel=1e-3)


@pytest.mark.table
def test_what_prepares_a_model_is_what_is_trained(tiny_task):
    model = short_training.classifier("t_fixup", "layer", TINY)
    still = [np.zeros(1)]
    recipe = dataclasses.replace(TINY, steps=1)
    plain = short_training.train_runs(model, recipe, still, [0])
    scaled = short_training.train_runs(model, recipe, still, [0], warmup.small_embedding)
    gain = 9**-0.25  # (9 N)^(-1/4), one layer
    for name, share in (("front_end", gain), ("head", 1.0)):
        before, after = (jax.tree.leaves(r.variables["params"][name]) for r in (plain, scaled))
        for a, b in zip(before, after, strict=True):
            np.testing.assert_allclose(share * a, b, rtol=1e-5)


@pytest.mark.table
def test_batch_norm_keeps_its_statistics(tiny_task):
    model = short_training.classifier("post_ln", "batch", TINY)
    runs = short_training.train_runs(model, TINY, [short_training.warm(1e-2, 0, 3)], [0])
    moved = jax.tree.leaves(runs.variables["batch_stats"])
    assert any(np.abs(leaf).max() > 0 for leaf in moved)
    assert np.isfinite(runs.loss).all()


def fake_runs(accuracy, steps=300):
    accuracy = np.asarray(accuracy, np.float64).ravel()
    loss = np.full((len(accuracy), steps), 2.0)
    return short_training.Runs(loss, accuracy, 1 - accuracy, accuracy, {})


def test_warm_up_numbers(monkeypatch):
    given = {
        "post_ln": [[0.9] * 3, [0.9] * 3, [0.1, 0.2, 0.9], [0.8] * 3],
        "pre_ln": [[0.95, 0.9, 0.9], [0.9] * 3, [0.85] * 3, [0.9] * 3],
        "t_fixup": [0.9, 0.9, 0.1],
    }
    monkeypatch.setattr(warmup, "runs", lambda name, *_: fake_runs(given[name]))
    post, pre = (f((0, 1, 2)).numbers for f in (warmup.measure_post, warmup.measure_pre))
    assert post["share_at_chance_0.003_warmup_0"] == pytest.approx(2 / 3)
    assert post["share_at_chance_0.003_warmup_200"] == 0
    assert post["gain_by_warmup"] == pytest.approx(0.8 - 0.4)
    assert pre["least_accuracy_without"] == pytest.approx(0.85)
    assert pre["lost_without_warmup"] == pytest.approx([0.9 - 2.75 / 3, 0.05])
    fixup = warmup.measure_t_fixup((0, 1, 2)).numbers
    assert fixup["t_fixup_share_trained"] == pytest.approx(2 / 3)
    assert fixup["post_ln_share_trained"] == pytest.approx(1 / 3)


def test_numbers_of_admin_and_of_the_order_without_warm_up(monkeypatch):
    given = {"post_ln": [0.1, 0.5], "admin": [0.9, 0.9], "pre_ln": [0.9, 0.8], "rezero": [0.7, 0.7]}

    def train(model, *_):
        return fake_runs(given[model])

    for module in (warmup, rezero_training):
        monkeypatch.setattr(module, "classifier", lambda name, *_: name)
        monkeypatch.setattr(module, "train_runs", train)
    admin, order = (
        f((0, 1)).numbers for f in (warmup.measure_admin, rezero_training.measure_order)
    )
    assert (admin["admin_share_trained"], admin["post_ln_share_trained"]) == (1, 0.5)
    assert order["post_ln_loss"] == pytest.approx(0.7)
    assert order["pre_ln_accuracy"] == pytest.approx(0.85)
    assert order["rezero_minus_pre_ln_loss"] == pytest.approx(0.3 - 0.15)


def test_numbers_of_norms_compared_seed_by_seed(monkeypatch):
    given = {"dyt": np.array([0.9, 0.8]), "layer": np.array([0.8, 0.8])}
    monkeypatch.setattr(norms_compared, "scores", lambda row, norm, *_: given[norm])
    found = norms_compared.measure_norms(
        "pre_ln", "dyt", "layer", norms_compared.DIGITS, "apart", (0, 1)
    ).numbers
    assert found["apart"] == pytest.approx(0.05)
    assert found["apart_over_standard_error"] == pytest.approx(1.0)  # sd .0707 over root 2


def test_numbers_of_removed_layers(monkeypatch):
    drop = {"pre_ln": [0.4, 0.2, 0.1, 0.0], "layer_norm_scaling": [0.2, 0.2, 0.1, 0.1]}
    monkeypatch.setattr(
        curse_of_depth, "removal", lambda name, seeds: (np.array([drop[name]]), np.array([0.9]))
    )
    found = curse_of_depth.measure_removal((0,)).numbers
    assert found["pre_ln_deep_over_shallow"] == pytest.approx(0.05 / 0.3)
    assert found["scaled_over_pre"] == pytest.approx(0.5 / (0.05 / 0.3))


# --- Document, table and page ---


def made_claim(measure, **changes):
    fields = {
        "id": "made", "statement": "It is so.", "source": "Nobody 2020 (arXiv 2000.00000), table 1",
        "bounds": (Bound("a", 0, 1),), "measure": measure, "setup": "none", "seeds": 3,
        "seconds": 1.0, "reading": "Look.",
    }  # fmt: skip
    return Claim(**{**fields, **changes})


def measured(value):
    line = Line("x", [1, 2], [0.1, math.nan], [0.0, 0.0], [0.2, 0.2])
    panel = Panel("layers", "size", (line,), ((1, 2), (0, 0), (1, 1)), "x")
    return lambda seeds: Measured({"a": value, "count": [float(s) for s in seeds]}, (panel,))


def test_a_row_of_the_document():
    row = measure_claim(made_claim(measured(0.123456789)))
    assert row["verdict"] == "reproduced"
    assert row["numbers"] == {"a": 0.123457, "count": [0, 1, 2]}
    assert row["panels"][0]["lines"][0]["y"] == [0.1, None]
    assert measured_words(row) == "a 0.123"
    row = measure_claim(made_claim(measured([2.0, 0.5])), seeds=2)
    assert row["verdict"] == "not reproduced"
    assert row["seeds"] == [0, 1]
    assert row["command"].endswith("--only=made --seeds=2")
    assert measured_words(row) == "a 0.5 to 2"
    assert measured_words(measure_claim(made_claim(measured(math.nan)))) == "a not finite"


def test_a_claim_whose_data_are_missing_does_not_cost_the_others():
    def broken(seeds):
        raise UserError("digits: scikit-learn is not installed")

    seen = []
    claims = (made_claim(broken), made_claim(measured(0.5), id="second"))
    document = measure_all(claims, done=lambda row, so_far: seen.append(len(so_far["claims"])))
    assert seen == [1, 2]
    assert (document["reproduced"], document["measured"]) == (1, 1)
    assert document["claims"][0]["why"].startswith("digits")
    assert {"backend", "device", "versions", "resnorm_jax"} <= set(document)
    console = Console(record=True, width=140)
    print_table(document, console)
    text = console.export_text()
    assert "scikit-learn is not installed" in text
    assert "1 of 1 claims reproduced" in text


def test_rounded_keeps_six_digits_in_any_nest():
    assert rounded({"a": [1.23456789, (2,)], "b": np.array([1e-9 / 3]), "c": "x", "d": None}) == {
        "a": [1.23457, [2]], "b": [3.33333e-10], "c": "x", "d": None,
    }  # fmt: skip


def test_the_page_shows_every_claim_with_its_figure():
    document = measure_all((made_claim(measured(0.5)), made_claim(measured(3.0), id="other")))
    text = page(document)
    for row in document["claims"]:
        for part in (row["id"], row["statement"], row["source"], row["band"], row["command"]):
            assert part in text
    assert text.count("<img") == 2
    assert "not reproduced" in text
    assert summary(document) in text
    assert not re.search(r"(src|href)=.https?:", text)


# --- The command ---


def test_one_cheap_claim_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "out"
    assert resnorm(["lab", "theory", "--only=mhc_gain", "--seeds=2", f"--output={out}"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("cpu, ")
    assert "1 of 1 claims reproduced" in printed
    document = json.loads((out / "theory.json").read_text(encoding="utf-8"))
    assert document["claims"][0]["numbers"]["gain_unconstrained"] > 100
    assert "<svg" not in (out / "theory.html").read_text(encoding="utf-8")
    assert "data:image/svg+xml" in (out / "theory.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only=mhc_gian"], "did you mean 'mhc_gain'?"),
        (["--seeds=0"], "--seeds: 0 is out of range; give a value from 1"),
        (["--seeds=two"], "see resnorm lab theory --help"),
        (["--onyl=mhc_gain"], "see resnorm lab theory --help"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert resnorm(["lab", "theory", *arguments, f"--output={out}"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not out.exists()


def test_an_output_that_is_a_file_is_left_alone(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    assert resnorm(["lab", "theory", "--only=mhc_gain", f"--output={file}"]) == 2
    assert "is a file; name a directory" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_list_measures_nothing(capsys):
    assert resnorm(["lab", "theory", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CLAIMS)


# --- All of it ---


@pytest.mark.slow
@each_claim
def test_a_claim_measured_again_has_the_committed_verdict(claim, results):
    row = committed(claim, results)
    assert measure_claim(claim)["verdict"] == row["verdict"]
