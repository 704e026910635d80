"""Weights zeroed and rounded, against loops in NumPy."""

import numpy as np
import pytest

from resnorm_jax.lab.pruning import weights


@pytest.fixture
def params():
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "encoder": {
            "layers_0": {
                "attention": {"query": {"kernel": normal(2, 5, 3, 7), "bias": normal(2, 3, 7)}},
                "feed_forward": {"fc1": {"kernel": normal(2, 5, 11)}},
            }
        },
        "front_end": {"project": {"kernel": normal(3, 1, 5)}, "scale": normal(5)},
    }


def kernel_list(tree):
    return [
        tree["encoder"]["layers_0"]["attention"]["query"]["kernel"],
        tree["encoder"]["layers_0"]["feed_forward"]["fc1"]["kernel"],
        tree["front_end"]["project"]["kernel"],
    ]


@pytest.mark.parametrize("share", [0.0, 0.013, 0.5, 1.0])
def test_the_largest_weights_of_the_whole_model_stay(params, share):
    pruned = weights.magnitude_pruned(params, share)
    everything = np.concatenate([w.ravel() for w in kernel_list(params)])
    count = round(share * everything.size)
    threshold = np.sort(np.abs(everything))[::-1][count - 1] if count else np.inf
    for before, after in zip(kernel_list(params), kernel_list(pruned), strict=True):
        np.testing.assert_array_equal(after, np.where(np.abs(before) >= threshold, before, 0))
        assert after.dtype == before.dtype
    assert sum((w != 0).sum() for w in kernel_list(pruned)) == count
    query = ("encoder", "layers_0", "attention", "query")
    old, new = params, pruned
    for name in query:
        old, new = old[name], new[name]
    assert new["bias"] is old["bias"]  # only kernels are touched
    assert pruned["front_end"]["scale"] is params["front_end"]["scale"]


def test_of_equal_weights_just_enough_stay():
    pruned = weights.magnitude_pruned({"kernel": np.ones((3, 3), np.float32)}, 0.5)
    np.testing.assert_array_equal(pruned["kernel"].ravel(), [1, 1, 1, 1, 0, 0, 0, 0, 0])


def test_each_output_channel_of_each_layer_has_its_scale(params):
    rounded, found = weights.int8_rounded(params)
    scales = moved = squares = 0.0
    for number, (w, got) in enumerate(zip(kernel_list(params), kernel_list(rounded), strict=True)):
        # One channel each: [layer, head, feature], [layer, feature] and [feature].
        channels = [(0, 2, 3), (0, 2), (2,)][number]
        for index in np.ndindex(*(w.shape[a] for a in channels)):
            here = [slice(None)] * w.ndim
            for axis, i in zip(channels, index, strict=True):
                here[axis] = i
            column = w[tuple(here)].astype(np.float64)
            scale = np.abs(column).max() / 127
            expected = np.rint(column / scale) * scale
            np.testing.assert_allclose(got[tuple(here)], expected, rtol=1e-6)
            assert np.abs(got[tuple(here)] - column).max() <= 0.5001 * scale
            scales += 1
            moved += ((expected - column) ** 2).sum()
            squares += (column**2).sum()
    assert found["scales"] == scales == 2 * 3 * 7 + 2 * 11 + 5
    assert found["rms_error"] == pytest.approx(np.sqrt(moved / squares), rel=1e-6)
    assert 0.4 < found["largest_step"] <= 0.5 + 1e-9
    assert rounded["front_end"]["scale"] is params["front_end"]["scale"]


def test_levels_are_symmetric_and_a_channel_of_zeros_stays():
    w = np.array([[-3.0, 0.0], [1.5, 0.0], [0.0118, 0.0]])
    levels, scale = weights.int8_levels(w, (1,))
    np.testing.assert_array_equal(levels, [[-127, 0], [64, 0], [0, 0]])  # 63.5 goes to even
    np.testing.assert_allclose(scale, [[3 / 127, 0]])
    assert levels.dtype == np.int8
