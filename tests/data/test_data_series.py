"""The .ts reader and the series source."""

import hashlib
import importlib.util
import sys

import numpy as np
import pytest

from resnorm_jax.data import load_dataset
from resnorm_jax.data.series import bundled_folder, bundled_names
from resnorm_jax.data.ts_format import read_ts
from resnorm_jax.errors import UserError

HEADER = "# comment\n@problemName T\n@univariate false\n@classLabel true A B\n@data\n"
GOOD = HEADER + "1,2:3,4:A\n5,6,7:8,9,10:B\n"


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def bundled_files():
    folder = bundled_folder()
    return [
        str(path)
        for name in bundled_names()
        for path in sorted((folder / name).glob("*.ts"))
        if "TimeStamps" not in path.name
    ]


def test_bundled_names():
    names = bundled_names()
    assert {"JapaneseVowels", "BasicMotions", "GunPoint", "UnitTest"} <= set(names)
    assert not {"Covid3Month", "CardanoSentiment", "Airline"} & set(names)


def test_same_values_and_labels_as_aeon_on_every_bundled_file():
    from aeon.datasets import load_from_ts_file

    files = bundled_files()
    assert len(files) >= 20
    for path in files:
        x, y = load_from_ts_file(path)
        ours = read_ts(path)
        assert len(x) == len(ours.values)
        assert [label.lower() for label in ours.labels] == list(y)
        for theirs, mine in zip(x, ours.values, strict=True):
            np.testing.assert_array_equal(mine, theirs.T)


