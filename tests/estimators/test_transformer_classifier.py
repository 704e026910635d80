"""`rn.TransformerClassifier`: scikit-learn's way of use, on this package's trainer."""

import inspect
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from estimators.small import estimator, walks
from safetensors.numpy import load
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score

import resnorm_jax as rn
from resnorm_jax.errors import UserError
from resnorm_jax.estimators import fitting
from resnorm_jax.estimators.parameters import FIELDS


@pytest.fixture(scope="module")
def fitted():
    """One estimator of ragged rows, and these rows."""
    x, y = walks()
    return estimator().fit(x, y), x, y


@pytest.mark.table
def test_ragged_rows_are_learned(fitted):
    model, x, _ = fitted
    assert model.classes_.tolist() == ["high", "low"]
    assert model.n_features_in_ == 3
    assert model.score(*walks(seed=1)) > 0.8
    probabilities = model.predict_proba(x)
    assert probabilities.shape == (24, 2)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    assert (model.predict(x) == model.classes_[probabilities.argmax(1)]).all()


@pytest.mark.table
def test_a_row_does_not_depend_on_its_companions(fitted):
    model, x, _ = fitted
    together = model.predict_proba(x)
    alone = np.concatenate([model.predict_proba([row]) for row in x[:5]])
    np.testing.assert_array_equal(alone, together[:5])
    # Longer than any training row: positions are not learned one by one.
    assert np.isfinite(model.predict_proba([np.ones((3, 20))])).all()


@pytest.mark.table
def test_arrays_lists_and_matrices_mean_the_same():
    x, y = walks(channels=1)
    cube = np.stack([row[:, :3] for row in x])
    one = estimator().fit(cube, y)
    listed = estimator().fit(list(cube), y)
    boxed = np.empty(len(cube), object)
    boxed[:] = list(cube)
    flat = estimator().fit(cube[:, 0], y)
    expected = one.predict_proba(cube)
    np.testing.assert_array_equal(listed.predict_proba(cube), expected)
    np.testing.assert_array_equal(one.predict_proba(boxed), expected)
    np.testing.assert_array_equal(flat.predict_proba(cube[:, 0]), expected)
    assert (one.n_features_in_, flat.n_features_in_) == (1, 3)


@pytest.mark.table
def test_it_is_the_run_of_the_trainer(tmp_path):
    """The same values to the bit as `rn.train` with the same config, rows and seed."""
    x, y = walks()
    model = estimator(random_state=3).fit(x, y)
    lengths = np.array([row.shape[1] for row in x])
    padded = np.zeros((24, 8, 3), np.float32)
    for target, row in zip(padded, x, strict=True):
        target[: row.shape[1]] = row.T
    np.savez(tmp_path / "rows.npz", x=padded, lengths=lengths, y=(y == "low").astype(int))
    config = model.fitted_.config.to_dict()
    config["data"] = {
        "source": "arrays",
        "train": str(tmp_path / "rows.npz"),
        "test": str(tmp_path / "rows.npz"),
    }
    from resnorm_jax.config import from_dict

    rn.train(from_dict(config), tmp_path / "run")
    run = rn.load_run(tmp_path / "run")
    a, b = (fitting.flat(v) for v in (run.variables, model.fitted_.variables))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.table
def test_programs_are_compiled_once_for_equal_shapes(fitted):
    model, x, y = fitted
    expected = model.predict_proba(x)
    before = [made.cache_info().misses for made in (fitting._recipe, fitting._predicting)]
    same = estimator().fit(x[::-1], y[::-1]).fit(x, y)
    np.testing.assert_array_equal(same.predict_proba(x), expected)
    other = estimator(random_state=np.random.RandomState(1)).fit(x, y)
    assert (other.predict_proba(x) != expected).any()
    assert before == [made.cache_info().misses for made in (fitting._recipe, fitting._predicting)]
    parallel = fitting._predictor(fitting.build_model(model.fitted_.config, model.fitted_.meta),
                                  model.fitted_.config)  # fmt: skip
    assert parallel.programs <= 2  # of all lengths that this file predicts


@pytest.mark.table
def test_a_pickle_holds_safetensors_and_no_code(fitted):
    model, x, _ = fitted
    state = model.__getstate__()
    content = state["fitted_"]
    assert isinstance(content, bytes)
    arrays = load(content)
    assert sum(a.size for a in arrays.values()) > 500
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(header["__metadata__"]["resnorm_jax"])
    assert about["config"]["model"]["width"] == 16
    assert model.__getstate__()["fitted_"] == content
    plain = (str, int, float, bool, bytes, dict, np.ndarray, type(None))
    assert all(isinstance(value, plain) for value in state.values())
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    unfitted = pickle.loads(pickle.dumps(clone(model)))
    with pytest.raises(NotFittedError):
        unfitted.predict(x)


