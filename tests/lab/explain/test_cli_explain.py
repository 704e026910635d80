"""``resnorm predict --explain`` from end to end, for every kind of input."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnorm_jax.build import build_model
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.data import Examples
from resnorm_jax.lab.explain.explain import explain
from resnorm_jax.lab.explain.page import page, strip
from resnorm_jax.training.saved_run import Trained, load_trained


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "in.npz"
    x = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    np.savez(path, x=x, y=np.array(["1", "2", "3"]))
    return path


@pytest.fixture(scope="module")
def explained(tiny_run, inputs, tmp_path_factory):
    path = tmp_path_factory.mktemp("explained") / "why.html"
    flags = [f"--explain={path}", "--row=3"]
    assert resnorm(["predict", str(tiny_run), str(inputs), *flags]) == 0
    return path


@pytest.mark.table
def test_the_report_says_what_the_model_predicts(explained, tiny_run, inputs):
    found = json.loads(explained.with_suffix(".json").read_text())
    trained = load_trained(tiny_run)
    x = np.load(inputs)["x"]
    rows = Examples(x, np.full(3, 8, np.int32), np.full(3, -1, np.int32))
    log_probs = trained.log_probs(rows)[2]
    told = found["prediction"]
    assert told["class"] == trained.meta["classes"][int(log_probs.argmax())]
    assert told["probability"] == pytest.approx(float(np.exp(log_probs.max())), rel=1e-4)
    assert (told["label"], found["row"]) == ("3", 3)
    assert sum(found["shares"]) == pytest.approx(1)
    assert len(found["shares"]) == len(found["positions"]) == 8
    parts = found["attribution"]
    assert parts["method"] == "direct"
    assert parts["complete"] is True
    assert len(parts["parts"]) == 1 + 2 * 3
    total = parts["start"] + sum(p["contribution"] for p in parts["parts"])
    assert total == pytest.approx(parts["logit"], abs=1e-4)
    assert parts["logit"] == pytest.approx(told["logits"][told["class"]])
    assert sum(p["share"] for p in parts["parts"]) == pytest.approx(1)
    for part in parts["parts"]:
        assert sum(part["by_position"]) == pytest.approx(part["contribution"], abs=1e-6)


@pytest.mark.table
def test_the_page_needs_no_network(explained):
    text = explained.read_text()
    assert "http" not in text.split("</style>")[1]
    assert text.count("data:image/svg+xml") == 3
    for shown in ("Abnar and Zuidema", "left over", 'class="verdict good"', "Elhage"):
        assert shown in text


@pytest.mark.table
def test_predictions_are_written_as_before(tiny_run, inputs, tmp_path):
    plain, beside = tmp_path / "a.csv", tmp_path / "b.csv"
    common = ["predict", str(tiny_run), str(inputs)]
    assert resnorm([*common, f"--output={plain}"]) == 0
    assert resnorm([*common, f"--output={beside}", f"--explain={tmp_path / 'c.html'}"]) == 0
    assert plain.read_bytes() == beside.read_bytes()
    assert json.loads((tmp_path / "c.json").read_text())["row"] == 1


@pytest.mark.table
def test_mistakes_are_one_line_and_nothing_is_written(
    tiny_run, inputs, explained, tmp_path, capsys
):
    (tmp_path / "taken.json").write_text("mine")
    new = f"--explain={tmp_path / 'new.html'}"
    before = explained.read_bytes()
    for flags, message in (
        ([f"--explain={explained}"], "why.html exists; name a new file"),
        ([f"--explain={tmp_path / 'taken.html'}"], "taken.json exists; name a new file"),
        ([f"--explain={tmp_path / 'new.txt'}"], "write to a .html file"),
        ([new, "--row=4"], "--row: 4; the file has rows 1 to 3"),
        ([new, "--row=0"], "--row: 0 must be over 0"),
        (["--row=1"], "--row: not read without --explain"),
    ):
        capsys.readouterr()
        assert resnorm(["predict", str(tiny_run), str(inputs), *flags]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error
    assert explained.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["taken.json"]


def untrained(tiny_run, meta, **model) -> Trained:
    """The tiny run's model for other data, as it is before training."""
    trained = load_trained(tiny_run)
    model = {"kernel": None, **model}
    config = replace(trained.config, model=replace(trained.config.model, **model))
    meta = {**trained.meta, **meta}
    length = meta["max_length"]
    shape = {
        "tokens": (1, length), "images": (1, *meta["shape"]), "features": (1, length, *meta["shape"]),
    }[meta["kind"]]  # fmt: skip
    dtype = jnp.int32 if meta["kind"] == "tokens" else jnp.float32
    built = build_model(config, meta)
    variables = jax.jit(built.init)(jax.random.key(0), jnp.zeros(shape, dtype))
    identity = replace(trained.identity, data=meta)
    return replace(trained, config=config, identity=identity, variables=variables)


