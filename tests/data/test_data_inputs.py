"""Malformed rows to predict, for each kind of model and each format."""

import json
import os
import re
from io import BytesIO

import numpy as np
import pytest

from resnorm_jax.data.inputs import READERS, read_inputs
from resnorm_jax.errors import UserError

BASE = {"classes": ["a", "b"], "vocabulary": [], "scaling": None, "encoding": {}}
ONE = BASE | {"kind": "features", "shape": [1]}
TWO = BASE | {"kind": "features", "shape": [2]}
IMAGES = BASE | {"kind": "images", "shape": [2, 2, 1]}
TOKENS = BASE | {"kind": "tokens", "shape": [], "vocabulary": ["<pad>", "1", "2", "3"]}
TEXT = TOKENS | {"encoding": {"tokenizer": "spaces", "max_length": 5}}


def npz(**arrays):
    out = BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


DEEP = '{"x": ' + "[" * 900 + "1" + "]" * 900 + "}"
BAD = [
    (".csv", ONE, "1,2\n1,1_000\n", ":2: '1_000' in column 2 is no number"),
    (".csv", ONE, "1,\u0661\n", ":1: .*in column 2 is no number"),
    (".csv", ONE, "1,0x10\n", ":1: could not convert string to float: '0x10'"),
    (".csv", ONE, "1,,2\n", ":1: could not convert string to float: ''"),
    (".csv", ONE, "1;2\n", ":1: could not convert string to float: '1;2'"),
    (".csv", ONE, "x\n1\n", ":1: could not convert string to float: 'x'"),
    (".csv", ONE, "1\n1e400\n", ":2: missing or infinite values"),
    (".csv", ONE, "1\n1e39\n", ":2: missing or infinite values"),
    (".csv", ONE, "1\n-inf\n", ":2: missing or infinite values"),
    (".csv", ONE, '1\n"2\n', ":2: not CSV"),
    (".csv", ONE, "1\n\0\n", ":2: a NUL byte"),
    (".csv", ONE, b"1\n\xe9\n", ":2: not UTF-8 at byte 2"),
    (".csv", ONE, "1,2\n".encode("utf-16"), ": the file is UTF-16"),
    (".csv", TOKENS, "1,2\n1,nan\n", ":2: not a list of integer token ids"),
    (".csv", TOKENS, "1,1e30\n", ":1: not a list of integer token ids"),
    (".csv", TOKENS, "1,9007199254740993\n", ":1: token 9007199254740992"),
    (".csv", TOKENS, "1,-1\n", ":1: token -1"),
    (".csv", TEXT, "text,label\n1,a\n1, a\n", ":3: the label ' a' would be one with 'a'"),
    (".csv", TEXT, "text,label\n1,A\n", ":2: unseen label 'A'.*did you mean 'a'|choose"),
    (".jsonl", ONE, "[" * 100_000 + "\n", ":1: (brackets too deep|malformed JSON)"),
    (".jsonl", ONE, DEEP + "\n", ":1: (brackets too deep|not numbers|ragged)"),
    (".jsonl", ONE, '{"x": [1, NaN]}\n', ":1: NaN is not JSON"),
    (".jsonl", ONE, '{"x": [1, -Infinity]}\n', ":1: -Infinity is not JSON"),
    (".jsonl", ONE, '{"x": [1, 1e400]}\n', ":1: missing or infinite values"),
    (".jsonl", ONE, '{"x": [' + "9" * 10_000 + "]}\n", ":1: a number of too many digits"),
    (".jsonl", ONE, '{"x": [' + "9" * 400 + "]}\n", ":1: not numbers"),
    (".jsonl", ONE, '{"x": [1], "x": [2]}\n', ":1: the key 'x' stands twice"),
    (".jsonl", ONE, '{"x": null}\n', ":1: not numbers .*found None"),
    (".jsonl", ONE, '{"x": "1 2"}\n', ":1: not numbers"),
    (".jsonl", ONE, '{"x": [true]}\n', ":1: not numbers"),
    (".jsonl", ONE, '{"x": {"0": 1}}\n', ":1: not numbers"),
    (".jsonl", ONE, '{"x": [[1], [2, 3]]}\n', ":1: ragged lists"),
    (".jsonl", ONE, '{"x": [[1], 2]}\n', ":1: ragged lists"),
    (".jsonl", ONE, '{"x": [[]]}\n', ":1: not numbers"),
    (".jsonl", ONE, '{"x": 3}\n', r":1: shape \(\)"),
    (".jsonl", ONE, '{"x": [[[1]]]}\n', r":1: shape \(1, 1, 1\)"),
    (".jsonl", TWO, '{"x": [1, 2]}\n', r":1: shape \(2, 1\), the model was trained on 2 channels"),
    (".jsonl", ONE, '{"x": [1], "label": true}\n', ":1: True in column 'label' is no label"),
    (".jsonl", ONE, '{"x": [1], "label": "\\ud800"}\n', ":1: broken Unicode"),
    (".jsonl", ONE, '{"x": [1], "label": ["a"]}\n', ":1: .*is no label"),
    (".jsonl", TOKENS, '{"x": [1.0]}\n', ":1: not a list of integer token ids"),
    (".jsonl", TOKENS, '{"x": [18446744073709551615]}\n', ":1: token 18446744073709551615"),
    (".jsonl", TOKENS, '{"x": [18446744073709551616]}\n', ":1: not a list of integer"),
    (".jsonl", TOKENS, '{"x": [[1, 2]]}\n', r":1: shape \(1, 2\)"),
    (".jsonl", TEXT, '{"text": null}\n', ":1: 'text' is null"),
    (".jsonl", TEXT, '{"body": "1"}\n', ":1: no column 'text'"),
    (".jsonl", IMAGES, '{"x": [[1, 2], [3, 4]]}\n', r":1: shape \(2, 2\)"),
    (".jsonl", IMAGES, '{"x": [[[1], [2]], [[3], [1e39]]]}\n', ":1: missing or infinite"),
    (".npz", ONE, npz(x=np.ones((2, 3)), y=["a", ""]), ": row 2 has '' as 'y'"),
    (".npz", ONE, npz(x=np.ones((2, 3)), y=["a", "c"]), ": row 2: unseen label 'c'"),
    (".npz", TWO, npz(x=np.ones((2, 3))), r": row 1: shape \(3, 1\)"),
    (".npz", TOKENS, npz(x=np.array([[1, 2], [3, 4]])), ": row 2: token 4"),
    (".npz", TOKENS, npz(x=np.ones((2, 3))), ": 'x' holds features, the model was trained on"),
    (".npz", IMAGES, npz(x=np.ones((2, 2, 3, 1))), r": row 1: shape \(2, 3, 1\)"),
    (".npz", ONE, npz(x=np.ones((2, 3)))[:-9], ": damaged .npz"),
    (".ts", ONE, "@seriesLength 3\n@data\n1,2\n", ":3: 2 values.*line 1"),
    (".ts", ONE, "@data\n1,2:a\n", ":2: 'a' in channel 2"),
]