@pytest.mark.table
def test_it_is_searched_and_scored_by_scikit_learn():
    x, y = walks()
    scores = cross_val_score(estimator(), x, y, cv=PredefinedSplit([-1] * 16 + [0] * 8))
    assert scores.shape == (1,)
    search = GridSearchCV(estimator(), {"width": np.array([4, 8]), "norm": ["rms"]}, cv=2)
    assert search.fit(x, y).best_params_["norm"] == "rms"


def test_parameters_are_stored_as_given():
    model = estimator(width=12)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(arrangement="deepnorm").arrangement == "deepnorm"
    names = list(inspect.signature(rn.TransformerClassifier).parameters)
    assert names == list(inspect.signature(rn.AeonTransformerClassifier).parameters)
    assert {*FIELDS, "settings", "random_state"} == set(names)


X, Y = walks(8)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"arrangement": "pre_lm"}, "^arrangement: .*did you mean 'pre_ln'"),
        ({"norm": "leyer"}, "^norm: .*leyer"),
        ({"depth": 0}, "^depth: 0 must be over 0"),
        ({"width": 7, "heads": 2}, "width"),
        ({"epochs": 1.5}, "^epochs: "),
        ({"learning_rate": -1}, "^learning_rate: "),
        ({"settings": {"model.poling": 1}}, r"^settings\['model.poling'\]: unknown field; did"),
        ({"settings": {"model.pooling": "mex"}}, r"^settings\['model.pooling'\]: "),
        ({"settings": {"seeds": 2}}, r"^settings\['seeds'\]: not read"),
        ({"settings": {"model.width": 8}}, r"^settings\['model.width'\]: give it as width"),
        ({"settings": [3]}, "^settings: "),
        ({"random_state": -1}, "random_state"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(given, says):
    with pytest.raises(ValueError, match=says) as caught:
        estimator(**given).fit(X, Y)
    assert "config." not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([*X[:7], X[7][:2]], Y, r"X\[7\]: shape \(2, \d+\), expected \[3, T\]"),
        ([*X[:7], X[7][0]], Y, r"X\[7\]: shape \(8,\), expected \[3, T\]"),
        ([*X[:7], np.full((3, 4), np.nan)], Y, r"X\[7\] contains NaN"),
        (X, Y[:7], "inconsistent numbers of samples"),
        (X, np.repeat("a", 8), "one class, 'a'; give at least two"),
        (X, np.linspace(0, 1, 8), "continuous"),
        (np.ones((8, 2, 3, 4)), Y, r"X: shape \(8, 2, 3, 4\)"),
        (np.full((8, 3), 1e300), Y, r"X\[0\]: a value over 3e38"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(x, y, says):
    with pytest.raises(ValueError, match=says):
        estimator().fit(x, y)


@pytest.mark.table
def test_other_channels_are_refused(fitted):
    model, x, _ = fitted
    with pytest.raises(ValueError, match=r"X\[0\]: shape \(2, \d\), expected \[3, T\]"):
        model.predict([row[:2] for row in x])
    with pytest.raises(ValueError, match=r"X has 2 features, but .* 3 features"):
        model.predict(np.ones((4, 2, 5)))


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("sklearn.base", "TransformerClassifier", "estimators"),
        ("aeon.classification", "AeonTransformerClassifier", "series,estimators"),
    ],
)
def test_without_its_library_one_line_names_the_extra(module, name, extra, monkeypatch):
    home = f"resnorm_jax.estimators.{module.partition('.')[0]}"
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, home, raising=False)
    monkeypatch.delitem(vars(rn), name, raising=False)
    with pytest.raises(UserError, match=rf"^rn\.{name}: .* 'resnorm_jax\[{extra}\]'$"):
        getattr(rn, name)
    exec("from resnorm_jax import *", {})  # what needs no extra is there without it


@pytest.mark.table
def test_nothing_else_imports_them():
    """Whoever imports the package, or the command, does not wait for scikit-learn."""
    code = "import sys, resnorm_jax.cli.main; print({'sklearn', 'aeon'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_a_mistake_is_a_user_error():
    with pytest.raises(UserError, match="depth"):
        estimator(depth=-1).fit(X, Y)