@pytest.mark.table
def test_tokens_are_shown_as_text(tiny_run):
    words = ["<pad>", "<b>", "x & y", "z"]
    meta = {"kind": "tokens", "vocabulary": words, "max_length": 6, "shape": []}
    trained = untrained(tiny_run, meta, pooling="cls", depth=1)
    x = np.array([[1, 2, 3, 0, 0, 0], [3, 3, 1, 2, 1, 1]], np.uint8)
    rows = Examples(x, np.array([3, 6], np.int32), np.array([-1, -1], np.int32))
    found = explain(trained, rows, 0)
    assert found["positions"] == ["<b>", "x & y", "z"]  # without padding
    assert found["shares"].sum() + found["class_token_share"] == pytest.approx(1)
    assert 0.4 < found["class_token_share"] < 0.9  # half of it stays by definition
    assert found["prediction"]["label"] is None
    text = page({**found, "run": "run"})
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "class token itself" in text


@pytest.mark.table
def test_images_are_shown_by_patches(tiny_run):
    meta = {"kind": "images", "shape": [6, 8, 1], "max_length": 6}
    trained = untrained(tiny_run, meta, depth=1, patch=2)
    x = np.random.default_rng(0).random((1, 6, 8, 1)).astype(np.float32)
    found = explain(trained, Examples(x, np.array([6], np.int32), np.array([0], np.int32)), 0)
    assert found["grid"] == (3, 4)
    assert len(found["shares"]) == len(found["positions"]) == 12
    assert found["positions"][5] == "row 2, column 2"
    assert page({**found, "run": "run"}).count("data:image/svg+xml") == 3


@pytest.mark.table
def test_a_tokens_share_is_spread_over_the_steps_that_it_sees(tiny_run):
    meta = {"kind": "features", "shape": [2], "max_length": 9}
    trained = untrained(tiny_run, meta, depth=1, kernel=5, stride=3)
    x = np.random.default_rng(0).random((1, 9, 2)).astype(np.float32)
    rows = Examples(x, np.array([7], np.int32), np.array([0], np.int32))
    found = explain(trained, rows, 0)
    assert len(found["shares"]) == len(found["positions"]) == len(found["even_shares"]) == 7
    assert found["positions"][-1] == "step 7"
    assert found["shares"].sum() == pytest.approx(1)
    assert found["shares"][0] == pytest.approx(found["shares"][1])  # of the first token alone
    even = [1 / 15] * 3 + [1 / 15 + 1 / 12] * 2 + [1 / 12, 1 / 12 + 1 / 3]
    np.testing.assert_allclose(found["even_shares"], even)
    assert all(len(p["by_position"]) == 3 for p in found["attribution"]["parts"])
    assert found["attribution"]["complete"]
    text = page({**found, "run": "run"})
    assert "A token stands for 5 steps, and the next begins 3 steps later" in text
    assert text.count("data:image/svg+xml") == 3


def test_the_darkest_token_is_the_largest_share():
    text = strip(["a", "b"], [0.1, 0.4])
    assert '0.250)">a<' in text
    assert '1.000)">b<' in text
