"""One run of texts, trained once for all, and everything that can be done with it."""

import csv
import dataclasses
import io
import json
import sys

import jax
import numpy as np
import pytest
from needs import JAX2ONNX

import resnorm_jax as rn
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.data import Examples
from resnorm_jax.errors import UserError
from resnorm_jax.training.calibration import calibration_file

pytestmark = pytest.mark.table  # one run, trained once for all; in .ci/run by name
TEXTS = ["the plot was good", "honestly , the film was not very dull"]


def config():
    from resnorm_jax.config import experiment

    return experiment(
        data={"source": "sample_text", "train": 60, "test": 20},
        model={"width": 8, "depth": 1, "heads": 2},
        train={"steps": 6, "batch_size": 16, "validation": 0.25, "buckets": 2},
        devices=1,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("use") / "run"
    return folder, rn.train(config(), folder)


def texts(*values):
    return [f"--text={value}" for value in values]


def softmax(z):
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def test_the_report_has_the_temperature_of_the_validation_rows_alone(run):
    from scipy.optimize import minimize_scalar

    folder, report = run
    trained = rn.load_run(folder)
    valid = trained.dataset().valid
    log_probs = trained.log_probs(valid).astype(np.float64)

    def loss(t):
        return -np.log(softmax(log_probs / t)[np.arange(len(valid)), valid.y]).mean()

    best = minimize_scalar(loss, bounds=(0.01, 900), method="bounded", options={"xatol": 1e-9}).x
    found = report["seeds"][0]["calibration"]
    assert found["rows"] == len(valid) == 15
    assert found["temperature"] == pytest.approx(best, rel=1e-3)
    assert trained.temperature == found["temperature"]
    assert found["after"]["log_loss"] == pytest.approx(loss(best), rel=1e-5)


def test_probabilities_are_as_before_unless_calibrated_ones_are_asked_for(run):
    trained = rn.load_run(run[0])
    plain, warm = trained.predict_proba(TEXTS), trained.predict_proba(TEXTS, calibrated=True)
    wanted = softmax(np.log(plain.astype(np.float64)) / trained.temperature)
    np.testing.assert_allclose(warm, wanted, rtol=1e-5)
    assert not np.allclose(plain, warm)
    assert (plain.argmax(1) == warm.argmax(1)).all()


def test_texts_and_the_top_classes_from_the_command(run, capsys):
    folder, _ = run
    trained = rn.load_run(folder)
    wanted = trained.predict_proba(TEXTS, calibrated=True)
    assert resnorm(["predict", str(folder), *texts(*TEXTS), "--top=2"]) == 0
    out, err = capsys.readouterr()
    assert "calibrated by temperature" in err
    assert "15 validation rows" in err
    rows = list(csv.reader(out.splitlines()))
    assert rows[0] == ["row", "class", "probability", "class 2", "probability 2"]
    for row, p in zip(rows[1:], wanted, strict=True):
        order = np.argsort(-p)
        assert row[1::2] == [trained.classes[i] for i in order]
        np.testing.assert_allclose([float(v) for v in row[2::2]], p[order], atol=1e-6)


def test_uncalibrated_from_the_command_and_as_json(run, tmp_path, capsys):
    folder, _ = run
    out = tmp_path / "out.jsonl"
    asked = ["predict", str(folder), *texts(TEXTS[1]), f"--output={out}", "--calibrated=false"]
    assert resnorm([*asked, "--top=1"]) == 0
    assert capsys.readouterr().err == ""
    (row,) = map(json.loads, out.open())
    plain = rn.load_run(folder).predict_proba(TEXTS[1:])[0]
    assert row["top"] == [{"class": row["class"], "probability": row["probability"]}]
    assert row["probability"] == pytest.approx(plain.max(), abs=1e-6)


def test_evaluate_tells_the_errors_before_and_after(run, tmp_path, capsys):
    folder, _ = run
    out = tmp_path / "scores.json"
    assert resnorm(["evaluate", str(folder), f"--output={out}"]) == 0
    found = json.loads(out.read_text())
    told = capsys.readouterr().out
    trained = rn.load_run(folder)
    test = trained.dataset().test
    p = softmax(trained.log_probs(test).astype(np.float64) / trained.temperature)
    loss = -np.log(p[np.arange(len(test)), test.y]).mean()
    assert found["calibrated"]["log_loss"] == pytest.approx(loss, rel=1e-5)
    assert found["calibrated"]["temperature"] == trained.temperature
    before, after = (v["expected_calibration_error"] for v in (found, found["calibrated"]))
    assert f"expected calibration error {before:.4f} before, {after:.4f} after" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a file, or --text"),
        (["--text=a", "x.csv"], "not both"),
        (["--text=a", "--seed=0", "x.csv", "y.csv"], "unrecognized arguments: y.csv"),
        (["--text= "], "--text: text 1: no visible character"),
        (["--text=a", "--text=\udc80"], "text 2: character 1 is no Unicode character"),
        (["--text=a", "--top=3"], "--top: 3; the model has 2 classes"),
        (["--text=a", "--top=0"], "--top"),
        (["--text=a", "--calibrated=no"], "--calibrated"),
    ],
)
def test_mistakes_in_predict(run, arguments, says, capsys):
    assert resnorm(["predict", str(run[0]), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error


def test_a_run_without_a_temperature_says_so_and_a_damaged_one_is_refused(run, capsys):
    folder, _ = run
    path = calibration_file(folder, 0)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole.replace(b'"rows": 15', b'"rows": 16'))
        assert resnorm(["predict", str(folder), "--text=a"]) == 2
        assert "calibration.json: its digest" in capsys.readouterr().err
        path.unlink()
        assert resnorm(["predict", str(folder), "--text=a"]) == 0
        assert "not calibrated" in capsys.readouterr().err
        with pytest.raises(UserError, match="not calibrated"):
            rn.load_run(folder).predict_proba(["a"], calibrated=True)
        rn.train(config(), folder)  # trains nothing, and fits it again
        assert path.read_bytes() == whole
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "stablehlo"
    assert resnorm(["export", str(run[0]), f"--output={folder}"]) == 0
    return folder


def test_an_exported_program_is_the_model_for_any_rows(run, exported):
    trained, loaded = rn.load_run(run[0]), rn.load_exported(exported)
    for texts in (TEXTS, TEXTS[:1] * 5, ["the acting was truly awful , not good and not bad"]):
        wanted = trained.predict_proba(texts)
        np.testing.assert_allclose(loaded.predict_proba(texts), wanted, rtol=1e-5)
        assert loaded.predict(texts).tolist() == trained.predict(texts).tolist()
    warm = trained.predict_proba(TEXTS, calibrated=True)
    np.testing.assert_allclose(loaded.predict_proba(TEXTS, calibrated=True), warm, rtol=1e-5)


@JAX2ONNX
def test_an_onnx_file_from_the_command_is_the_model_for_any_rows(run, tmp_path):
    folder = tmp_path / "onnx"
    assert resnorm(["export", str(run[0]), f"--output={folder}", "--format=onnx"]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.onnx"]
    trained, loaded = rn.load_run(run[0]), rn.load_exported(folder)
    for texts in (TEXTS, TEXTS[:1] * 5):
        wanted = trained.predict_proba(texts)
        np.testing.assert_allclose(loaded.predict_proba(texts), wanted, rtol=1e-5)
    warm = trained.predict_proba(TEXTS, calibrated=True)
    np.testing.assert_allclose(loaded.predict_proba(TEXTS, calibrated=True), warm, rtol=1e-5)
    assert json.loads((folder / "model.json").read_text())["opset"] >= 21


def test_its_description_says_inputs_classes_preprocessing_and_the_check(run, exported):
    about = json.loads((exported / "model.json").read_text())
    assert [(i["name"], i["dtype"], i["shape"]) for i in about["inputs"]] == [
        ("x", "int32", ["b", "l"]), ("lengths", "int32", ["b"]),
    ]  # fmt: skip
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["classes"] == run[1]["classes"]
    assert about["preprocessing"] == rn.load_run(run[0]).meta
    assert about["checked"]["rows"] == {"random": 16, "real": 20}
    assert about["checked"]["difference"] <= about["checked"]["most"] == 1e-4
    assert sorted(p.name for p in exported.iterdir()) == [
        "model.json", "model.stablehlo", "parameters.safetensors",
    ]  # fmt: skip


def test_parameters_alone_are_the_run_s_bits_by_path(run, tmp_path, capsys):
    from safetensors.numpy import load_file

    folder = tmp_path / "parameters"
    assert resnorm(["export", str(run[0]), f"--output={folder}", "--format=safetensors"]) == 0
    assert "differ by 0.0e+00" in capsys.readouterr().out
    found = load_file(folder / "parameters.safetensors")
    params = rn.load_run(run[0]).params
    np.testing.assert_array_equal(found["params/head/kernel"], params["head"]["kernel"])
    assert sum(a.size for a in found.values()) == sum(a.size for a in jax.tree.leaves(params))
    with pytest.raises(UserError, match="parameters alone"):
        rn.load_exported(folder)


def test_what_is_damaged_or_there_is_refused(run, exported, tmp_path, capsys):
    import shutil

    before = sorted(exported.parent.rglob("*"))
    assert resnorm(["export", str(run[0]), f"--output={exported}"]) == 2
    assert "holds other files" in capsys.readouterr().err
    for name in ("model.stablehlo", "parameters.safetensors", "model.json"):
        copy = tmp_path / name
        shutil.copytree(exported, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            rn.load_exported(copy)
    with pytest.raises(UserError, match=r"no model\.json"):
        rn.load_exported(tmp_path / "nothing")
    loaded = rn.load_exported(exported)
    with pytest.raises(UserError, match="row 1 has 5000 positions"):
        loaded.log_probs(Examples(np.ones((1, 5000), np.int32), *np.ones((2, 1), np.int32) * 5000))
    assert sorted(exported.parent.rglob("*")) == before


def test_a_program_that_computes_something_else_is_not_kept(run, tmp_path, capsys, monkeypatch):
    from resnorm_jax.export import formats

    read = formats.FORMATS["stablehlo"].read
    wrong = dataclasses.replace(
        formats.FORMATS["stablehlo"], read=lambda folder: lambda *x: read(folder)(*x) + 1e-3
    )
    monkeypatch.setitem(formats.FORMATS, "stablehlo", wrong)
    assert resnorm(["export", str(run[0]), f"--output={tmp_path}/e"]) == 2
    assert "differ by 1.0e-03 at most (allowed: 0.0001); nothing is kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    assert resnorm(["export", str(run[0]), f"--output={tmp_path}/e", "--format=onnx"]) == 2
    assert "pip install --no-deps jax2onnx" in capsys.readouterr().err


def test_a_served_model_is_the_run_s_and_compiles_nothing_after_its_start(run):
    from rich.console import Console

    from resnorm_jax.serving.limits import Limits
    from resnorm_jax.serving.server import warmed

    trained, console = rn.load_run(run[0]), Console(record=True, quiet=False, file=io.StringIO())
    service = warmed(trained, Limits(batch=3, lengths=2), console)
    assert "programs: 1, 3 rows of" in console.export_text()
    for texts in (TEXTS[:1], TEXTS, [*TEXTS, "good"]):
        question = service.reader.json(json.dumps({"rows": texts}).encode())
        programs = trained.parallel.programs
        found = service.compute(service.rows(question.examples))
        assert trained.parallel.programs == programs
        wanted = np.log(trained.predict_proba(texts))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