def one_line(path, meta, message):
    with pytest.raises(UserError) as error:
        read_inputs(path, meta)
    assert re.search(re.escape(str(path)) + message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("suffix", "meta", "content", "message"), BAD)
def test_malformed_inputs(tmp_path, suffix, meta, content, message):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    one_line(path, meta, message)


@pytest.mark.parametrize("suffix", READERS)
def test_inputs_that_are_no_files(tmp_path, suffix):
    made = {
        "a directory": lambda path: path.mkdir(),
        "a named pipe": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to gone, which does not exist": lambda path: path.symlink_to("gone"),
    }
    for i, (what, make) in enumerate(made.items()):
        make(tmp_path / f"{i}{suffix}")
        one_line(tmp_path / f"{i}{suffix}", ONE, f": {what}")
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    one_line(tmp_path / f"empty{suffix}", ONE, ": (the file is empty|not an .npz file)")
    one_line(tmp_path / f"{'n' * 300}{suffix}", ONE, ": cannot be read .*check the path")


def test_numbers_of_any_size_that_float32_holds_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1e30,2\n1e16,3\n")
    got = read_inputs(path, ONE)
    np.testing.assert_array_equal(got.x[:, 0, 0], np.array([1e30, 1e16], np.float32))
    rows = [{"x": [1e30], "label": None}, {"x": [1], "label": ""}, {"x": [2]}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_inputs(tmp_path / "a.jsonl", ONE).y.tolist() == [-1, -1, -1]
