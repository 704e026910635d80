"""The formats: how each is written into a folder, and read from there again."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.extend.core
import numpy as np

from resnorm_jax.data.checks import import_extra
from resnorm_jax.errors import UserError
from resnorm_jax.export.program import Program
from resnorm_jax.ops.norms.kernels.primitive import in_operations
from resnorm_jax.reporting.files import write_bytes

STABLEHLO, ONNX, PARAMETERS = "model.stablehlo", "model.onnx", "parameters.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")
Call = Callable[..., Any]  # arrays of the inputs to log-probabilities


@dataclass(frozen=True)
class Format:
    """A format of ``resnorm export``.

    Attributes:
      about: for people.
      needs: packages, looked for before anything is computed.
      write: a program into a folder; returns what ``model.json`` also says.
      read: from a folder, the function of the inputs, or None if the format has parameters alone.
    """

    about: str
    needs: tuple[str, ...]
    write: Callable[[Program, Path], dict[str, Any]]
    read: Callable[[Path], Call] | None


# jax2onnx 0.17 asks for an orbax-checkpoint older than checkpoints here need, and does not import it.
INSTALL_ONNX = "pip install 'resnorm_jax[onnx]' && pip install --no-deps jax2onnx"


def library(module: str) -> ModuleType:
    """Import what an export needs; raise UserError if it is not installed."""
    package = module.partition(".")[0]
    if package not in ("jax2onnx", "onnxruntime"):
        return import_extra(module, package, "export", "resnorm export")
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"resnorm export: {package} is not installed ({error}); run: {INSTALL_ONNX}"
        ) from error


def write_parameters(made: Program, folder: Path) -> dict[str, Any]:
    """Write all arrays by name."""
    content = library("safetensors.numpy").save(made.parameters)
    write_bytes(folder / PARAMETERS, content)
    return {}


def read_parameters(folder: Path) -> dict[str, np.ndarray]:
    """Return arrays by name, in the order of names."""
    found = library("safetensors.numpy").load_file(folder / PARAMETERS)
    return {name: found[name] for name in sorted(found)}


def write_stablehlo(made: Program, folder: Path) -> dict[str, Any]:
    """Write the program for each platform that it lowers for, and its parameters beside it."""
    library("flatbuffers")
    write_parameters(made, folder)
    lower = partial(_exported, made)
    platforms: tuple[str, ...] = PLATFORMS
    try:
        exported = lower(platforms)
    except NotImplementedError:  # an operation that one of them does not have
        platforms = tuple(p for p in PLATFORMS if _lowers(lower, p))
        exported = lower(platforms)
    write_bytes(folder / STABLEHLO, bytes(exported.serialize()))
    return {"platforms": list(platforms)}


def _exported(made: Program, platforms: tuple[str, ...]) -> Any:
    arrays = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in made.parameters.items()}
    return jax.export.export(jax.jit(made.function), platforms=platforms)(arrays, *made.specs())


def _lowers(lower: Callable[[tuple[str, ...]], Any], platform: str) -> bool:
    try:
        lower((platform,))
    except NotImplementedError:
        return False
    return True


def read_stablehlo(folder: Path) -> Call:
    """Return the program, compiled for each shape that it is called with."""
    library("flatbuffers")
    loaded = jax.export.deserialize(bytearray((folder / STABLEHLO).read_bytes()))
    return partial(jax.jit(loaded.call), jax.device_put(read_parameters(folder)))


@contextmanager
def _without_notes(library: str) -> Iterator[None]:
    """Let a library log errors alone: it notes each value inside a loop, whose type no file needs."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def write_onnx(made: Program, folder: Path) -> dict[str, Any]:
    """Write one file that holds the parameters too.

    jax2onnx replaces functions of jax.numpy while it traces, some by ones that know no symbols. So the
    program is traced before, and jax2onnx sees its primitive operations alone.
    """
    convert = library("jax2onnx").to_onnx
    specs, parameters = made.specs(), jax.device_put(made.parameters)
    with in_operations():
        traced = jax.make_jaxpr(partial(made.function, parameters))(*specs)
    run = jax.extend.core.jaxpr_as_fun(traced)
    with _without_notes("onnx_ir"):
        found = convert(
            lambda *inputs: run(*inputs)[0], inputs=specs,
            input_names=list(made.shapes), output_names=["log_probs"],
        )  # fmt: skip
    write_bytes(folder / ONNX, found.SerializeToString())
    return {"opset": found.opset_import[0].version}


def read_onnx(folder: Path) -> Call:
    """Return what onnxruntime computes on the CPU."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors: jax2onnx leaves constants that nothing reads
    session = runtime.InferenceSession(
        str(folder / ONNX), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]

    def call(*inputs: np.ndarray) -> np.ndarray:
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return call


FORMATS = {
    "stablehlo": Format(
        "the program as jax.export keeps it, and its parameters as safetensors",
        ("flatbuffers", "safetensors"),
        write_stablehlo,
        read_stablehlo,
    ),
    "safetensors": Format(
        "the parameters alone, by name, for other programs; resnorm convert writes what "
        "rn.from_pretrained and transformers load",
        ("safetensors",),
        write_parameters,
        None,
    ),
    "onnx": Format(
        "one file for ONNX runtimes, by jax2onnx",
        ("jax2onnx", "onnxruntime"),
        write_onnx,
        read_onnx,
    ),
}
