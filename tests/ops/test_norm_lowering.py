"""Programs lowered for a GPU, without one: which kernels are in them, how often, and when none is."""

import re
import warnings
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import export
from jax.experimental.pallas import triton
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
from kernel_calls import kernels
from tiers import every

import resnorm_jax as rn
from resnorm_jax import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from resnorm_jax.training.step import StepOptions, create_state, train_step

ROWS = jax.ShapeDtypeStruct((4, 16, 96), jnp.bfloat16)
FEATURES = jax.ShapeDtypeStruct((96,), jnp.float32)


BACKWARD_CALL = r'custom_call @\S+\(([^)]*)\) \{[^\n]*name = "norm_backward"'
NAMES_A_GPU = hasattr(triton, "get_gpu_info")  # from jax 0.11 on


def mesh_of_gpus(**axes):
    """Mesh that no machine has; from jax 0.11 on it says that it is of GPUs."""
    kinds = (jax.sharding.AxisType.Auto,) * len(axes)
    options = {"axis_types": kinds} if axes else {}
    if NAMES_A_GPU:
        device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
        options["abstract_device"] = device
    return AbstractMesh(tuple(axes.values()), tuple(axes), **options)


def a_gpu():
    """Context in which this JAX lowers kernels for a GPU though there is none."""
    return jax.sharding.use_abstract_mesh(mesh_of_gpus()) if NAMES_A_GPU else nullcontext()


def lowered(function, *args, platform="cuda", gpu=a_gpu):
    with warnings.catch_warnings(), gpu():
        warnings.simplefilter("error", DeprecationWarning)
        return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def gradients(norm, *args):
    """Value and gradients for a cotangent that is given."""
    out, pullback = jax.vjp(norm, *args[1:])
    return out, pullback(args[0])


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_a_norm_is_one_kernel_forward_and_one_backward(norm):
    parameters = [FEATURES] * (2 if norm is layer_norm else 1)
    assert kernels(lowered(norm, ROWS, *parameters)) == [1, 0]
    text = lowered(partial(gradients, norm), ROWS, ROWS, *parameters)
    assert kernels(text) == [1, 1]
    assert text.count("custom_call") == 2
    # Of the parameters' gradients only the sums over programs are left; nothing reads rows again.
    assert text.count("stablehlo.reduce(") == len(parameters)
    assert "stablehlo.rsqrt" not in text


@pytest.mark.parametrize("norm", [add_layer_norm, add_rms_norm])
def test_sum_and_norm_are_one_kernel_too(norm):
    parameters = [FEATURES] * (2 if norm is add_layer_norm else 1)
    text = lowered(partial(gradients, norm), (ROWS, ROWS), ROWS, ROWS, *parameters)
    assert kernels(text) == [1, 1]
    assert "stablehlo.add %" not in re.sub(r"applies stablehlo.add", "", text)
    beside = lowered(partial(gradients, norm), (ROWS, ROWS), ROWS, None, *parameters)
    assert kernels(beside) == [1, 1]  # the stream is what was given: nothing writes it again
    assert "stablehlo.add %" not in re.sub(r"applies stablehlo.add", "", beside)


def test_elsewhere_there_are_no_kernels():
    for platform in ("cpu", "tpu", "rocm"):
        assert "custom_call" not in lowered(layer_norm, ROWS, FEATURES, platform=platform)


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (ROWS, {"implementation": "xla"}),
        (ROWS, {"axis": 1}),
        (jax.ShapeDtypeStruct((2**21, 1024), jnp.bfloat16), {}),  # offsets over 32 bits
        (jax.ShapeDtypeStruct((2, 2**17), jnp.bfloat16), {}),
        (jax.ShapeDtypeStruct((0, 96), jnp.bfloat16), {}),
    ],
)
def test_what_the_kernels_do_not_serve_is_left_to_xla(x, options):
    assert "custom_call" not in lowered(partial(layer_norm, **options), x)


def test_wide_rows_leave_the_sums_of_the_parameters_to_xla():
    x, features = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((8, 20000), (20000,)))
    text = lowered(partial(gradients, layer_norm), x, x, features, features)
    assert kernels(text) == [1, 1]
    assert text.count("stablehlo.reduce(") == 2


@pytest.mark.table
@pytest.mark.parametrize("width", [1, 2, 17, 768, 1088, 4096, 8192, 8193, 16384, 65536])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_kernels_lower_at_all_widths(width, dtype):
    x, features = (jax.ShapeDtypeStruct(s, dtype) for s in ((33, width), (width,)))
    for norm, count in ((add_layer_norm, 2), (add_rms_norm, 1)):
        run = partial(gradients, partial(norm, implementation="triton", scale_offset=1.0))
        assert kernels(lowered(run, (x, x), x, x, *[features] * count)) == [1, 1]


