"""Rows times a kernel: the same numbers as `jax.lax.dot_general`, with less copied on a CPU."""

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resnorm_jax.ops.projection import rows_dot_general

CASES = {  # shapes of x and the kernel, what is contracted, and the same in letters
    "rows": ((2, 3, 4), (4, 5), ((2,), (0,)), "abk,kn->abn"),
    "heads": ((2, 3, 4), (4, 5, 6), ((2,), (0,)), "abk,knm->abnm"),
    "joined heads": ((2, 3, 5, 6), (5, 6, 4), ((2, 3), (0, 1)), "abkl,kln->abn"),
    "one row": ((4,), (4, 5), ((0,), (0,)), "k,kn->n"),
    "no rows": ((0, 3, 4), (4, 5), ((2,), (0,)), "abk,kn->abn"),
    "other axes": ((4, 2, 3), (5, 4), ((0,), (1,)), "kab,nk->abn"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_dot_general_forward_and_backward(case):
    rng = np.random.default_rng(0)
    x_shape, kernel_shape, axes, letters = CASES[case]
    x, kernel = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, kernel_shape))
    y, backward = jax.vjp(lambda x, w: rows_dot_general(x, w, (axes, ((), ()))), x, kernel)
    g = rng.standard_normal(y.shape).astype(np.float32)
    (inputs, out), wide = letters.split("->"), [a.astype(np.float64) for a in (x, kernel, g)]
    a, b = inputs.split(",")
    want = [np.einsum(letters, *wide[:2])]
    want += [np.einsum(f"{out},{b}->{a}", wide[2], wide[1])]
    want += [np.einsum(f"{out},{a}->{b}", wide[2], wide[0])]
    chex.assert_trees_all_close([y, *backward(g)], want, atol=1e-5)


def test_a_batch_goes_to_dot_general_as_it_is():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 5))
    found = rows_dot_general(x, kernel, (((2,), (1,)), ((0,), (0,))))
    chex.assert_trees_all_close(found, x @ kernel, atol=1e-5)


def test_arrays_laid_over_devices_keep_their_layout():
    mesh = jax.make_mesh((4, 2), ("rows", "positions"), axis_types=(AxisType.Explicit,) * 2)
    layout = NamedSharding(mesh, PartitionSpec("rows", "positions"))
    kernel = np.random.default_rng(0).standard_normal((4, 5), np.float32)
    with jax.set_mesh(mesh):
        x = jax.device_put(np.ones((8, 6, 4), np.float32), layout)
        y = nn.Dense(5, dot_general=rows_dot_general).apply(
            {"params": {"kernel": kernel, "bias": np.zeros(5, np.float32)}}, x
        )
        assert y.sharding.spec == PartitionSpec("rows", "positions", None)
    chex.assert_trees_all_close(y, np.ones((8, 6, 4)) @ kernel, atol=1e-5)


def test_a_cpu_copies_no_gradient_before_it_multiplies():
    x, kernel, g = np.ones((4, 32, 16)), np.ones((16, 64)), np.ones((4, 32, 64))

    def moved(dot_general) -> float:
        def run(x, kernel, g):
            axes = (((2,), (0,)), ((), ()))
            return jax.vjp(lambda x, w: dot_general(x, w, axes), x, kernel)[1](g)

        return jax.jit(run).lower(x, kernel, g).compile().cost_analysis()["bytes accessed"]

    copied = 2 * g.size * 4  # read once, written once
    assert moved(lax.dot_general) - moved(rows_dot_general) >= copied
