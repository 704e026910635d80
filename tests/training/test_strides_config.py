"""``model.stride`` and other fields of the front end: what a config may ask for; lengths in tokens."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from resnorm_jax import build
from resnorm_jax.config import experiment, from_dict
from resnorm_jax.data import Dataset, Examples, describe
from resnorm_jax.errors import UserError
from resnorm_jax.training.identity import described
from resnorm_jax.training.saved_run import Trained

META = {
    "kind": "features", "classes": ["a", "b"], "vocabulary": [], "max_length": 50, "shape": [3],
}  # fmt: skip


def config(**model):
    values = experiment(
        data={"source": "sample_text"}, model={"width": 8, "depth": 1, "heads": 2, **model}
    )
    return from_dict(values.to_dict())


@pytest.mark.parametrize(
    ("model", "kernel", "stride", "longest"),
    [
        ({}, 1, 1, 50),
        ({"stride": 1, "kernel": 3}, 3, 1, 50),
        ({"stride": 8}, 8, 8, 7),
        ({"stride": 8, "kernel": 16}, 16, 8, 7),
        ({"stride": 8, "max_length": 9}, 8, 8, 9),
        ({"stride": 50}, 50, 50, 1),
    ],
)
def test_the_model_of_a_config(model, kernel, stride, longest):
    built = build.build_model(config(**model), META)
    assert (built.front_end.kernel, built.front_end.stride) == (kernel, stride)
    assert built.max_length == longest


@pytest.mark.parametrize(
    ("model", "kernel", "stride", "longest"),
    [
        ({}, 3, 3, 448),
        ({"stride": 1}, 1, 1, 1344),
        ({"kernel": 5}, 5, 1, 1344),
        ({"stride": 8}, 8, 8, 168),
    ],
)
def test_long_series_are_in_patches_unless_the_config_says_otherwise(
    model, kernel, stride, longest
):
    meta = META | {"max_length": 1344, "stride": 3}
    built = build.build_model(config(**model), meta)
    assert (built.front_end.kernel, built.front_end.stride) == (kernel, stride)
    assert built.max_length == longest
    del meta["stride"]  # of a run of a version before
    assert build.kernel_and_stride(config().model, meta) == (1, 1)


@pytest.mark.parametrize(
    ("length", "stride"), [(1, 1), (512, 1), (513, 2), (1344, 3), (10**5, 196)]
)
def test_the_longest_row_has_at_most_512_tokens(length, stride):
    rows = Examples(np.zeros((2, length, 1), np.float32), np.full(2, length), np.zeros(2, np.int32))
    data = Dataset("long", "features", rows, rows.take(np.arange(1)), ("a",))
    assert describe(data)["stride"] == stride
    assert describe(replace(data, kind="tokens", vocabulary=("a",)))["stride"] == 1


def test_a_run_keeps_its_stride():
    data = SimpleNamespace(data={"stride": 1}), SimpleNamespace(data={}), None
    rows = Examples(np.zeros((2, 600, 1), np.float32), np.full(2, 600), np.zeros(2, np.int32))
    long = Dataset("long", "features", rows, rows, ("a",))
    assert [described(long, stored)["stride"] for stored in data] == [1, 1, 2]


@pytest.mark.parametrize(
    ("model", "meta", "says"),
    [
        (
            {"stride": 8, "kernel": 7},
            {},
            "model.kernel: 7 is under model.stride 8: .*; give kernel=8",
        ),
        ({"stride": 8, "max_length": 6}, {}, "6 is under the data's longest, 7 tokens of stride 8"),
        ({"stride": 8, "kernel": 51}, {}, "model.kernel: 51 reaches past .*, 50.* at most 50"),
        ({"stride": 51}, {}, "model.stride: 51 reaches past .*, 50.* at most 50"),
        ({"stride": 2}, {"kind": "tokens"}, "model.stride: not read: the data are tokens"),
        ({"stride": 1}, {"kind": "images", "shape": [8, 8, 1]}, "model.stride: not read"),
    ],
)
def test_mistakes(model, meta, says):
    with pytest.raises(UserError, match=says) as error:
        build.build_model(config(**model), META | meta)
    assert "\n" not in str(error.value)


def test_attention_is_chosen_by_tokens(monkeypatch):
    monkeypatch.setattr(build, "choose_attention", lambda queries, keys: (queries, keys))
    assert build.attention_of(config(), META) == (50, 50)
    assert build.attention_of(config(stride=8), META) == (7, 7)


def test_a_batch_is_as_large_as_its_tokens():
    wide = {"width": 2**17, "mlp_width": 8, "heads": 2}
    made = config(**wide)
    made = replace(made, train=replace(made.train, batch_size=2**16))
    with pytest.raises(UserError, match=r"train\.batch_size: .* TiB"):
        build.build_model(made, META)
    build.build_model(replace(made, model=replace(made.model, stride=25)), META)


@pytest.mark.parametrize(
    ("model", "longest"), [({}, 50), ({"stride": 8}, 56), ({"stride": 8, "max_length": 10}, 80)]
)
def test_a_row_may_have_all_positions_of_the_tokens_learned(model, longest):
    trained = Trained(None, config(**model), SimpleNamespace(data=META), {}, 0, "last", None)

    def rows(length):
        lengths = np.array([3, length], np.int32)
        return Examples(np.zeros((2, length, 3), np.float32), lengths, np.zeros(2, np.int32))

    trained.check_lengths(rows(longest))
    says = f"row 2 has {longest + 1} positions, the model learned {longest};"
    with pytest.raises(UserError, match=says):
        trained.check_lengths(rows(longest + 1))


def test_tokens_begin_as_small_as_the_config_says():
    meta = META | {"kind": "tokens", "vocabulary": ["<pad>", "<unk>", "a"]}
    built = [build.build_model(config(**m), meta) for m in ({}, {"embedding_std": 0.02})]
    assert [model.front_end.gain for model in built] == [1.0, 0.02]
    with pytest.raises(UserError, match=r"model\.embedding_std: not read: the data are features"):
        build.build_model(config(embedding_std=0.02), META)
    with pytest.raises(UserError, match=r"model\.embedding_std: must be over 0"):
        config(embedding_std=0.0)
