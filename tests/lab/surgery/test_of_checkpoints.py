"""Surgery straight from the folder of a checkpoint: texts without labels, vectors compared."""

import json

import numpy as np
import pytest
from pretrained_folder import make_checkpoint

import resnorm_jax as rn
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.config import OptimizerConfig
from resnorm_jax.lab.surgery.compare import of_probabilities, of_vectors
from resnorm_jax.lab.surgery.distill import Outputs, Recipe, distillation_loss

TEXTS = ["good fun", "bad day", "good day a fun", "bad bad fun", "a good one", "a bad", "fun"] * 5


@pytest.fixture
def headless(tmp_path):
    """A tiny BERT whose config.json says that it has no classifier, and texts without labels."""
    folder = make_checkpoint(tmp_path / "tiny")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "architectures": ["BertModel"]}))
    (tmp_path / "texts.csv").write_text("\n".join(["text", *TEXTS]))
    return folder


def test_vectors_are_compared():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(6, 4))
    after = before + 0.3 * rng.normal(size=(6, 4))
    found = of_vectors(before, after)
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(before, after, strict=True)]
    assert found["cosine"] == pytest.approx(np.mean(cosines))
    assert found["error"] == pytest.approx(((after - before) ** 2).sum() / (before**2).sum())
    assert found["largest"] == pytest.approx(np.abs(after - before).max())
    nearest = []
    for rows in (before, after):
        units = [row / np.sqrt(row @ row) for row in rows]
        nearest.append([
            max((j for j in range(6) if j != i), key=lambda j: units[i] @ units[j])
            for i in range(6)
        ])  # fmt: skip
    assert found["nearest"] == pytest.approx(np.equal(*nearest).mean())
    assert of_vectors(before, before)["nearest"] == 1


def test_rows_without_labels_have_no_accuracy():
    log_probs = np.log([[0.7, 0.3], [0.2, 0.8]])
    labelled = of_probabilities(np.array([0, 1]), ("a", "b"))(log_probs, log_probs)
    assert labelled["accuracy"] == 1
    unlabelled = of_probabilities(np.array([0, -1]), ("a", "b"))(log_probs, log_probs)
    assert set(unlabelled) == {"agreement", "kl", "largest"}


def test_the_loss_of_vectors_and_positions_is_that_of_the_equation():
    rng = np.random.default_rng(0)
    (s, t), (es, et) = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 5, 6))
    weight, valid = np.array([1, 1, 0, 1.0]), np.arange(5) < np.array([5, 2, 4, 1])[:, None]
    es[~valid] = np.nan
    each = weight[:, None] * valid
    error = ((s - t) ** 2).sum(-1) @ weight / ((t**2).sum(-1) @ weight)
    inner = np.nansum((es - et) ** 2 * each[..., None]) / (et**2 * each[..., None]).sum()
    student, teacher = (Outputs(v, v, e, valid.astype(float)) for v, e in ((s, es), (t, et)))
    recipe = Recipe(1, OptimizerConfig(), temperature=None, positions=0.5)
    found = distillation_loss(student, teacher, weight, recipe)
    assert float(found) == pytest.approx(error + 0.5 * inner, rel=1e-5)


@pytest.mark.table
@pytest.mark.parametrize("to", ["norm=rms --widen", "norm=dyt --positions=1"])
def test_the_command(headless, tmp_path, to, capsys):
    out, change = tmp_path / "out", f"--to={to}".split()
    command = ["lab", "surgery", str(headless), f"--data={tmp_path / 'texts.csv'}", *change]
    rest = ["--steps=10", "--learning-rate=1e-3", "--batch-size=8", f"--output={out}"]
    assert resnorm([*command, *rest]) == 0
    report = json.loads((out / "surgery.json").read_text())
    assert report["test_rows"] == 7
    before, after, end = (stage["mean"] for stage in report["stages"])
    assert (before["error"], before["nearest"]) == (0, 1)
    assert before["cosine"] == pytest.approx(1)
    if "widen" in to:
        assert after["largest"] < 1e-5
    else:
        assert after["error"] > end["error"] > 0
    assert "error (%)" in capsys.readouterr().out
    assert "nothing has labels" in (out / "surgery.html").read_text()


@pytest.mark.table
def test_a_checkpoint_with_classes_is_compared_by_them(tmp_path):
    folder = make_checkpoint(tmp_path / "tiny")
    (tmp_path / "texts.csv").write_text("\n".join(["text", *TEXTS]))
    command = ["lab", "surgery", str(folder), f"--data={tmp_path / 'texts.csv'}", "--to=norm=rms"]
    assert resnorm([*command, "--widen", "--steps=0", f"--output={tmp_path / 'out'}"]) == 0
    report = json.loads((tmp_path / "out" / "surgery.json").read_text())
    before, after = (stage["mean"] for stage in report["stages"])
    assert set(before) == {"agreement", "kl", "largest"}
    assert after["largest"] < 1e-5
    model, variables = rn.from_pretrained(folder)
    assert model.classes == 3
    assert "head" in variables["params"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--data: not given"),
        (["--data=nowhere.csv"], "nowhere.csv"),
        (["--data={texts}", "--temperature=2"], "--temperature: not read of a checkpoint"),
        (["--data={texts}", "--checkpoint=best"], "--checkpoint: not read with a checkpoint"),
        (["--data={texts}", "--text-column=txet"], "txet"),
        (["--data={texts}", "--max-length=2"], "max_length: 2 leaves no room"),
        (["--data={few}"], "too few texts"),
    ],
)
def test_mistakes_are_one_line(headless, tmp_path, capsys, flags, message):
    (tmp_path / "few.csv").write_text("text\ngood fun\nbad day\n")
    paths = {"texts": tmp_path / "texts.csv", "few": tmp_path / "few.csv"}
    out = tmp_path / "out"
    flags = [flag.format(**paths) for flag in flags]
    command = ["lab", "surgery", str(headless), "--to=norm=rms", *flags, f"--output={out}"]
    assert resnorm(command) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not out.exists()
