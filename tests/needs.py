"""Marks of tests that need a package which no extra brings, and why they are skipped without it."""

from importlib.util import find_spec

import pytest

from resnorm_jax.export.formats import INSTALL_ONNX

JAX2ONNX = pytest.mark.skipif(
    find_spec("jax2onnx") is None,
    reason=f"jax2onnx is not installed, which no extra brings; .ci/run tests it in a virtualenv of "
    f"its own. Here: {INSTALL_ONNX}",
)