def test_a_kernel_that_is_asked_for_by_name_is_there_or_an_error():
    assert kernels(lowered(partial(layer_norm, implementation="triton"), ROWS)) == [1, 0]
    wide = jax.ShapeDtypeStruct((2, 2**17), jnp.bfloat16)
    with pytest.raises(ValueError, match="'triton' cannot serve this norm: rows are 131072 wide"):
        lowered(partial(layer_norm, implementation="triton"), wide)
    with pytest.raises(ValueError, match="for tpu, the kernel for NVIDIA GPUs"):
        lowered(partial(layer_norm, implementation="triton"), ROWS, platform="tpu")


@pytest.mark.skipif(not NAMES_A_GPU, reason="jax 0.10 assumes some GPU")
def test_without_a_gpu_to_lower_for_xla_serves():
    assert "custom_call" not in lowered(layer_norm, ROWS, gpu=nullcontext)
    with pytest.raises(ValueError, match="lowers kernels for a GPU at hand or named"):
        lowered(partial(layer_norm, implementation="triton"), ROWS, gpu=nullcontext)


def test_a_program_that_xla_divides_over_devices_has_no_kernel_and_a_mapped_one_has():
    mesh = jax.make_mesh(
        (2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
    )
    spec = PartitionSpec("d")
    rows = NamedSharding(mesh, spec)
    divided = jax.ShapeDtypeStruct(ROWS.shape, ROWS.dtype, sharding=rows)
    text = lowered(layer_norm, divided)
    assert kernels(text) == [0, 0]
    assert "all_gather" not in text
    with pytest.raises(ValueError, match="XLA divides this program over 2 devices; shard_map"):
        lowered(partial(layer_norm, implementation="triton"), divided)
    mapped = jax.shard_map(layer_norm, mesh=mesh_of_gpus(d=2), in_specs=spec, out_specs=spec)
    assert kernels(lowered(mapped, ROWS)) == [1, 0]


def test_an_exported_program_holds_no_kernel_unless_it_is_asked_for():
    def exported(**options):
        function = jax.jit(partial(layer_norm, **options))
        with a_gpu():
            return export.export(function, platforms=["cpu", "cuda"])(ROWS).mlir_module()

    assert "triton" not in exported()
    with pytest.raises(ValueError, match="for cpu, the kernel for NVIDIA GPUs"):
        exported(implementation="triton")
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("rows, 96"), jnp.bfloat16)
    with a_gpu():
        module = export.export(jax.jit(layer_norm), platforms=["cuda"])(rows).mlir_module()
    assert "triton" not in module


@pytest.mark.parametrize("where", ["vmap", "scan", "remat"])
def test_kernels_stay_under_transformations(where):
    def scanned(x):
        return jax.lax.scan(lambda c, row: (c, layer_norm(row)), 0, x)[1]

    ways = {
        "vmap": (jax.vmap(layer_norm), [1, 1]),
        "scan": (scanned, [1, 1]),  # in the bodies of the loops
        "remat": (jax.checkpoint(lambda x: jnp.sin(layer_norm(x))), [2, 1]),
    }
    way, expected = ways[where]
    assert kernels(lowered(partial(gradients, way), ROWS, ROWS)) == expected


def test_higher_derivatives_lower_too():
    def loss(x):
        return jnp.sum(jnp.sin(layer_norm(x)))

    text = lowered(lambda x, t: jax.jvp(jax.grad(loss), (x,), (t,)), ROWS, ROWS)
    assert kernels(text)[0] >= 1


@pytest.mark.parametrize("norm", every(["layer", "rms"], ["layer"]))
def test_a_training_step_holds_one_kernel_a_norm_and_direction(norm):
    depth = 2
    encoder = rn.TransformerEncoder(depth, 2, 32, unroll=depth, norm=norm, dtype=jnp.bfloat16)
    model = rn.SequenceClassifier(
        3, rn.FeatureEmbedding(16, dtype=jnp.bfloat16), encoder, max_length=8
    )
    optimizer = optax.adamw(1e-3)
    batch = {
        "x": jax.ShapeDtypeStruct((4, 8, 5), jnp.float32),
        "y": jax.ShapeDtypeStruct((4,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((4, 8), bool),
        "weight": jax.ShapeDtypeStruct((4,), jnp.float32),
    }

    def first(x, mask):
        return create_state(model.init(jax.random.key(0), x, mask), optimizer, 0, None)

    state = jax.eval_shape(first, batch["x"], batch["mask"])
    step = partial(train_step, options=StepOptions(model.apply, optimizer))
    norms = 2 * depth + 1
    text = lowered(step, state, batch)
    assert kernels(text) == [norms, norms]
    assert text.count("stablehlo.rsqrt") == 0  # no other pass takes statistics of rows
    # All but the final norm add the stream's gradient in their backward pass: x, scale, the numbers
    # of each row, the gradient, and that one.
    given = [len(call.split(",")) for call in re.findall(BACKWARD_CALL, text)]
    alone = 6 if norm == "layer" else 4
    assert (given.count(alone), set(given)) == (1, {alone, alone + 1})
