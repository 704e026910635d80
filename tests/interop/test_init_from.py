"""Runs that start from a checkpoint's weights: the model is the checkpoint's, the head is new."""

import hashlib
import json
import re
import shutil

import jax
import numpy as np
import pytest
from hugging_face import tiny
from pretrained_folder import make_checkpoint, words_of

import resnorm_jax as rn
from resnorm_jax.errors import UserError
from resnorm_jax.interop.init_from import checked_config

TEXTS = ["good fun", "bad day", "good food", "bad film", "a good one", "a bad one"] * 4


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny BERT with a tokenizer of words."""
    return make_checkpoint(tmp_path / "tiny")


def config(tmp_path, checkpoint, **settings):
    rows = [{"text": t, "label": "yes" if "good" in t else "no"} for t in TEXTS]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    base = {
        "train.batch_size": 8, "train.steps": 2, "devices": 1, "init_from": str(checkpoint),
        "train.evaluate_every": 2, "train.log_every": 1,
    }  # fmt: skip
    return rn.load_config(f"finetune:train={path}", {**base, **settings})


def test_a_config_takes_the_checkpoints_model(tmp_path, checkpoint):
    made = config(tmp_path, checkpoint)
    model = made.model
    assert (model.width, model.depth, model.heads, model.mlp_width) == (16, 3, 2, 24)
    assert (model.arrangement, model.pooling, model.head_activation) == ("post_ln", "first", "tanh")
    assert (model.vocabulary, model.token_types, model.separator) == (40, 2, 3)
    assert config(tmp_path, checkpoint, **{"model.pooling": "mean"}).model.pooling == "mean"
    with pytest.raises(UserError, match=r"^config\.model\.width: 32, but .* with 16; leave the"):
        config(tmp_path, checkpoint, **{"model.width": 32})
    with pytest.raises(UserError, match=r"^config\.init_from: .*config\.json: .*folder of a"):
        config(tmp_path, tmp_path / "nowhere")


def test_a_run_notes_which_weights_it_started_from(tmp_path, checkpoint):
    made = config(tmp_path, checkpoint)
    file = checkpoint / "model.safetensors"
    inner = hashlib.sha256(file.read_bytes()).digest()
    assert made.init_sha256 == hashlib.sha256(inner).hexdigest()
    pinned = {"init_sha256": made.init_sha256}
    assert config(tmp_path, checkpoint, **pinned) == made
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert config(tmp_path, checkpoint).init_sha256 != made.init_sha256
    with pytest.raises(UserError, match=r"^config\.init_sha256: .*but that of the weights"):
        config(tmp_path, checkpoint, **pinned)
    with pytest.raises(UserError, match=r"^config\.init_sha256: not read without init_from"):
        rn.load_config("digits:smoke", pinned)


def same_but_for_the_head(mine, theirs):
    assert set(mine) == set(theirs)
    for name in set(mine) - {"head"}:
        for a, b in zip(*map(jax.tree.leaves, (mine[name], theirs[name])), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.table
@pytest.mark.parametrize("family", ["bert", "mpnet", "albert", "roformer"])
def test_a_run_starts_from_the_weights_and_goes_back(tmp_path, family, capsys):
    import torch
    import transformers

    from resnorm_jax.cli.main import main

    checkpoint = make_checkpoint(tmp_path / "tiny", family)
    ids = {word: n for n, word in enumerate(words_of(family))}
    made = config(tmp_path, checkpoint, **{"optimizer.learning_rate": 1e-12})
    rn.train(made, tmp_path / "run")
    run = rn.load_run(tmp_path / "run")
    # Weights of the body are the checkpoint's; the head for two classes is new.
    _, variables = rn.from_pretrained(checkpoint, classes=2)
    same_but_for_the_head(run.params, variables["params"])
    assert run.params["head"]["kernel"].shape == (16, 2)
    # As a checkpoint of transformers: the same probabilities from the same texts.
    assert main(["convert", str(tmp_path / "run"), f"--output={tmp_path / 'hf'}"]) == 0
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    found = tokenizer(["good fun", "a thing of a day"], padding=True, return_tensors="pt")
    pad, unknown = ids["[PAD]"], ids["[UNK]"]
    assert found["input_ids"].tolist() == [
        [2, 4, 6, 3, pad, pad, pad],
        [2, 8, unknown, unknown, 8, 7, 3],
    ]
    with torch.no_grad():
        theirs = back(**found).logits.softmax(-1).numpy()
    ours = run.predict_proba(["good fun", "a thing of a day"])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert [back.config.id2label[n] for n in range(2)] == list(run.classes)
    assert main(["convert", str(tmp_path / "run"), f"--output={tmp_path / 'hf'}"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.table
@pytest.mark.parametrize("family", ["vit", "deit", "deit-with-teacher", "beit"])
def test_a_run_on_images_starts_from_the_weights_and_goes_back(tmp_path, family):
    import torch

    from resnorm_jax.cli.main import main

    theirs = tiny(family, num_channels=1, image_size=8)
    theirs.save_pretrained(tmp_path / "tiny")
    made = checked_config({
        "data": {"source": "digits", "view": "image"}, "init_from": str(tmp_path / "tiny"),
        "optimizer": {"learning_rate": 1e-12}, "devices": 1,
        "train": {"batch_size": 8, "steps": 2, "scale": False},
    })  # fmt: skip
    rn.train(made, tmp_path / "run")
    run = rn.load_run(tmp_path / "run")
    _, variables = rn.from_pretrained(tmp_path / "tiny", classes=10)
    same_but_for_the_head(run.params, variables["params"])
    assert main(["convert", str(tmp_path / "run"), f"--output={tmp_path / 'hf'}"]) == 0
    model, variables = rn.from_pretrained(tmp_path / "hf")
    for a, b in zip(*map(jax.tree.leaves, (variables["params"], run.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    back = type(theirs).from_pretrained(tmp_path / "hf").eval()
    images = np.random.default_rng(0).uniform(size=(3, 8, 8, 1)).astype(np.float32)
    with torch.no_grad():
        expected = back(torch.tensor(images.transpose(0, 3, 1, 2))).logits.numpy()
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), expected, atol=1e-5)
    assert [back.config.id2label[n] for n in range(10)] == list(run.classes)


@pytest.mark.table
def test_any_number_of_labels_in_the_terms_of_transformers(tmp_path, checkpoint):
    """A run goes out with its problem_type, has the same loss there, and comes back."""
    import torch
    import transformers

    from resnorm_jax.cli.main import main
    from resnorm_jax.interop.config_json import describe_checkpoint
    from resnorm_jax.training.losses import label_sums

    names = ("good", "bad", "day")
    rows = [{"text": t, "label": [n for n in names if n in t]} for t in TEXTS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "init_from": str(checkpoint), "train.steps": 2, "train.batch_size": 8, "devices": 1,
        "data.labels": "many",
    }  # fmt: skip
    rn.train(rn.load_config(f"finetune:train={tmp_path}/rows.jsonl", settings), tmp_path / "run")
    assert main(["convert", str(tmp_path / "run"), f"--output={tmp_path / 'hf'}"]) == 0
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    assert back.config.problem_type == "multi_label_classification"
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")(
        ["good fun", "a thing of a day"], padding=True, return_tensors="pt"
    )
    y = np.array([[0, 0, 1], [1, 0, 0]])
    with torch.no_grad():
        theirs = back(**found, labels=torch.tensor(y, dtype=torch.float32))
    ours = rn.load_run(tmp_path / "run").predict_proba(["good fun", "a thing of a day"])
    np.testing.assert_allclose(ours, theirs.logits.sigmoid().numpy(), atol=1e-5)
    loss = label_sums(theirs.logits.numpy(), y, np.ones(2))["loss"] / 2
    np.testing.assert_allclose(loss, theirs.loss.numpy(), rtol=1e-6)
    assert describe_checkpoint(tmp_path / "hf").task == "multi_label"
    assert main(["convert", str(tmp_path / "hf"), f"--output={tmp_path / 'own'}"]) == 0
    assert json.loads((tmp_path / "own" / "resnorm.json").read_text())["task"] == "multi_label"
    with pytest.raises(UserError, match=r"no model.json; .*rn.from_pretrained loads this one"):
        rn.load_exported(tmp_path / "own")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.json").write_text("{}")
    with pytest.raises(UserError, match=r"written by resnorm export, which rn.load_exported loads"):
        rn.from_pretrained(tmp_path / "export")


@pytest.mark.table
def test_a_run_goes_on_without_the_checkpoints_folder(tmp_path, checkpoint, capsys):
    from resnorm_jax.cli import train

    config(tmp_path, checkpoint)  # writes the rows

    def command(steps, name, *more):
        settings = {
            "init_from": checkpoint,
            "train.batch_size": 8,
            "train.steps": steps,
            "devices": 1,
        }
        flags = [f"--config.{field}={value}" for field, value in settings.items()]
        first = f"--config=finetune:train={tmp_path}/rows.jsonl"
        return ["train.py", first, *flags, f"--workdir={tmp_path / name}", *more]

    for steps, name in ((2, "whole"), (4, "whole"), (2, "run")):
        assert train.main(command(steps, name)) == 0
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    shutil.move(checkpoint, tmp_path / "elsewhere")
    assert train.main(command(4, "run")) == 0
    after = json.loads((tmp_path / "run" / "config.json").read_text())
    for name in ("data", "content"):
        assert after[name] == before[name]
    assert after["config"]["init_sha256"] == before["config"]["init_sha256"]
    one, other = (
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "run")
    )
    assert one["params_sha256"] == other["params_sha256"]
    capsys.readouterr()
    for more, message in (
        (["--config.seeds=2"], "config.init_from: no folder .*and seed 1 has no checkpoint yet"),
        (["--config.model.width=32"], "config.model.width: 32, but the weights"),
        (["--config.init_sha256=abc"], "config.init_sha256: abc, but that of the weights"),
    ):
        assert train.main(command(4, "run", *more)) == 2
        assert re.search(message, capsys.readouterr().err)
    assert train.main(command(4, "new")) == 2  # nothing has begun there
    assert "config.init_from: " in capsys.readouterr().err
    # Another checkpoint in its place is noticed.
    shutil.copytree(tmp_path / "elsewhere", checkpoint)
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert train.main(command(4, "run")) == 2
    assert "its config.init_sha256 is" in capsys.readouterr().err


@pytest.mark.table
@pytest.mark.parametrize(
    "family", ["bert", "mpnet", "albert", "roformer", "deit", "deit-with-teacher", "beit"]
)
def test_a_checkpoint_in_our_format_is_the_same_model(tmp_path, family):
    from resnorm_jax.cli.main import main

    tiny(family).save_pretrained(tmp_path / "tiny")
    assert main(["convert", str(tmp_path / "tiny"), f"--output={tmp_path / 'ours'}"]) == 0
    one, other = map(rn.from_pretrained, (tmp_path / "tiny", tmp_path / "ours"))
    assert one[0] == other[0]
    paths = jax.tree_util.tree_leaves_with_path
    for (path, a), (same, b) in zip(paths(one[1]), paths(other[1]), strict=True):
        assert path == same
        np.testing.assert_array_equal(a, b)


@pytest.mark.table
def test_the_losses_are_those_of_torch(tmp_path, checkpoint):
    """Same weights, rows and optimizer: AdamW, decay of matrices alone, clipping, warm-up, linear."""
    from resnorm_jax.bench.finetune_peer import SETTINGS, Sides, beside

    steps = 8
    made = config(
        tmp_path, checkpoint,
        **{**SETTINGS, "train.steps": steps, "optimizer.learning_rate": 2e-4,
           "optimizer.weight_decay": 0.1},
    )  # fmt: skip
    rn.train(made, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    ours = [line["loss"] for line in log if line.get("kind") == "train" or "loss" in line][:steps]
    found = beside(Sides(made, steps), steps)
    assert len(ours) == steps
    assert found["theirs"][-1] < found["theirs"][0]
    np.testing.assert_allclose(ours, found["theirs"], atol=1e-4)
    np.testing.assert_allclose(ours, found["losses"], atol=1e-6)
