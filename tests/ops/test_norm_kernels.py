"""The kernels, carried out step by step, against float64 oracles; and when they are not used."""

import json
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import quick_jit, worst, x64
from tiers import every

from resnorm_jax import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from resnorm_jax.ops.norms import why_not
from resnorm_jax.ops.norms.kernels import (
    lowering,
    tiles,
    triton,
    triton_programs,
    triton_rows,
    tune,
)
from resnorm_jax.ops.norms.kernels.tiles import Tile

NORMS = {
    "layer_norm": (layer_norm, oracles.layer_norm, oracles.layer_norm_vjp),
    "rms_norm": (rms_norm, oracles.rms_norm, oracles.rms_norm_vjp),
}
SHAPES = [(5, 7), (1, 1), (4, 1), (1, 33), (3, 5, 64), (9, 130), (17,), (2, 3, 2, 5)]


def case(name, shape, dtype=np.float32, mean=0.5, seed=0):
    """x, scale, bias if there is one, and a cotangent."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(mean, 1.5, shape), dtype)
    scale = jnp.asarray(rng.uniform(0.5, 2, shape[-1]) * rng.choice([-1, 1], shape[-1]), dtype)
    bias = jnp.asarray(rng.normal(size=shape[-1]), dtype)
    weights = jnp.asarray(rng.normal(size=shape), dtype)
    return ((x, scale) if name == "rms_norm" else (x, scale, bias)), weights


def wide(arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def value_and_vjp(norm, arrays, weights, **options):
    @quick_jit
    def run(arrays, weights):
        out, pullback = jax.vjp(partial(norm, implementation="interpret", **options), *arrays)
        return out, pullback(weights)

    return run(arrays, weights)


def forward_alone(norm, *arrays):
    return quick_jit(partial(norm, implementation="interpret"))(*arrays)


def cut(monkeypatch, rows=1, programs=3, ahead=False, block=None):
    """Deal rows out differently, and keep fewer columns of a row in registers."""
    monkeypatch.setattr(tiles, "tile", lambda *_: Tile(rows, 4, programs, ahead))
    if block is not None:
        monkeypatch.setattr(triton, "BLOCK", {"forward": block, "backward": block})


def check(name, arrays, weights, forward=5e-7, backward=2e-6, **options):
    norm, oracle, vjp = NORMS[name]
    out, found = value_and_vjp(norm, arrays, weights, **options)
    assert out.dtype == arrays[0].dtype
    exact = wide(arrays)
    assert worst(out, oracle(*exact)) <= forward
    for leaf, want, given in zip(found, vjp(*exact, *wide([weights])), arrays, strict=True):
        assert leaf.dtype == given.dtype
        if given.shape[-1] > 2 or given is not arrays[0]:
            assert worst(leaf, want) <= backward
        else:  # the gradient itself vanishes
            np.testing.assert_allclose(leaf, want, atol=2e-3)


@pytest.mark.parametrize("shape", every(SHAPES, [(5, 7)]))
@pytest.mark.parametrize("name", every(NORMS, ["layer_norm"]))
def test_values_and_gradients_at_awkward_shapes(name, shape):
    check(name, *case(name, shape))


@pytest.mark.table
@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_any_cut_of_the_rows_gives_the_same(name, ahead, rows, monkeypatch):
    cut(monkeypatch, rows, ahead=ahead)
    check(name, *case(name, (13, 20)))


@pytest.mark.table
@pytest.mark.parametrize("width", [9, 16, 31])
@pytest.mark.parametrize("name", NORMS)
def test_rows_too_wide_for_the_registers_go_block_by_block(name, width, monkeypatch):
    cut(monkeypatch, 2, block=8)
    check(name, *case(name, (5, width), mean=1e3 if name == "layer_norm" else 0.5))


@pytest.mark.table
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", NORMS)
def test_half_precision_is_one_rounding_of_the_oracle(name, dtype):
    norm, oracle, _ = NORMS[name]
    unit = float(jnp.finfo(dtype).eps) / 2  # a rounding's relative error
    arrays, weights = case(name, (6, 33), dtype)
    check(name, arrays, weights, forward=2 * unit, backward=2 * unit)
    out, expected = forward_alone(norm, *arrays), oracle(*wide(arrays))
    assert np.all(np.abs(np.asarray(out, float) - expected) <= 1.01 * unit * abs(expected) + 1e-5)


@pytest.mark.parametrize("mean", every([0, 1e1, 1e2, 1e3, 1e4, 1e5], [1e4]))
def test_a_large_mean_costs_no_digits(mean, monkeypatch):
    def tree(t):
        while t.shape[1] > 1:
            t = t[:, : t.shape[1] // 2] + t[:, t.shape[1] // 2 :]
        return t

    x = case("layer_norm", (16, 512), mean=mean)[0][0]
    exact = oracles.layer_norm(*wide([x]))
    plain = forward_alone(layer_norm, x)  # here XLA adds up a row from left to right
    assert np.abs(np.asarray(plain, float) - exact).max() <= 1e-6
    monkeypatch.setattr(triton_rows, "across", tree)
    # Compiled as users' programs are: quick ones lose a digit of some of these differences.
    usual = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    run = jax.jit(partial(layer_norm, implementation="interpret"), compiler_options=usual)
    out = run(x)
    # A few roundings of numbers up to 4: the digits that XLA's code has where its sums are trees.
    assert np.abs(np.asarray(out, float) - exact).max() <= 1.5 * 2**-22


@pytest.mark.table
def test_gradients_at_a_large_mean():
    check("layer_norm", *case("layer_norm", (16, 512), mean=1e3), forward=1e-6)


def test_inverse_root_has_the_digits_of_the_reference():
    x = (10.0 ** np.random.default_rng(0).uniform(-28, 37, 2001)).astype(np.float32)
    root, rest = quick_jit(triton_programs.rsqrt)(x)
    both = np.asarray(root, np.float64) + np.asarray(rest, np.float64)
    np.testing.assert_allclose(both * np.sqrt(x.astype(np.float64)), 1, rtol=0, atol=1e-10)


@pytest.mark.table
def test_constant_and_zero_rows_give_the_bias_and_finite_gradients():
    _, scale, bias = case("layer_norm", (1, 8))[0]
    x = jnp.stack([jnp.zeros(8), jnp.full(8, 3.0), jnp.full(8, 1e4), jnp.full(8, 98765.4)])
    out, found = value_and_vjp(layer_norm, (x, scale, bias), jnp.ones_like(x))
    np.testing.assert_allclose(out, np.broadcast_to(bias, x.shape), atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in found)


@pytest.mark.table
@pytest.mark.parametrize("given", ["none", "scale", "bias"])
def test_parameters_may_be_absent(given):
    (x, scale, bias), weights = case("layer_norm", (5, 7))
    some = {"none": {}, "scale": {"scale": scale}, "bias": {"bias": bias}}[given]
    out, (dx,) = value_and_vjp(lambda x, **o: layer_norm(x, **some, **o), (x,), weights)
    assert worst(out, oracles.layer_norm(*wide([x]), **some)) <= 5e-7
    s = np.asarray(some.get("scale", np.ones(7)), np.float64)
    want, *_ = oracles.layer_norm_vjp(*wide([x]), s, np.zeros(7), *wide([weights]))
    assert worst(dx, want) <= 2e-6


@pytest.mark.parametrize("dtype", every([jnp.float32, jnp.bfloat16], [jnp.bfloat16]))
def test_the_sum_of_stream_and_branch_is_the_second_output(dtype):
    (x, scale, bias), weights = case("layer_norm", (5, 12), dtype)
    branch, more = weights[::-1] * 2, weights[:, ::-1]

    @quick_jit
    def run(x, branch, scale, bias, weights):
        norm = partial(add_layer_norm, implementation="interpret", scale_offset=1.0)
        (normed, stream), pullback = jax.vjp(norm, x, branch, scale, bias)
        return normed, stream, *pullback((weights, more))

    normed, stream, dx, dbranch, dscale, _ = run(x, branch, scale, bias, weights)
    np.testing.assert_array_equal(stream, x + branch)
    np.testing.assert_array_equal(dx, dbranch)
    total, s, b, w = wide([stream, scale, bias, weights])
    unit = float(jnp.finfo(dtype).eps)
    assert worst(normed, oracles.layer_norm(total, s + 1, b)) <= 4 * unit
    want, want_scale, _ = oracles.layer_norm_vjp(total, s + 1, b, w)
    assert worst(dx, want + np.asarray(more, float)) <= 8 * unit
    assert worst(dscale, want_scale) <= 8 * unit


def test_without_a_branch_the_stream_is_x_and_its_gradient_is_added():
    (x, scale), weights = case("rms_norm", (5, 12))
    more = weights[:, ::-1]

    @quick_jit
    def run(x, scale, weights):
        norm = partial(add_rms_norm, implementation="interpret")
        out, pullback = jax.vjp(lambda x, scale: norm(x, None, scale), x, scale)
        return out, pullback((weights, more))

    (normed, stream), (dx, _) = run(x, scale, weights)
    np.testing.assert_array_equal(stream, x)
    assert worst(normed, oracles.rms_norm(*wide([x, scale]))) <= 5e-7
    want, _ = oracles.rms_norm_vjp(*wide([x, scale, weights]))
    assert worst(dx, want + np.asarray(more, float)) <= 2e-6


@pytest.mark.table
def test_results_of_another_dtype():
    (x, scale), weights = case("rms_norm", (5, 12), jnp.bfloat16)
    wide_out, _ = value_and_vjp(
        rms_norm, (x, scale), weights.astype(jnp.float32), dtype=jnp.float32
    )
    assert wide_out.dtype == jnp.float32
    assert worst(wide_out, oracles.rms_norm(*wide([x, scale]))) <= 5e-7
    _, stream = add_rms_norm(x, x, scale, implementation="interpret", dtype=jnp.float32)
    assert stream.dtype == jnp.bfloat16


@pytest.mark.table
def test_the_last_axes_are_folded_into_one():
    (x, *_), weights = case("layer_norm", (3, 4, 5))
    scale = jnp.linspace(0.5, 2, 20).reshape(4, 5)
    norm = partial(layer_norm, axis=(1, 2), implementation="interpret")
    out, pullback = jax.vjp(norm, x, scale)
    assert worst(out, oracles.layer_norm(*wide([x, scale]), axis=(1, 2))) <= 5e-7
    dx, dscale = pullback(weights)
    want = oracles.layer_norm_vjp(
        *wide([x, scale]), np.zeros((4, 5)), *wide([weights]), axis=(1, 2)
    )
    assert worst(dx, want[0]) <= 2e-6
    assert worst(dscale, want[1]) <= 2e-6
    assert dscale.shape == (4, 5)


# --- What is not served ---


@pytest.mark.parametrize("implementation", ["triton", "interpret"])
def test_what_no_kernel_serves_is_an_error_that_says_why(implementation):
    x = jnp.ones((2, 3, 4))
    norm = partial(layer_norm, implementation=implementation)
    for options, reason in [
        ({"mask": x > 0}, "it has a mask"),
        ({"axis": 0}, r"axes \(0,\) of 3, not over the last"),
        ({"scale": jnp.ones((2, 1, 4))}, r"scale has shape \(2, 1, 4\), not that of a row, \(4,\)"),
        ({"axis_name": "i"}, "shared over the mapped axis 'i'"),
    ]:
        with pytest.raises(
            ValueError, match=f"'{implementation}' cannot serve this norm.*{reason}"
        ):
            norm(x, **options)


def test_the_reason_can_be_asked_for():
    x = jax.ShapeDtypeStruct((2, 3, 70000), jnp.bfloat16)
    assert why_not(x) == "rows are 70000 wide; kernels take up to 65536"
    assert why_not(x, axis=(0, 1)).startswith("its statistics run over the axes (0, 1) of 3")
    assert why_not(jax.ShapeDtypeStruct((2, 3, 4), jnp.float16), axis=(1, 2)) is None
    assert why_not(jnp.ones((2, 4)), scale=np.ones(4)).startswith("scale is of float64; kernels")


def test_the_kernel_off_a_gpu_is_an_error_that_says_why():
    with pytest.raises(ValueError, match=r"'triton' cannot serve .* for cpu, the kernel"):
        layer_norm(jnp.ones((2, 4)), implementation="triton")


def test_what_the_kernels_do_not_take():
    norm = partial(layer_norm, implementation="interpret")
    with pytest.raises(ValueError, match=r"nothing to compute in shape \(0, 4\)"):
        norm(jnp.ones((0, 4)))
    with x64(), pytest.raises(ValueError, match="x is of float64; kernels take float32, bfloat16"):
        norm(jnp.ones((2, 4), jnp.float64))
    with pytest.raises(ValueError, match="rows are 65537 wide"):
        jax.jit(norm).lower(jax.ShapeDtypeStruct((2, 65537), jnp.float32))
    with pytest.raises(ValueError, match="there are 2147483648 elements; kernels take up to"):
        jax.jit(norm).lower(jax.ShapeDtypeStruct((2**21, 1024), jnp.bfloat16))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 5), (0,)])
def test_empty_arrays_stay_empty(shape):
    out, pullback = jax.vjp(layer_norm, jnp.ones(shape), jnp.ones(shape[-1]), jnp.ones(shape[-1]))
    assert out.shape == shape
    dx, dscale, dbias = pullback(out)
    assert dx.shape == shape
    assert not np.asarray(dscale).any()
    assert not np.asarray(dbias).any()


# --- Tiles ---


def test_every_row_of_the_table_says_where_it_is_from():
    for row in tiles.table():
        assert set(row) == {*tiles.KEYS}
        assert row["rows"] & (row["rows"] - 1) == 0
        assert row["source"]


def test_tiles_are_of_the_nearest_wider_row_of_the_device_or_of_the_rule():
    at = partial(tiles.tile, "forward", dtype="bfloat16")
    assert at(width=3000, device="NVIDIA H200") == at(width=4096, device="NVIDIA H200")
    (row,) = (
        row for row in tiles.table()
        if (row["operation"], row["width"], row["dtype"]) == ("forward", 4096, "bfloat16")
    )  # fmt: skip
    assert at(width=4096, device="NVIDIA H200") == Tile(*(row[k] for k in tiles.KEYS[4:-2]))
    assert at(width=100, device="NVIDIA H200") == tiles.rule("forward", 100)
    for device in (None, "NVIDIA A100-SXM4-40GB"):
        assert at(width=4096, device=device) == tiles.rule("forward", 4096)


@pytest.mark.parametrize("width", [1, 7, 768, 1024, 8192, 65536])
def test_the_rule_gives_what_a_kernel_can_use(width):
    for operation in lowering.KERNELS:
        tile = tiles.rule(operation, width)
        assert tile.rows & (tile.rows - 1) == 0
        assert 1 <= tile.warps <= 32
        assert tile.programs >= (operation == "backward")


@pytest.mark.table
def test_tuning_keeps_the_best_tile_and_all_rows_of_others(tmp_path):
    best = {"forward": Tile(2, 4), "backward": Tile(1, 8, 2, True)}
    tried = []

    def choices(operation, width):
        tried.append((operation, width))
        return iter([Tile(1, 4, 1), best[operation]])

    def measure(call):  # the first of each pair takes longer
        jax.block_until_ready(call())
        times.append(len(times))
        return -times[-1]

    times: list[int] = []
    options = {"measure": measure, "choices": choices, "interpret": True}
    table = tune.tune([(3, 5)], ["float32"], "a trial", **options)
    assert tried == [("forward", 5), ("backward", 5)]
    kind = jax.devices()[0].device_kind
    found = {row["operation"]: row for row in table if row["device"] == kind}
    for operation, tile in best.items():
        row = found[operation]
        assert Tile(*(row[name] for name in tiles.KEYS[4:-2])) == tile
        assert (row["width"], row["dtype"]) == (5, "float32")
        assert row["source"].startswith("a trial; jax ")
        assert row["microseconds"] < 0  # as measured here
    assert [row for row in table if row["device"] != kind] == sorted(tiles.table(), key=tune._key)
    tune.write(table, tmp_path / "tiles.json")
    assert json.loads((tmp_path / "tiles.json").read_text())["tiles"] == table


@pytest.mark.parametrize("width", [1, 768, 8192, 16384])
def test_there_are_tiles_to_try_at_every_width(width):
    for operation in lowering.KERNELS:
        assert len(set(tune.candidates(operation, width))) > 1


def test_tuning_without_a_gpu_is_one_line():
    with pytest.raises(SystemExit) as stop, mock.patch("sys.argv", ["tune", "--note=x"]):
        tune.main()
    assert stop.value.code == 2
