"""Every kind of data and positions as a program with symbols for sizes, without training."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from needs import JAX2ONNX
from safetensors.numpy import load_file

from resnorm_jax.build import build_model
from resnorm_jax.config import experiment, from_dict
from resnorm_jax.estimators.fitting import flat as estimator_flat
from resnorm_jax.export.formats import read_onnx, write_onnx
from resnorm_jax.export.program import flat as program_flat
from resnorm_jax.export.program import program
from resnorm_jax.interop.files import write_tensors
from resnorm_jax.training.tasks import SINGLE

META = {"classes": ["a", "b", "c"], "scaling": None, "encoding": {}, "vocabulary": [], "stride": 1}
TOKENS = META | {"kind": "tokens", "vocabulary": list("0123456789"), "shape": [], "max_length": 9}
SERIES = META | {"kind": "features", "shape": [3], "max_length": 11}
IMAGES = META | {"kind": "images", "shape": [4, 4, 2], "max_length": 4}
NEAR = {"positions": "none", "relative_buckets": 5, "relative_positions": 4}
CASES = {
    "tokens, learned": (TOKENS, {}),
    "tokens, sinusoidal": (TOKENS, {"positions": "sinusoidal"}),
    "tokens, rotary": (TOKENS, {"positions": "rotary", "pooling": "last"}),
    "tokens, none, class token": (TOKENS, {"positions": "none", "pooling": "cls"}),
    "series, kernel": (SERIES, {"kernel": 3}),
    "series in patches": (SERIES, {"kernel": 5, "stride": 4, "pooling": "max"}),
    "images": (IMAGES, {}),
    "images, class token and another": (IMAGES, {"pooling": "distilled"}),
    "layers that share parameters": (TOKENS, {"layer_groups": 1}),
    "a number that is no array": (TOKENS, {"norm": "dyt"}),
    "relative, bias": (TOKENS, {"relative": "bias", **NEAR}),
    "relative, disentangled": (TOKENS, {"relative": "disentangled", **NEAR}),
    "hyper-connections, RMS": (TOKENS, {"arrangement": "hyper_connections", "norm": "rms"}),
}
# Not tried with jax2onnx yet.
STABLEHLO_ALONE = (
    "a number that is no array", "relative, bias", "relative, disentangled",
)  # fmt: skip


def build(name):
    """The module, its variables and its program, of a case."""
    meta, model = CASES[name]
    sizes = {"width": 8, "depth": 2, "heads": 2, **model}
    config = from_dict(experiment(data={"source": "sample_text"}, model=sizes).to_dict())
    module = build_model(config, meta)
    x = np.zeros((1, *{"tokens": (4,), "features": (8, 3), "images": (4, 4, 2)}[meta["kind"]]))
    x = x.astype(np.int32 if meta["kind"] == "tokens" else np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    trained = SimpleNamespace(meta=meta, config=config, variables=variables, task=SINGLE)
    return module, variables, program(trained)


def compare(name, module, variables, call):
    """`call` gives what the module gives, whatever the numbers of rows and positions."""
    meta = CASES[name][0]
    rng = np.random.default_rng(0)
    for rows, length in ((2, 8), (5, 4)):
        shape = (rows, *([length] if meta["kind"] != "images" else []), *meta["shape"])
        x = rng.normal(size=shape).astype(np.float32)
        if meta["kind"] == "tokens":
            x = rng.integers(1, 10, shape).astype(np.int32)
        lengths = rng.integers(1, length + 1, rows).astype(np.int32)
        mask = np.arange(length) < lengths[:, None]
        told = (None,) if meta["kind"] == "images" else (mask,)
        wanted = jax.nn.log_softmax(module.apply(variables, x, *told))
        inputs = (x,) if meta["kind"] == "images" else (x, lengths)
        np.testing.assert_allclose(call(*inputs), wanted, atol=2e-6)


@pytest.mark.table
@pytest.mark.parametrize("name", CASES)
def test_the_program_is_the_model_for_any_sizes(name):
    module, variables, made = build(name)
    arrays = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in made.parameters.items()}
    every = ("cpu", "cuda", "tpu")
    exported = jax.export.export(jax.jit(made.function), platforms=every)(arrays, *made.specs())
    call = jax.jit(jax.export.deserialize(exported.serialize()).call)
    compare(name, module, variables, lambda *inputs: call(made.parameters, *inputs))


@pytest.mark.table
@JAX2ONNX
@pytest.mark.parametrize("name", [name for name in CASES if name not in STABLEHLO_ALONE])
def test_the_onnx_file_is_the_model_for_any_sizes(name, tmp_path, caplog):
    module, variables, made = build(name)
    write_onnx(made, tmp_path)
    assert not [record for record in caplog.records if record.name.startswith("onnx_ir")]
    compare(name, module, variables, read_onnx(tmp_path))


@pytest.mark.parametrize("flat", [program_flat, estimator_flat])
def test_a_number_without_axes_stays_one_in_files(flat, tmp_path):
    arrays = flat({"params": {"alpha": np.float32(0.5), "kernel": np.ones((2, 3)).T}})
    write_tensors(tmp_path, arrays)
    found = load_file(tmp_path / "model.safetensors")
    assert {name: a.shape for name, a in found.items()} == {
        "params/alpha": (), "params/kernel": (3, 2),
    }  # fmt: skip
