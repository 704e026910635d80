"""The sources for one's own files (arrays, text), digits, and the sample sentences."""

import json
import sys
from collections import Counter

import numpy as np
import pytest

from resnorm_jax.data import load_dataset
from resnorm_jax.errors import UserError

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(20, 5, 2)).astype(np.float32)
LABELS = np.arange(20) % 4


def message_of(source, options):
    with pytest.raises(UserError) as error:
        load_dataset(source, options)
    return str(error.value)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


# digits


@pytest.mark.parametrize(
    ("view", "kind", "shape", "length"),
    [
        ("rows", "features", (8, 8), 8),
        ("pixels", "features", (64, 1), 64),
        ("image", "images", (8, 8, 1), 8),
    ],
)
def test_digits(view, kind, shape, length):
    from sklearn.datasets import load_digits

    data = load_dataset("digits", {"view": view})
    assert data.kind == kind
    assert data.train.x.shape[1:] == shape
    assert len(data.test) == round(1797 * 0.2)
    assert len(data.train) + len(data.test) == 1797
    assert (data.train.lengths == length).all()
    pixels, y = load_digits(return_X_y=True)
    rows = [tuple(row) for part in (data.train, data.test) for row in part.x.reshape(-1, 64) * 16]
    assert Counter(rows) == Counter(tuple(row) for row in pixels)
    index = {tuple(row): label for row, label in zip(pixels, y, strict=True)}
    for x, label in zip(data.test.x, data.test.y, strict=True):
        assert index[tuple(x.reshape(64) * 16)] == label
    shares = np.bincount(data.test.y) / np.bincount(y)
    assert np.abs(shares - 0.2).max() < 0.01


