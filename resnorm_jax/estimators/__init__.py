"""Classifiers with the conventions of scikit-learn and of aeon."""

from resnorm_jax.errors import UserError


def missing(name: str, package: str, extra: str) -> UserError:
    """Return the error for a library that an estimator stands on and that is not installed."""
    return UserError(
        f"rn.{name}: {package} is not installed; run: pip install 'resnorm_jax[{extra}]'"
    )
