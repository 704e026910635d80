"""Names that must stay different, values that float32 cannot square, and damaged metadata."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnorm_jax.data import Dataset, Examples, describe, load_dataset, scale_channels
from resnorm_jax.data.inputs import read_inputs
from resnorm_jax.data.listops_cache import cache_path
from resnorm_jax.data.metadata import check_meta
from resnorm_jax.data.names import data_name
from resnorm_jax.data.preprocess import check_values
from resnorm_jax.data.tokenization import build_vocabulary, encoder
from resnorm_jax.errors import UserError


def one_channel(train, test):
    parts = [np.array(part, np.float32)[:, None, None] for part in (train, test)]
    rows = [Examples(x, np.ones(len(x), np.int32), np.arange(len(x)) % 2) for x in parts]
    return Dataset("made", "features", *rows, ("a", "b"))


def test_latin_1_labels_that_differ_in_an_accent_stay_two(tmp_path):
    text = "@classLabel true caf\xe9 caf\xe8\n@data\n1,2:caf\xe9\n3,4:caf\xe8\n"
    (tmp_path / "a.ts").write_bytes(text.encode("latin-1"))
    (tmp_path / "b.ts").write_text(text, encoding="utf-8")
    data = load_dataset("series", {"train": str(tmp_path / "a.ts"), "test": str(tmp_path / "b.ts")})
    assert data.classes == ("caf\xe9", "caf\xe8")
    assert data.train.y.tolist() == data.test.y.tolist() == [0, 1]


def test_labels_with_two_minus_signs_are_texts(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,--1\nb,1\nc,-2\n")
    options = {"train": str(path), "test": str(path), "tokenizer": "spaces"}
    assert load_dataset("text", options).classes == ("--1", "-2", "1")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("splice/train.csv", "splice"),
        ("/data/splice/train.csv", "splice"),
        ("aclImdb\\Train", "aclImdb"),
        ("train.csv", "train"),
        ("./train.csv", "train"),
        ("../data.npz", "data"),
        ("/train.csv", "train"),
        ("splice/dna.csv", "dna"),
        ("UCR/Wine/Wine_TRAIN.ts", "Wine"),
        ("UCR/Wine/_TRAIN.ts", ""),
    ],
)
def test_data_are_called_by_what_tells_them_apart(path, name):
    assert data_name(path) == name
    assert data_name(Path(path.replace("\\", "/"))) == name


def test_the_name_of_padding_in_a_text_is_a_word():
    to_ids = encoder("spaces", ("<pad>", "<unk>", "a"))
    assert to_ids("a <pad> <unk> b") == [2, 1, 1, 1]
    known = encoder("spaces", ("<pad>", "<unk>", "a", "<pad>"))
    assert known("<pad> a") == [3, 2]


def test_a_word_is_another_one_at_each_place():
    names = build_vocabulary(["a b", "A a"], "places", 9)
    assert names == ("<pad>", "<unk>", "1:a", "2:a", "2:b")
    to_ids = encoder("places", names)
    assert to_ids("A  b") == [2, 4]
    assert to_ids("b a a") == [1, 3, 1]  # at these places nobody saw them


def test_a_value_that_scaling_makes_too_large_is_refused():
    data = one_channel([1, 1 + 1e-6, 1, 1 + 1e-6], [1, 3e38])
    with pytest.raises(UserError, match=r"^made: test rows: channel 1 holds .* after scaling"):
        scale_channels(data)
    options = {"options": {"train": "a.npz", "test": "b.npz"}}
    with pytest.raises(UserError, match=r"^b.npz: test rows: channel 1 holds 3e\+38, over .*scale"):
        check_values(one_channel([1, 2], [1, 3e38]).replace(source=options))
    huge = scale_channels(one_channel([1e38, -1e38, 3e38, 0], [1e38, 2e38]))
    assert np.abs(huge.train.x).max() < 3


def test_a_new_row_that_scaling_makes_too_large_is_named(tmp_path):
    meta = describe(scale_channels(one_channel([1, 1 + 1e-6, 1, 1 + 1e-6], [1, 1])))
    (tmp_path / "a.csv").write_text("1,1\n1,3e37\n")
    with pytest.raises(UserError, match=r"a.csv:2: channel 1 holds .* after scaling"):
        read_inputs(tmp_path / "a.csv", meta)
    (tmp_path / "b.csv").write_text("1,1\n1,1e10\n")
    assert np.isfinite(read_inputs(tmp_path / "b.csv", meta).x).all()


META = json.loads(json.dumps(describe(scale_channels(one_channel([1, 2, 3, 4], [1, 1])))))
ENCODING = {"tokenizer": "spaces", "max_length": 4, "text_column": "text", "label_column": "y"}
BAD_META = [
    ("kind", "feature", "must be one of features, tokens, images"),
    ("kind", ["features"], "must be one of"),
    ("classes", [], "must be a list of different names"),
    ("classes", ["a", "a"], "must be a list of different names"),
    ("classes", {"a": 0}, "must be a list of different names"),
    ("classes", [1, 2], "must be a list of different names"),
    ("vocabulary", None, "must be a list of texts"),
    ("shape", [1, 2], "features have 1 sizes beside the length"),
    ("shape", [-1], "must be a list of sizes"),
    ("shape", "1", "must be a list of sizes"),
    ("scaling", [], "must be null, or mean and scale"),
    ("scaling", {"mean": [0.0]}, "must be null, or mean and scale"),
    ("scaling", {"mean": [0.0], "scale": [0.0]}, "must be null, or mean and scale"),
    ("scaling", {"mean": [float("nan")], "scale": [1.0]}, "must be null, or mean and scale"),
    ("scaling", {"mean": [0.0] * 2, "scale": [1.0] * 2}, r"2 channels, 'shape' is \[1\]"),
    ("encoding", None, "must be an object with tokenizer"),
    ("encoding", {"tokenizer": "word", "max_length": 4}, "must be an object with tokenizer"),
    ("encoding", {"tokenizer": "words", "max_length": 0}, "must be an object with tokenizer"),
    ("encoding", ENCODING | {"text_column": 3}, "must be an object with tokenizer"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD_META)
def test_damaged_metadata_is_one_line(tmp_path, key, value, message):
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(UserError, match=rf"^config.json: data.{key}: .*{message}") as error:
        read_inputs(tmp_path / "a.csv", META | {key: value})
    assert "\n" not in str(error.value)


def test_missing_metadata_is_one_line():
    check_meta(META)
    check_meta(META | {"encoding": ENCODING, "kind": "tokens", "vocabulary": ["<pad>"]})
    for key in ("kind", "classes", "vocabulary", "shape", "scaling", "encoding"):
        with pytest.raises(UserError, match=rf"^run: data.{key}: missing; restore"):
            check_meta({k: v for k, v in META.items() if k != key}, "run: data")
    with pytest.raises(UserError, match=r"^config.json: data: \[\] is no object"):
        check_meta([])


SMALL = {"min_length": 5, "max_length": 40, "max_depth": 4, "max_args": 3, "train": 30, "valid": 0}


def test_a_cache_under_the_name_of_other_options_is_not_used(tmp_path, caplog):
    from resnorm_jax.data.listops import ListOpsOptions

    few, more = (SMALL | {"test": n, "cache": str(tmp_path)} for n in (5, 6))
    first = load_dataset("listops", few)
    cache_path(ListOpsOptions(**few)).rename(cache_path(ListOpsOptions(**more)))
    assert len(load_dataset("listops", more).test) == 6
    assert "of other options" in caplog.text
    np.testing.assert_array_equal(load_dataset("listops", few).train.x, first.train.x)


def test_a_cache_folder_of_no_user_is_one_line():
    with pytest.raises(UserError, match=r"^data.cache: '~no_such_user_1/x': "):
        load_dataset("listops", SMALL | {"test": 5, "cache": "~no_such_user_1/x"})


def test_a_sparse_file_of_a_terabyte_is_refused_at_once(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"a.csv: 1099511627776 bytes, over the limit"):
        read_inputs(path, META)
