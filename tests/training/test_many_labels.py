"""Runs on rows that have any number of labels: loss, log, report, and all that is done with them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit
from sklearn import metrics

import resnorm_jax as rn
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.data import Dataset, Examples
from resnorm_jax.errors import UserError
from resnorm_jax.training.losses import label_sums
from resnorm_jax.training.run_data import ONE_EACH, labels_line
from resnorm_jax.training.saving import merit
from resnorm_jax.training.tasks import MANY, SINGLE, task_of


def test_sums_against_numpy():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(6, 4)), (rng.random((6, 4)) < 0.4).astype(np.int32)
    weight = np.array([1, 1, 1, 1, 1, 0.0])
    found = label_sums(*map(jnp.asarray, (z, y, weight)), 0.1)
    target = 0.9 * y + 0.05
    losses = -(target * log_expit(z) + (1 - target) * log_expit(-z)).mean(1)
    np.testing.assert_allclose(found["loss"], (losses * weight).sum(), rtol=1e-6)
    said = z[:5] >= 0
    assert float(found["count"]) == 5
    assert float(found["correct"]) == (said == y[:5]).all(1).sum()
    f1 = 2 * found["hits"] / (found["said"] + found["true"])
    np.testing.assert_allclose(f1, metrics.f1_score(y[:5], said, average="micro"), rtol=1e-6)
    plain = label_sums(*map(jnp.asarray, (z, y, weight)))
    gradient = jax.grad(lambda a: label_sums(a, jnp.asarray(y), jnp.asarray(weight))["loss"])
    wanted = (expit(z) - y) / 4 * weight[:, None]
    np.testing.assert_allclose(gradient(jnp.asarray(z)), wanted, atol=1e-6)
    assert set(plain) == set(MANY.names)


def test_the_task_is_a_row():
    assert task_of({}) is SINGLE
    assert task_of({"task": "multi_label"}) is MANY
    assert merit({"accuracy": 0.5, "loss": 1.0}) == (0.5, -1.0)
    assert merit({"accuracy": 0.5, "loss": 1.0, "micro_f1": 0.7}) == (0.7, -1.0)


@pytest.mark.parametrize(
    ("y", "warned"),
    [
        (np.eye(3, dtype=np.int32), True),  # one-hot classes
        (np.array([[1, 0], [1, 1]], np.int32), False),
        (np.array([[1, 0], [0, 0]], np.int32), False),
        (np.array([[1, 1], [0, 0]], np.int32), False),  # one a row in the mean
    ],
)
def test_classes_as_one_hot_vectors_are_told(y, warned):
    x = np.zeros((len(y), 2, 1), np.float32)
    examples = Examples(x, np.full(len(y), 2, np.int32), y)
    names = tuple("abc"[: y.shape[1]])
    found = labels_line(Dataset("made", "features", examples, examples, names))
    assert found[0].startswith(f"labels: {y.sum() / len(y):.2f} a training row; ")
    assert found[1:] == ((ONE_EACH,) if warned else ())


WORDS = {"joy": "glad", "rage": "angry", "sad": "tears"}


def rows(count, seed):
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        labels = [name for name in WORDS if rng.random() < 0.4]
        words = [WORDS[name] for name in labels] + ["the", "day", str(i % 5)]
        made.append({"text": " ".join(rng.permutation(words)), "label": labels})
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for name, count in (("train", 160), ("test", 40)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows(count, count))))
    settings = {
        "data.test": str(folder / "test.jsonl"), "data.labels": "many", "model.width": 16,
        "model.depth": 1, "model.heads": 2, "train.epochs": 30, "train.batch_size": 16,
        "train.validation": 0.2, "train.threshold": "validation", "train.select": "best",
        "optimizer.learning_rate": 0.02, "devices": 1,
    }  # fmt: skip
    config = rn.load_config(f"text:train={folder}/train.jsonl", settings)
    report = rn.train(config, folder / "run")
    return folder, config, report


@pytest.mark.table
def test_the_report_of_a_run(run):
    folder, _, report = run
    assert report == json.loads((folder / "run" / "report.json").read_text())
    assert report["micro_f1"] > 0.95
    rule = report["baselines"]["majority of each label"]
    assert rule["micro_f1"] == 0  # no label is had by most rows
    assert report["majority"] == rule["accuracy"] < report["accuracy"]
    seed = report["seeds"][0]
    assert [row["class"] for row in seed["per_class"]] == ["joy", "rage", "sad"]
    assert [row["threshold"] for row in seed["per_class"]] == seed["calibration"]["thresholds"]
    assert (folder / "run" / "labels.png").exists()
    assert not (folder / "run" / "confusion.png").exists()
    log = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"micro_f1", "accuracy", "loss"} <= set(log[-1]) | set(log[-2])
    # A label's loss before it has learned anything is that of a coin.
    assert 0.3 < next(r for r in log if r["split"] == "train")["loss"] < 1


@pytest.mark.table
def test_what_is_done_with_a_run(run, capsys):
    folder, config, report = run
    assert resnorm(["evaluate", str(folder / "run"), f"--output={folder}/s.json"]) == 0
    scores = json.loads((folder / "s.json").read_text())
    for name in ("accuracy", "micro_f1", "macro_f1", "average_precision", "log_loss"):
        np.testing.assert_allclose(scores[name], report[name], rtol=1e-5)
    trained = rn.load_run(folder / "run")
    texts = ["glad tears the day", "the day", "angry"]
    found = trained.predict(texts)
    assert found.tolist() == [("joy", "sad"), (), ("rage",)]
    p = trained.predict_proba(texts)
    capsys.readouterr()
    command = ["predict", str(folder / "run"), *(f"--text={t}" for t in texts)]
    assert resnorm([*command, "--calibrated=false"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row,labels,p(joy),p(rage),p(sad)"
    assert lines[1].startswith(f"1,joy; sad,{round(float(p[0, 0]), 6)},")
    assert lines[2].startswith("2,,")
    assert resnorm([*command, "--top=2", f"--output={folder}/p.jsonl"]) == 0
    first = json.loads((folder / "p.jsonl").read_text().splitlines()[0])
    assert set(first) == {"row", "labels", "top"}
    assert first["labels"] == ["joy", "sad"]
    assert {one["class"] for one in first["top"]} == {"joy", "sad"}
    again = rn.train(config, folder / "run")  # nothing to do
    assert again["params_sha256"] == report["params_sha256"]


@pytest.mark.table
def test_an_export_says_the_same(run):
    folder, _, _ = run
    assert resnorm(["export", str(folder / "run"), f"--output={folder}/out"]) == 0
    exported, trained = rn.load_exported(folder / "out"), rn.load_run(folder / "run")
    texts = ["glad tears the day", "the day", "angry"]
    assert exported.predict(texts).tolist() == trained.predict(texts).tolist()
    for calibrated in (False, True)[: 1 + (trained.temperature is not None)]:
        np.testing.assert_allclose(
            exported.predict_proba(texts, calibrated=calibrated),
            trained.predict_proba(texts, calibrated=calibrated), atol=1e-6,
        )  # fmt: skip
    assert exported.about["thresholds"] == list(trained.thresholds)


@pytest.mark.table
def test_commands_that_want_one_label_say_so(run, capsys):
    folder, _, _ = run
    config = f"--config=text:train={folder}/train.jsonl,labels=many"
    for command in (
        ["lab", "certify", config],
        ["lab", "prune", str(folder / "run"), f"--output={folder}/prune"],
        ["predict", str(folder / "run"), "--text=a", f"--explain={folder}/e.html"],
    ):
        assert resnorm(command) == 2
        told = capsys.readouterr().err.strip()
        assert "any number of labels" in told
        assert "\n" not in told


def test_fields_that_are_not_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows(20, 0))))
    many = rn.load_config(
        f"text:train={tmp_path}/a.jsonl", {"data.labels": "many", "train.class_weights": "balanced"}
    )
    with pytest.raises(
        UserError, match=r"^config.train.class_weights: 'balanced' is not read where"
    ):
        rn.train(many, tmp_path / "run")
    one = rn.load_config("digits:smoke", {"train.threshold": 0.3})
    with pytest.raises(UserError, match=r"^config.train.threshold: 0.3 is not read where each row"):
        rn.train(one, tmp_path / "run")
    for how in ("validation", "validation_micro"):
        none = {"data.labels": "many", "train.threshold": how}
        with pytest.raises(UserError, match=f"^config.train.threshold: '{how}' needs validation"):
            rn.train(rn.load_config(f"text:train={tmp_path}/a.jsonl", none), tmp_path / "run")
    with pytest.raises(UserError, match=r"^config.train.threshold: 'half' is not a number or"):
        rn.load_config("digits:smoke", {"train.threshold": "half"})
    assert not (tmp_path / "run").exists()