def test_digits_seed_and_errors(monkeypatch):
    parts = [load_dataset("digits", {"seed": seed}).test.x for seed in (0, 0, 1)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert parts[0].shape == parts[2].shape
    assert (parts[0] != parts[2]).any()
    assert message_of("digits", {"view": "row"}) == (
        "data.view: unknown value 'row'; did you mean 'rows'?"
    )
    assert message_of("digits", {"test_fraction": 1.0}) == (
        "data.test_fraction: 1.0 is no fraction; give a value between 0 and 1, e.g. 0.2"
    )
    assert "data.seed: -1 is out of range" in message_of("digits", {"seed": -1})
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert message_of("digits", {}) == (
        "data.source: scikit-learn is not installed; run: pip install 'resnorm_jax[digits]'"
    )


# arrays


def test_arrays_features_with_lengths(tmp_path):
    x = FLOATS.copy()
    x[0, 3:] = np.nan  # beyond the length: never read
    lengths = np.full(20, 4)
    lengths[0] = 3
    path = save(tmp_path / "a.npz", x=x, y=LABELS, lengths=lengths)
    data = load_dataset("arrays", {"train": path, "test": path})
    assert data.kind == "features"
    assert data.train.x.shape == (20, 4, 2)
    assert data.train.lengths.tolist() == [3] + [4] * 19
    np.testing.assert_array_equal(data.train.x[0, :3], x[0, :3])
    assert not data.train.x[0, 3:].any()
    assert data.classes == ("0", "1", "2", "3")


def test_arrays_split_is_stratified_and_seeded(tmp_path):
    path = save(tmp_path / "a.npz", x=FLOATS, y=LABELS)
    data = load_dataset("arrays", {"train": path, "test_fraction": 0.2})
    assert np.bincount(data.test.y).tolist() == [1, 1, 1, 1]
    together = np.concatenate([data.train.x, data.test.x])
    assert sorted(map(bytes, together)) == sorted(map(bytes, FLOATS))
    again = load_dataset("arrays", {"train": path, "test_fraction": 0.2})
    other = load_dataset("arrays", {"train": path, "test_fraction": 0.2, "seed": 1})
    np.testing.assert_array_equal(data.test.x, again.test.x)
    assert (data.test.x != other.test.x).any()


def test_arrays_one_channel_strings_tokens_and_images(tmp_path):
    names = np.array(["cat", "dog"])[LABELS % 2]
    path = save(tmp_path / "a.npz", x=FLOATS[..., 0].astype(np.float64), y=names)
    data = load_dataset("arrays", {"train": path, "test": path})
    assert data.train.x.shape == (20, 5, 1)
    assert data.train.x.dtype == np.float32
    assert data.classes == ("cat", "dog")
    assert data.train.y.tolist() == (LABELS % 2).tolist()

    tokens = np.array([[3, 1, 0, 0], [2, 2, 5, 1]] * 10)
    path = save(tmp_path / "t.npz", x=tokens, y=LABELS)
    data = load_dataset("arrays", {"train": path, "test": path})
    assert data.kind == "tokens"
    assert data.vocabulary == ("<pad>", "1", "2", "3", "4", "5")
    assert data.train.lengths.tolist() == [2, 4] * 10

    images = RNG.integers(0, 256, size=(20, 4, 6, 3)).astype(np.uint8)
    path = save(tmp_path / "i.npz", x=images, y=LABELS - 1)
    data = load_dataset("arrays", {"train": path, "test": path})
    assert data.kind == "images"
    np.testing.assert_allclose(data.train.x, images / 255, rtol=1e-6)
    assert data.classes == ("-1", "0", "1", "2")
    assert data.train.lengths.tolist() == [4] * 20


TOKENS = np.full((20, 3), 2)
NAN = FLOATS.copy()
NAN[7, 2, 1] = np.nan
BAD_ARRAYS = [
    ({"x": FLOATS}, ": no array 'y'; it holds: x"),
    ({"z": FLOATS}, ": no array 'x', 'y'; it holds: z"),
    (
        {"x": FLOATS, "y": np.array([1, "a"] * 10, object)},
        ": array 'y' holds Python objects, which are not unpickled; save numbers or "
        "fixed-width strings, and pad ragged rows (with 'lengths')",
    ),
    ({"x": FLOATS, "y": LABELS[:19]}, ": 'y' has shape (19,), 'x' has 20 rows; match them"),
    ({"x": FLOATS, "y": LABELS * 1.0}, ": 'y' holds float64; give integers or strings"),
    (
        {"x": FLOATS, "y": LABELS, "lengths": LABELS[:3]},
        ": 'lengths' has shape (3,), 'x' has 20 rows; match them",
    ),
    (
        {"x": FLOATS, "y": LABELS, "lengths": LABELS * 1.5},
        ": 'lengths' holds float64; give integers",
    ),
    ({"x": FLOATS, "y": LABELS, "lengths": LABELS + 1 + LABELS // 3}, None),
    (
        {"x": FLOATS, "y": LABELS, "lengths": np.arange(1, 21)},
        ": row 6 has 6 in 'lengths'; give 1 to 5",
    ),
    ({"x": FLOATS, "y": LABELS, "lengths": LABELS}, ": row 1 has 0 in 'lengths'; give 1 to 5"),
    (
        {"x": NAN, "y": LABELS},
        ": row 8 holds nan at position 3; missing and infinite values are not supported",
    ),
    (
        {"x": FLOATS.astype(float) * 1e40, "y": LABELS},
        ": row 1 holds {value} at position 1; missing and infinite values are not supported",
    ),
    ({"x": FLOATS[:0], "y": LABELS[:0]}, ": 'x' is empty (shape (0, 5, 2)); give at least one row"),
    (
        {"x": TOKENS - 3, "y": LABELS},
        ": row 1 has token -1 at position 1; token ids are from 0 (padding) to 1000000",
    ),
    (
        {"x": TOKENS * 10**9, "y": LABELS},
        ": row 1 has token 2000000000 at position 1; token ids are from 0 (padding) to 1000000",
    ),
    (
        {"x": np.array([[1, 0, 2]] * 20), "y": LABELS},
        ": row 1 has token 0, which is padding, at position 2; shift the ids by one, "
        "or give 'lengths'",
    ),
    (
        {"x": LABELS, "y": LABELS},
        ": 'x' is int64 with shape (20,); give float [N, L, C] or [N, L], "
        "integer tokens [N, L], or float or uint8 images [N, H, W, C]",
    ),
    (
        {"x": np.ones((20, 2, 2, 1), int), "y": LABELS},
        ": 'x' is int64 with shape (20, 2, 2, 1); give float [N, L, C] or [N, L], "
        "integer tokens [N, L], or float or uint8 images [N, H, W, C]",
    ),
]


@pytest.mark.parametrize(("arrays", "message"), [row for row in BAD_ARRAYS if row[1]])
def test_bad_arrays(tmp_path, arrays, message):
    path = save(tmp_path / "bad.npz", **arrays)
    value = "inf" if FLOATS[0, 0, 0] > 0 else "-inf"
    assert message_of("arrays", {"train": path}) == path + message.format(value=value)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (FLOATS, FLOATS[..., :1], "rows of shape (5, 1), {train} has (5, 2); channels (and"),
        (FLOATS, TOKENS, "{test}: holds tokens, {train} holds features"),
        (TOKENS, TOKENS + 1, "{test}: row 1 has token 3, beyond the training rows' largest, 2;"),
    ],
)
def test_bad_arrays_pair(tmp_path, train, test, message):
    paths = {
        "train": save(tmp_path / "train.npz", x=train, y=LABELS),
        "test": save(tmp_path / "test.npz", x=test, y=LABELS),
    }
    assert message.format(**paths) in message_of("arrays", paths)


def test_arrays_files_that_are_none(tmp_path):
    text = tmp_path / "a.npz"
    text.write_text("hello")
    assert message_of("arrays", {"train": str(text)}) == (
        f"{text}: not an .npz file; write it with numpy.savez(path, x=..., y=...)"
    )
    whole = save(tmp_path / "b.npz", x=FLOATS, y=LABELS)
    damaged = bytearray((tmp_path / "b.npz").read_bytes())
    damaged[200:260] = b"x" * 60
    (tmp_path / "b.npz").write_bytes(damaged)
    assert f"{whole}: damaged .npz" in message_of("arrays", {"train": whole})
    assert message_of("arrays", {}).startswith("data.train: not given; give an .npz file")
    assert message_of("arrays", {"train": "no.npz"}) == (
        "data.train: no file at 'no.npz'; check the path"
    )
    good = save(tmp_path / "c.npz", x=FLOATS, y=LABELS)
    other = save(tmp_path / "d.npz", x=FLOATS, y=LABELS + 1)
    assert message_of("arrays", {"train": good, "test": other}) == (
        f"{other}: row 4: unseen label '4', not in the training rows; choose one of: 0, 1, 2, 3"
    )
    assert message_of("arrays", {"train": good, "test_fraction": 0.01}) == (
        "data.test_fraction: 0.01 of 20 rows holds out nothing; raise it or give more rows"
    )


# text

CSV = 'label,text\ngood,"A fine, fine film!"\nbad,"A dull\nfilm"\ngood,Fine.\n'


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_text_words(tmp_path):
    path = write(tmp_path / "a.csv", CSV)
    test = write(tmp_path / "b.csv", "text,label\nA splendid FILM,good\n")
    data = load_dataset("text", {"train": path, "test": test, "max_length": 4})
    words = ("<pad>", "<unk>", "fine", "a", "film", "!", ",", ".", "dull")
    assert data.vocabulary == words
    assert data.classes == ("bad", "good")
    assert data.train.y.tolist() == [1, 0, 1]
    assert data.train.x.tolist() == [[3, 2, 6, 2], [3, 8, 4, 0], [2, 7, 0, 0]]
    assert data.train.lengths.tolist() == [4, 3, 2]
    assert data.test.x.tolist() == [[3, 1, 4]]
    small = load_dataset("text", {"train": path, "test": test, "vocabulary": 4})
    assert small.vocabulary == words[:4]
    assert small.train.x.max() == 3


def test_text_bytes_and_json(tmp_path):
    rows = [{"t": "aé", "y": 10}, {"t": "b", "y": 9}, {"t": "c", "y": 9, "extra": None}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    options = {"tokenizer": "bytes", "text_column": "t", "label_column": "y"}
    data = load_dataset("text", {"train": path, "test": path, **options})
    assert data.classes == ("9", "10")
    assert len(data.vocabulary) == 257
    assert data.train.x.tolist() == [[98, 0xC3 + 1, 0xA9 + 1], [99, 0, 0], [100, 0, 0]]
    assert data.train.y.tolist() == [1, 0, 0]


def test_text_split_builds_the_vocabulary_from_training_rows_only(tmp_path):
    rows = [f"word{i},{'ab'[i % 2]}" for i in range(20)]
    path = write(tmp_path / "a.csv", "text,label\n" + "\n".join(rows))
    data = load_dataset("text", {"train": path, "tokenizer": "spaces", "test_fraction": 0.3})
    assert len(data.test) == 6
    assert len(data.vocabulary) == 2 + 14
    assert (data.test.x == 1).all()


BAD_TEXT = [
    ("a.csv", "", "{a}: the file is empty; give a file with at least one row"),
    ("a.csv", "text,label\n", "{a}:1: a header but no row; give at least one row"),
    (
        "a.csv",
        "text,label\nx,y\na,b,c\n",
        "{a}:3: 3 fields, the header has 2; quote texts that contain commas",
    ),
    (
        "a.csv",
        'text,label\n"x\ny",p\na\n',
        "{a}:4: 1 fields, the header has 2; quote texts that contain commas",
    ),
    (
        "a.csv",
        "texts,label\nx,y\n",
        "{a}:2: no column 'text' (data.text_column); did you mean 'texts'?",
    ),
    (
        "a.csv",
        "text,lable\nx,y\n",
        "{a}:2: no column 'label' (data.label_column); did you mean 'lable'?",
    ),
    (
        "a.csv",
        "text,label\nx,y\n ,y\n",
        "{a}:3: empty text in column 'text'; give a text or drop the row",
    ),
    (
        "a.csv",
        "text,label\nx,y\nz,\n",
        "{a}:3: '' in column 'label' is no label; give a name or an integer",
    ),
    (
        "a.csv",
        "text,text\nx,y\n",
        "{a}:1: a column name occurs twice in ['text', 'text']; rename one",
    ),
    (
        "a.csv",
        'text,label\n"x,y\n',
        "{a}:2: not CSV (unexpected end of data); check the quotes, or set data.quotes=false",
    ),
    (
        "a.jsonl",
        '{"text": "x", "label": "y"}\n{"text": "x",}\n',
        "{a}:2: malformed JSON at column 14 ({why}); write one JSON object a line",
    ),
    (
        "a.jsonl",
        '\n["x"]\n',
        "{a}:2: a JSON list, not an object; write one object a line, "
        'e.g. {{"text": "...", "label": "..."}}',
    ),
    (
        "a.jsonl",
        '{"text": 3, "label": "y"}\n',
        "{a}:1: 3 is no text in column 'text'; give a text or drop the row",
    ),
    (
        "a.jsonl",
        '{"text": "\\ud800", "label": "y"}\n',
        "{a}:1: broken Unicode (a lone surrogate) in column 'text'",
    ),
    (
        "a.jsonl",
        '{"text": "x", "label": 1.5}\n',
        "{a}:1: 1.5 in column 'label' is no label; give a name or an integer",
    ),
    (
        "a.txt",
        "x",
        "{a}: suffix '.txt' is not read; give .csv or .tsv (with a header), .jsonl, .parquet, or a "
        "folder",
    ),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_TEXT)
def test_bad_text(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    why = "Expecting property name enclosed in double quotes"
    if sys.version_info >= (3, 13):
        why = "Illegal trailing comma before end of object"
        message = message.replace("column 14", "column 13")
    assert message_of("text", {"train": path}) == message.format(a=path, why=why)


def test_bad_text_options(tmp_path, monkeypatch):
    good = write(tmp_path / "a.csv", CSV)
    test = write(tmp_path / "b.csv", "text,label\nx,good\ny,goood\n")
    assert message_of("text", {"train": good, "test": test}) == (
        f"{test}:3: unseen label 'goood', not in the training rows; did you mean 'good'?"
    )
    assert message_of("text", {"train": good, "tokenizer": "byte"}) == (
        "data.tokenizer: unknown value 'byte'; did you mean 'bytes'?"
    )
    assert "data.max_length: 0 is out of range" in message_of(
        "text", {"train": good, "max_length": 0}
    )
    assert message_of("text", {}).startswith("data.train: not given; give a .csv")
    latin = tmp_path / "c.csv"
    latin.write_bytes("text,label\ncaf\xe9,a\n".encode("latin-1"))
    assert message_of("text", {"train": str(latin)}) == (
        f"{latin}:2: not UTF-8 at byte 14; save it as UTF-8, or name its data.encoding"
    )
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert message_of("text", {"train": good, "test": good}) == (
        "data.source: tokenizers is not installed; run: pip install 'resnorm_jax[text]'"
    )


def test_sample_text():
    data = load_dataset("sample_text", {"train": 400, "test": 50})
    again = load_dataset("sample_text", {"train": 400, "test": 50})
    np.testing.assert_array_equal(data.train.x, again.train.x)
    other = load_dataset("sample_text", {"train": 400, "test": 50, "seed": 1})
    assert data.train.x.shape != other.train.x.shape or (data.train.x != other.train.x).any()
    assert data.classes == ("negative", "positive")
    assert 0.4 < data.train.y.mean() < 0.6
    positive = {"moving", "graceful", "gripping", "lively", "clever", "pleasure"}
    for x, y in zip(data.test.x, data.test.y, strict=True):
        words = {data.vocabulary[token] for token in x}
        assert (bool(words & positive) != ("not" in words)) == bool(y)
