"""What scikit-learn and aeon ask of an estimator, by their own checks."""

import pytest
from estimators.small import SMALL, estimator
from sklearn.utils.estimator_checks import check_estimator as check_sklearn

# Checks that are not to pass, each with its reason; at most five.
EXPECTED: dict[str, str] = {}


@pytest.mark.slow
def test_checks_of_scikit_learn():
    found = check_sklearn(
        estimator(steps=60), expected_failed_checks=EXPECTED, on_fail=None, on_skip=None
    )
    by_status = {
        s: [f for f in found if f["status"] == s] for s in ("passed", "failed", "xfail", "skipped")
    }
    assert [(f["check_name"], f["exception"]) for f in by_status["failed"]] == []
    assert {f["check_name"] for f in by_status["xfail"]} == set(EXPECTED)
    assert len(EXPECTED) <= 5
    assert len(by_status["passed"]) >= 50


@pytest.mark.slow
def test_checks_of_aeon():
    from aeon.testing.estimator_checking import check_estimator as check_aeon

    from resnorm_jax import AeonTransformerClassifier

    found = check_aeon(AeonTransformerClassifier)
    assert {name: told for name, told in found.items() if told != "PASSED"} == {}
    assert len(found) >= 20


def test_aeon_is_told_what_it_can():
    from resnorm_jax import AeonTransformerClassifier

    tags = AeonTransformerClassifier.get_class_tags()
    assert tags["capability:unequal_length"]
    assert tags["capability:multivariate"]
    assert tags["X_inner_type"] == ["np-list", "numpy3D"]
    assert AeonTransformerClassifier(**SMALL).get_params()["width"] == 16
