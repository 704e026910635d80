"""Norms of arrays whose types say how they are laid over devices: kernels on each device's own rows."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import triton
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from kernel_calls import kernels
from tiers import every

from resnorm_jax import add_rms_norm, layer_norm
from resnorm_jax.bench.sharding import collectives

BY_ROW = PartitionSpec("data", None, None)
CUT = PartitionSpec("data", None, "tensor")


def mesh():
    kinds = (AxisType.Explicit, AxisType.Explicit)
    return jax.make_mesh((2, 2), ("data", "tensor"), axis_types=kinds, devices=jax.devices()[:4])


def laid(spec, *arrays):
    """Rows as ``spec`` says, vectors as its last axis does."""
    specs = [spec if a.ndim == 3 else PartitionSpec(*spec[2:]) for a in arrays]
    pairs = zip(arrays, specs, strict=True)
    return [jax.device_put(a, NamedSharding(mesh(), one)) for a, one in pairs]


def case():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 4, 3, 8)).astype(np.float32)
    return x, np.linspace(1, 2, 8, dtype=np.float32), np.zeros(8, np.float32), g


def gradients(x, scale, bias, g, implementation):
    out, pullback = jax.vjp(partial(layer_norm, implementation=implementation), x, scale, bias)
    return out, pullback(g)


@pytest.mark.parametrize(
    "spec",
    every([BY_ROW, PartitionSpec(("data", "tensor"), None, None), PartitionSpec(None, None, None)],
          [BY_ROW]),
)  # fmt: skip
def test_a_kernel_runs_on_each_devices_rows_and_nothing_is_gathered(spec):
    program = jax.jit(partial(gradients, implementation="interpret"))
    arrays = laid(spec, *case())
    compiled = program.lower(*arrays).compile()
    # The sums of the scale's and the bias' gradients over devices with other rows, and nothing else.
    sent = collectives(compiled.as_text())
    assert sum(size for _, size in sent) == (2 * 8 * 4 if spec[0] else 0)
    assert {kind for kind, _ in sent} <= {"all-reduce"}
    found, wanted = compiled(*arrays), gradients(*case(), "xla")
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_where_features_are_cut_xla_serves_and_gathers_no_row():
    arrays = laid(CUT, *case())
    compiled = jax.jit(partial(gradients, implementation=None)).lower(*arrays).compile()
    assert {kind for kind, _ in collectives(compiled.as_text())} == {"all-reduce"}
    np.testing.assert_allclose(compiled(*arrays)[0], layer_norm(*case()[:3]), atol=1e-5)
    with pytest.raises(
        ValueError, match=r"'interpret' cannot .*: its features are laid over devices"
    ):
        jax.jit(partial(gradients, implementation="interpret")).lower(*arrays)


def lowered(function, *arrays):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        return jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.skipif(hasattr(triton, "get_gpu_info"), reason="jax 0.11 lowers for a GPU at hand")
def test_lowered_for_gpus_each_device_has_its_kernels():
    run = partial(gradients, implementation=None)
    assert kernels(lowered(run, *laid(BY_ROW, *case()))) == [1, 1]
    assert kernels(lowered(run, *laid(CUT, *case()))) == [0, 0]

    def both(x, branch, scale):
        return jax.grad(lambda *a: jnp.sum(add_rms_norm(*a)[0]), (0, 2))(x, branch, scale)

    x, scale, _, branch = laid(BY_ROW, *case())
    assert kernels(lowered(both, x, branch, scale)) == [1, 1]
