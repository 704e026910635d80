"""Scaling, validation split, metadata, and reading new inputs by the metadata."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnorm_jax.data import (
    Dataset,
    Examples,
    describe,
    load_dataset,
    majority_accuracy,
    scale_channels,
    split_validation,
)
from resnorm_jax.data.inputs import read_inputs
from resnorm_jax.data.series import bundled_folder
from resnorm_jax.data.splits import held_counts
from resnorm_jax.errors import UserError


def ragged(seed, rows, channels=3, longest=6, shift=5.0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, size=rows).astype(np.int32)
    x = rng.normal(shift, 3.0, size=(rows, longest, channels)).astype(np.float32)
    x[..., 0] = 7.0  # a constant channel
    x[np.arange(longest) >= lengths[:, None]] = 0
    return Examples(x, lengths, np.arange(rows, dtype=np.int32) % 3)


def dataset(**changes):
    fields = {
        "name": "toy",
        "kind": "features",
        "train": ragged(0, 30),
        "test": ragged(1, 9, shift=50.0),
        "classes": ("a", "b", "c"),
    }
    return Dataset(**(fields | changes))


def valid_values(examples):
    return np.concatenate([x[:n] for x, n in zip(examples.x, examples.lengths, strict=True)])


def test_scaling_uses_valid_training_positions_only():
    data = dataset(valid=ragged(2, 5))
    scaled = scale_channels(data)
    values = valid_values(data.train).astype(np.float64)
    np.testing.assert_allclose(scaled.scaling[0], values.mean(axis=0), rtol=1e-12)
    expected = values.std(axis=0)
    expected[0] = 1.0
    np.testing.assert_allclose(scaled.scaling[1], expected, rtol=1e-12)
    for name in ("train", "valid", "test"):
        before, after = getattr(data, name), getattr(scaled, name)
        assert after.x.dtype == np.float32
        want = (valid_values(before) - scaled.scaling[0]) / scaled.scaling[1]
        np.testing.assert_allclose(valid_values(after), want, rtol=1e-5, atol=1e-6)
        assert not after.x[np.arange(6) >= after.lengths[:, None]].any()
    assert (valid_values(scaled.train)[:, 0] == 0).all()
    np.testing.assert_allclose(valid_values(scaled.train)[:, 1:].std(axis=0), 1, rtol=1e-5)
    assert data.scaling is None


def test_scaling_leaves_other_kinds_and_refuses_twice():
    data = load_dataset("digits", {"view": "image"})
    assert scale_channels(data) is data
    with pytest.raises(ValueError, match="scaled already"):
        scale_channels(scale_channels(dataset()))


def test_validation_split():
    data = dataset(train=ragged(0, 31))
    split = split_validation(data, 0.25, seed=3)
    assert len(split.valid) == 8
    together = np.concatenate([split.train.x, split.valid.x])
    assert sorted(map(bytes, together)) == sorted(map(bytes, data.train.x))
    assert set(np.bincount(split.valid.y)) <= {2, 3}
    again, other = split_validation(data, 0.25, 3), split_validation(data, 0.25, 4)
    np.testing.assert_array_equal(split.valid.x, again.valid.x)
    assert (split.valid.x != other.valid.x).any()
    assert split_validation(split, 0.5, 0) is split
    np.testing.assert_array_equal(split.test.x, data.test.x)


def test_rare_classes_stay_in_training():
    train = ragged(0, 6)
    train = Examples(train.x, train.lengths, np.array([0, 1, 1, 1, 1, 2], np.int32))
    split = split_validation(dataset(train=train), 0.5, 0)
    assert np.bincount(split.train.y, minlength=3).min() == 1
    assert set(split.valid.y) == {1}


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
)
@settings(max_examples=200, deadline=None)
def test_held_counts(counts, fraction):
    counts = np.array(counts)
    held = held_counts(counts, fraction)
    assert (held >= 0).all()
    assert (held <= np.maximum(counts - 1, 0)).all()
    assert (np.abs(held - counts * fraction) <= 1 + 1e-9).all()
    assert held.sum() <= round(fraction * counts.sum())
    if (counts * (1 - fraction) >= 2).all():
        assert held.sum() == round(fraction * counts.sum())


def test_validation_errors():
    with pytest.raises(
        UserError, match=r"^config.train.validation: 0.01 of 30 rows holds out nothing"
    ):
        split_validation(dataset(), 0.01, 0)
    with pytest.raises(UserError, match=r"^config.train.validation: 1.5 is no fraction"):
        split_validation(dataset(), 1.5, 0)


def test_majority():
    train, test = ragged(0, 30), ragged(1, 10)
    train.y[:20] = 2
    assert majority_accuracy(dataset(train=train, test=test)) == pytest.approx(0.3)


def through_json(data):
    return json.loads(json.dumps(describe(data)))


def test_describe_is_plain_json():
    meta = describe(scale_channels(load_dataset("series", {"name": "BasicMotions"})))
    assert json.loads(json.dumps(meta)) == meta
    assert meta["name"] == "BasicMotions"
    assert meta["shape"] == [6]
    assert meta["max_length"] == 100
    assert meta["classes"] == ["Standing", "Running", "Walking", "Badminton"]
    assert meta["source"]["options"]["name"] == "BasicMotions"
    assert describe(load_dataset("digits", {"view": "image"}))["shape"] == [8, 8, 1]
    assert describe(load_dataset("sample_text", {}))["shape"] == []


def test_inputs_from_ts_equal_the_scaled_test_split(tmp_path):
    data = scale_channels(load_dataset("series", {}))
    path = bundled_folder() / "JapaneseVowels" / "JapaneseVowels_TEST.ts"
    got = read_inputs(path, through_json(data))
    np.testing.assert_array_equal(got.x, data.test.x)
    np.testing.assert_array_equal(got.lengths, data.test.lengths)
    np.testing.assert_array_equal(got.y, data.test.y)
    bare = tmp_path / "bare.ts"
    rows = [line.rsplit(":", 1)[0] for line in path.read_text().split("@data\n")[1].splitlines()]
    bare.write_text("@classLabel false\n@data\n" + "\n".join(rows))
    got = read_inputs(bare, through_json(data))
    np.testing.assert_array_equal(got.x, data.test.x)
    assert (got.y == -1).all()


def test_inputs_from_npz_json_and_csv_agree(tmp_path):
    train, test = ragged(0, 30, channels=1), ragged(1, 9, channels=1, shift=50.0)
    for part in (train, test):
        part.x[..., 0] += np.where(part.x[..., 0] != 0, np.arange(6) * part.y[:, None], 0)
    data = scale_channels(dataset(train=train, test=test))
    meta = through_json(data)
    np.savez(tmp_path / "a.npz", x=test.x, lengths=test.lengths, y=np.array(list("abc"))[test.y])
    rows = [x[:n].tolist() for x, n in zip(test.x, test.lengths, strict=True)]
    flat = [[step[0] for step in row] for row in rows]
    labelled = [{"x": row, "label": "abc"[y]} for row, y in zip(rows, test.y, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"x": row}) for row in flat))
    (tmp_path / "a.csv").write_text("\n".join(",".join(map(str, row)) for row in flat))
    for name, known in (("a.npz", 1), ("a.jsonl", 1), ("b.jsonl", 0), ("a.csv", 0)):
        got = read_inputs(tmp_path / name, meta)
        longest = test.lengths.max()
        np.testing.assert_allclose(got.x, data.test.x[:, :longest], rtol=1e-5)
        np.testing.assert_array_equal(got.lengths, test.lengths)
        np.testing.assert_array_equal(got.y, test.y if known else -np.ones(9))


def test_arrays_read_the_same_to_learn_from_and_to_predict(tmp_path):
    rng = np.random.default_rng(0)
    kinds = {
        "features": rng.normal(size=(9, 5, 2)),
        "tokens": np.array([[3, 1, 0, 0], [2, 2, 5, 0], [4, 0, 0, 0]] * 3),
        "images": rng.integers(0, 256, (9, 4, 6, 3)).astype(np.uint8),
    }
    for kind, x in kinds.items():
        path = str(tmp_path / f"{kind}.npz")
        np.savez(path, x=x, y=np.arange(9) % 2)
        data = load_dataset("arrays", {"train": path, "test": path})
        got = read_inputs(path, through_json(data))
        assert data.kind == kind
        for name in ("x", "lengths", "y"):
            np.testing.assert_array_equal(getattr(got, name), getattr(data.train, name))


def test_text_inputs_are_encoded_as_in_training(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("body,mood\na fine film,good\na dull film,bad\nfine and long text,good\n")
    columns = {"text_column": "body", "label_column": "mood"}
    for tokenizer in ("words", "spaces", "places", "bytes"):
        options = {"train": str(path), "test": str(path), "tokenizer": tokenizer, "max_length": 3}
        data = load_dataset("text", {**options, **columns})
        meta = through_json(data)
        got = read_inputs(path, meta)
        np.testing.assert_array_equal(got.x, data.train.x)
        np.testing.assert_array_equal(got.y, data.train.y)
        (tmp_path / "new.jsonl").write_text(
            '{"body": "a fine film"}\n{"x": [3, 1], "mood": "bad"}\n'
        )
        got = read_inputs(tmp_path / "new.jsonl", meta)
        np.testing.assert_array_equal(got.x[0], data.train.x[0])
        assert got.x[1].tolist() == [3, 1, 0]
        assert got.y.tolist() == [-1, 0]


def test_image_and_token_inputs(tmp_path):
    meta = through_json(load_dataset("digits", {"view": "image"}))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=pixels)
    np.testing.assert_allclose(read_inputs(tmp_path / "a.npz", meta).x, pixels / 255, rtol=1e-6)
    tokens = dataset(kind="tokens", vocabulary=tuple("_abc"))
    (tmp_path / "a.csv").write_text("1,2,3\n2\n")
    got = read_inputs(tmp_path / "a.csv", through_json(tokens))
    assert got.x.tolist() == [[1, 2, 3], [2, 0, 0]]
    assert got.x.dtype == np.int32


FEATURES = describe(dataset())
ONE = FEATURES | {"shape": [1]}
TOKENS = describe(dataset(kind="tokens", vocabulary=tuple("_abc")))
IMAGES = FEATURES | {"kind": "images", "shape": [2, 2, 1]}
TEXT = TOKENS | {
    "vocabulary": ["<pad>", "<unk>", "a"],
    "encoding": {
        "tokenizer": "spaces",
        "max_length": 5,
        "text_column": "text",
        "label_column": "label",
    },
}
BAD_INPUTS = [
    ("a.txt", "x", FEATURES, "{p}: file suffix: unknown value '.txt'; "),
    ("a.csv", "", FEATURES, "{p}: the file is empty; give a file with at least one row"),
    ("a.csv", "1,2\n1,b\n", ONE, "{p}:2: could not convert string to float: 'b'; write rows of"),
    ("a.csv", "1,2\n1,nan\n", ONE, "{p}:2: missing or infinite values are not supported"),
    ("a.csv", "1,2\n", FEATURES, "{p}:1: shape (2, 1), the model was trained on 3 channels;"),
    ("a.csv", "1,2\n1,7\n", TOKENS, "{p}:2: token 7; give one list of token ids from 0 to 3"),
    ("a.csv", "1,2.5\n", TOKENS, "{p}:1: not a list of integer token ids; found [1, 2.5]"),
    ("a.csv", "text\na\n\n \n", TEXT, "{p}:4: empty text in column 'text'; give a text or"),
    ("a.csv", "text,label\na,z\n", TEXT, "{p}:2: unseen label 'z', not in the model's classes;"),
    ("a.csv", "body\na\n", TEXT, "{p}:2: no column 'text' (data.text_column); choose one of: body"),
    ("a.jsonl", '{"x": [1]}\n{"y": 1}\n', ONE, "{p}:2: no 'x'; write"),
    ("a.jsonl", '{"x": [1]}\n{"x": [1}\n', ONE, "{p}:2: malformed JSON at column 9"),
    ("a.jsonl", '{"x": [[1, 2], [3]]}\n', ONE, "{p}:1: ragged lists; give numbers"),
    ("a.jsonl", '{"x": [1, null]}\n', ONE, "{p}:1: not numbers [[channel, ...], ...], one"),
    ("a.jsonl", '{"x": []}\n', ONE, "{p}:1: not numbers [[channel, ...], ...], one list"),
    ("a.jsonl", '{"x": [1, "2"]}\n', ONE, "{p}:1: not numbers [[channel, ...], ...], one"),
    ("a.jsonl", '{"x": [1e300]}\n', ONE, "{p}:1: missing or infinite values are not supported"),
    ("a.jsonl", '{"x": [[1, 2]]}\n', FEATURES, "{p}:1: shape (1, 2), the model was trained on 3"),
    ("a.jsonl", '{"x": [[1, 2]]}\n', IMAGES, "{p}:1: shape (1, 2), the model was trained on (2,"),
    ("a.jsonl", '{"x": [-1]}\n', TOKENS, "{p}:1: token -1; give one list of token ids from 0"),
    ("a.jsonl", '{"x": [1], "label": "q"}\n', ONE, "{p}:1: unseen label 'q', not in the model's"),
    ("a.ts", "@data\n1,2\n1,2:3,4\n", ONE, "{p}:3: 2 channels, the first case has 1; every"),
    ("a.ts", "@data\n1,2\n1,x\n", ONE, "{p}:3: 'x' in channel 1 is not a finite number"),
]


@pytest.mark.parametrize(("name", "text", "meta", "message"), BAD_INPUTS)
def test_bad_inputs(tmp_path, name, text, meta, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_inputs(path, meta)
    assert str(error.value).startswith(message.format(p=path))
    assert "\n" not in str(error.value)


def test_bad_npz_inputs_and_missing_files(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones((2, 3), int))
    with pytest.raises(UserError, match=r"'x' holds tokens, the model was trained on features"):
        read_inputs(path, FEATURES)
    np.savez(path, x=np.ones((2, 3, 3)), y=np.array(["a", "z"]))
    with pytest.raises(UserError, match=r"a.npz: row 2: unseen label 'z'"):
        read_inputs(path, FEATURES)
    for name in ("no.npz", "no.ts", "no.csv", "no.jsonl"):
        with pytest.raises(UserError, match=f"{name}: .*check the path"):
            read_inputs(tmp_path / name, FEATURES)