def test_japanese_vowels_is_the_official_split():
    data = load_dataset("series", {})
    assert data.name == "JapaneseVowels"
    assert data.kind == "features"
    assert data.classes == tuple("123456789")
    assert data.train.x.shape == (270, 26, 12)
    assert data.train.x.dtype == np.float32
    assert data.test.x.shape == (370, 29, 12)
    assert np.bincount(data.train.y).tolist() == [30] * 9
    # UCI, Japanese Vowels (doi 10.24432/C5NS47): test counts of the nine speakers.
    assert np.bincount(data.test.y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (data.train.lengths.min(), data.train.lengths.max()) == (7, 26)
    for part in (data.train, data.test):
        padding = np.arange(part.x.shape[1]) >= part.lengths[:, None]
        assert padding.any()
        assert not part.x[padding].any()
        assert part.x[~padding].any()


def test_univariate_set():
    data = load_dataset("series", {"name": "GunPoint"})
    assert data.train.x.shape == (50, 150, 1)
    assert data.test.x.shape == (150, 150, 1)


def test_aeon_itself_is_not_imported():
    import subprocess

    code = (
        "import sys; from resnorm_jax.data import load_dataset; load_dataset('series', {});"
        "print([m for m in ('aeon', 'numba', 'sklearn', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_local_pair(tmp_path):
    train, test = write(tmp_path, "My_TRAIN.ts", GOOD), write(tmp_path, "My_TEST.ts", GOOD)
    data = load_dataset("series", {"train": train, "test": test})
    assert data.name == "My"
    assert data.classes == ("A", "B")
    assert data.train.lengths.tolist() == [2, 3]
    np.testing.assert_array_equal(data.train.x[0], [[1, 3], [2, 4], [0, 0]])
    np.testing.assert_array_equal(data.train.x[1], [[5, 8], [6, 9], [7, 10]])


def test_classes_are_those_of_the_training_rows(tmp_path):
    declared = GOOD.replace("true A B", "true C B A")
    train, test = write(tmp_path, "a.ts", declared), write(tmp_path, "b.ts", GOOD)
    data = load_dataset("series", {"train": train, "test": test})
    assert data.classes == ("B", "A")
    assert data.train.y.tolist() == [1, 0]


BAD_FILES = [
    ("", ": the file is empty; give a .ts file with at least one case"),
    (
        "@classLabel true A B\n1,2:A\n",
        ":2: '1,2:A' before '@data'; add an @data line",
    ),
    (
        "@classLabel true A B\n",
        ": no @data line; a .ts file has @ tags, @data, then one case a line",
    ),
    (HEADER, ":5: no case after @data; give at least one"),
    (
        "@classLabel true\n@data\n1:A\n",
        ":1: @classLabel true without class names; write '@classLabel true A B'",
    ),
    (
        "@timestamps true\n@data\n1\n",
        ":1: @timestamps true: time stamps are not supported; give plain values",
    ),
    (
        "@targetlabel true\n@data\n1\n",
        ":1: @targetlabel true: regression targets are not supported; give plain values",
    ),
    (
        HEADER + "1,2:3,4,5:A\n",
        ":6: channel 2 has 3 values, channel 1 has 2; all channels of a case must be equally long",
    ),
    (
        GOOD + "\n1,2:A\n",
        ":9: 1 channels, the first case has 2; every case must have the same channels",
    ),
    (HEADER + "1,2:3,x4:A\n", ":6: 'x4' in channel 2 is not a finite number"),
    (HEADER + "1,inf:3,4:A\n", ":6: 'inf' in channel 1 is not a finite number"),
    (HEADER + "1,1e39:3,4:A\n", ":6: '1e39' in channel 1 is not a finite number"),
    (
        HEADER + "1,2:3,4:A\n1,2:3,?:B\n",
        ":7: missing value '?' in channel 2; missing values are not supported, fill them in first",
    ),
    (
        HEADER + "NaN,2:3,4:A\n",
        ":6: missing value 'NaN' in channel 1; missing values are not supported, "
        "fill them in first",
    ),
    (
        HEADER + "1,2:3,4:C\n",
        ":6: the line ends in 'C', not in ':' and a label of @classLabel in line 4 (A, B)",
    ),
    (
        HEADER + "1,2:3,4\n",
        ":6: the line ends in '3,4', not in ':' and a label of @classLabel in line 4 (A, B)",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_bad_file(tmp_path, text, message):
    bad, good = write(tmp_path, "bad.ts", text), write(tmp_path, "good.ts", GOOD)
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(UserError) as error:
            load_dataset("series", {"train": pair[0], "test": pair[1]})
        assert str(error.value) == bad + message


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            "@data\n1,2\n",
            GOOD,
            "{train}: no class labels in the header; add a line '@classLabel true A B ...' "
            "and end each case with ':label'",
        ),
        (
            GOOD,
            "@classLabel true A B C\n@data\n1:2:A\n3:4:C\n",
            "{test}:4: unseen label 'C', not in the training file {train}; choose one of: A, B",
        ),
        (
            GOOD,
            "@classLabel true A B\n@data\n1:A\n",
            "{test}:3: 1 channels, but {train} has 2; both files must have the same channels",
        ),
    ],
)
def test_bad_pair(tmp_path, train, test, message):
    paths = {
        "train": write(tmp_path, "tr.ts", train),
        "test": write(tmp_path, "te.ts", test),
    }
    with pytest.raises(UserError) as error:
        load_dataset("series", paths)
    assert str(error.value) == message.format(**paths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "JapanseVowels"}, "did you mean 'JapaneseVowels'?"),
        ({"name": "JapanseVowels"}, "bundled: ACSF1, ArrowHead, "),
        ({"train": "x.ts"}, "data.test: not given, but data.train is; give both .ts files"),
        ({"test": "x.ts"}, "data.train: not given, but data.test is; give both .ts files"),
        (
            {"train": "no.ts", "test": "no.ts"},
            "data.train: no file at 'no.ts'; check the path",
        ),
    ],
)
def test_bad_names(options, message):
    with pytest.raises(UserError) as error:
        load_dataset("series", options)
    assert message in str(error.value)


def test_aeon_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        load_dataset("series", {})
    assert str(error.value) == (
        "data.source: aeon is not installed; run: pip install 'resnorm_jax[series]'"
    )


def test_reading_a_bundled_file_changes_nothing():
    path = bundled_folder() / "JapaneseVowels" / "JapaneseVowels_TRAIN.ts"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest.startswith("68a430eabd919cc7")
