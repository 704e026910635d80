"""Rows that have any number of labels: every way to write them, and every mistake in them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from resnorm_jax.data import describe, load_dataset, split_validation
from resnorm_jax.data.fingerprint import fingerprint
from resnorm_jax.data.inputs import read_inputs
from resnorm_jax.data.splits import strata, stratified_split
from resnorm_jax.data.text_cache import encoded_file
from resnorm_jax.data.text_columns import Columns
from resnorm_jax.data.tokenization import Words
from resnorm_jax.errors import UserError

NAMES = ("joy", "rage", "sad")
SETS = [("joy",), (), ("rage", "sad"), ("joy", "sad"), ("rage",), ("joy",), (), ("rage", "sad")]
TEXTS = [f"text number {i}" for i in range(len(SETS))]
TABLE = np.array([[name in s for name in NAMES] for s in SETS], np.int8)


def jsonl(path, key=list):
    rows = [{"text": t, "label": key(s)} for t, s in zip(TEXTS, SETS, strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return {}


def numbers(path):
    return jsonl(path, lambda labels: [NAMES.index(n) for n in labels])


def joined(path):
    lines = [f'{t},"{"; ".join(s)}"' for t, s in zip(TEXTS, SETS, strict=True)]
    path.write_text("\n".join(["text,label", *lines]))
    return {"label_separator": ";"}


def flags(path):
    lines = [",".join([t, *map(str, row)]) for t, row in zip(TEXTS, TABLE, strict=True)]
    path.write_text("\n".join([",".join(["text", *NAMES]), *lines]))
    return {"label_column": "joy, rage,sad"}


def parquet(path):
    values = [[NAMES.index(n) for n in s] for s in SETS]
    table = pa.table({"text": TEXTS, "label": pa.array(values, pa.list_(pa.int64()))})
    kind = {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "List"}
    about = {"info": {"features": {"label": kind}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pyarrow.parquet.write_table(table, path)
    return {}


def flag_parquet(path):
    columns = {name: TABLE[:, k].astype(bool) for k, name in enumerate(NAMES)}
    pyarrow.parquet.write_table(pa.table({"text": TEXTS, **columns}), path)
    return {"label_column": "joy,rage,sad"}


WAYS = [
    (jsonl, "a.jsonl", NAMES), (numbers, "a.jsonl", ("0", "1", "2")), (joined, "a.csv", NAMES),
    (flags, "a.csv", NAMES), (parquet, "a.parquet", NAMES), (flag_parquet, "a.parquet", NAMES),
]  # fmt: skip


def load(path, **options):
    given = {"train": str(path), "test": str(path), "tokenizer": "bytes", "labels": "many"}
    return load_dataset("text", {**given, **options})


@pytest.mark.parametrize(("write", "name", "names"), WAYS)
def test_texts_with_any_number_of_labels(tmp_path, write, name, names):
    data = load(tmp_path / name, **write(tmp_path / name))
    assert (data.task, data.classes) == ("multi_label", names)
    np.testing.assert_array_equal(data.train.y, TABLE)
    assert data.train.y.dtype == np.int8
    # The same file as rows to score: its labels are known, and an empty set is known to be empty.
    meta = json.loads(json.dumps(describe(data)))
    np.testing.assert_array_equal(read_inputs(tmp_path / name, meta).y, TABLE)
    (tmp_path / "new.jsonl").write_text('{"text": "what"}\n')
    assert (read_inputs(tmp_path / "new.jsonl", meta).y == -1).all()


def test_a_cached_file_gives_the_same_labels(tmp_path, monkeypatch):
    monkeypatch.setattr("resnorm_jax.data.text_cache.SMALL", 0)
    jsonl(tmp_path / "a.jsonl")
    columns = Columns("text", "label", True, many=True)
    tokenizer = Words("words", ("<pad>", "<unk>", "text"), 8)
    found = [encoded_file(tmp_path / "a.jsonl", columns, tokenizer, str(tmp_path)) for _ in "ab"]
    assert [kept for _, kept in found] == [False, True]
    for made, _ in found:
        np.testing.assert_array_equal(made.indices(NAMES), TABLE)


def npz(path, y=TABLE, **more):
    x = np.arange(len(TABLE) * 3).reshape(-1, 3) + 1.0
    np.savez(path, x=x, y=y, **more)
    return {"train": str(path), "test": str(path)}


def test_arrays_of_zeros_and_ones(tmp_path):
    wide = np.concatenate([TABLE, np.zeros((len(TABLE), 1), np.int8)], axis=1)
    data = load_dataset("arrays", npz(tmp_path / "a.npz", wide, classes=[*NAMES, "never"]))
    assert (data.task, data.classes) == ("multi_label", (*NAMES, "never"))
    np.testing.assert_array_equal(data.train.y, wide)
    assert load_dataset("arrays", npz(tmp_path / "b.npz", TABLE > 0)).classes == ("0", "1", "2")
    np.testing.assert_array_equal(read_inputs(tmp_path / "a.npz", describe(data)).y, wide)
    row = {"x": [1.0, 2.0, 3.0], "label": ["sad"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    np.testing.assert_array_equal(
        read_inputs(tmp_path / "a.jsonl", describe(data)).y, [[0, 0, 1, 0]]
    )


BAD = [
    ([["a"], ["a", 1]], "a.jsonl:2: the label 1 is a whole number, 'a' of .* is a name"),
    ([["a"], ["b", "b"]], "a.jsonl:2: the label 'b' stands twice; name it once"),
    ([["a"], ["b", ""]], "a.jsonl:2: '' in column 'label' is no label"),
    ([["a"], ["b", None]], "a.jsonl:2: None in column 'label' is no label"),
    ([["a"], ["b", True]], "a.jsonl:2: True in column 'label' is no label"),
    ([["a"], [["b"]]], r"a.jsonl:2: \['b'\] in column 'label' is no label"),
    ([["a"], None], "a.jsonl:2: 'label' is null"),
    ([["a"], "a,,b"], "a.jsonl:2: '' in column 'label' is no label"),
    ([[], []], "data.source: no training row of 'a' has a label"),
]  # fmt: skip


@pytest.mark.parametrize(("labels", "message"), BAD)
def test_bad_sets_of_labels(tmp_path, labels, message):
    rows = [{"text": "what", "label": each} for each in labels]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=message) as found:
        load(tmp_path / "a.jsonl")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("other", [";", "|"])
def test_labels_with_another_separator_are_not_taken_for_one(tmp_path, other):
    """Of four labels and their pairs seven "labels" would be learned, and none of them well."""
    rows = [
        "joy",
        f"joy{other}hope",
        f"hope{other} fear",
        f"fear{other}joy",
        "",
        f"fear{other}hope",
    ]
    lines = [f"what {number},{label}" for number, label in enumerate(rows)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines]))
    message = rf"data.label_separator: .fear\{other}hope. .* give data.label_separator='\{other}'"
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.csv")
    assert load(tmp_path / "a.csv", label_separator=other).classes == ("fear", "hope", "joy")
    # A name may hold such a character, where that makes no fewer labels.
    (tmp_path / "b.csv").write_text(f"text,label\na,up{other}down\nb,left\nc,right\n")
    assert load(tmp_path / "b.csv").classes == ("left", "right", f"up{other}down")


def test_other_mistakes(tmp_path):
    path = tmp_path / "a.jsonl"
    jsonl(path)
    with pytest.raises(UserError, match=r"is no label; .*or set data.labels=many"):
        load(path, labels="one")
    with pytest.raises(UserError, match=r"data.label_separator: not read with data.labels=one"):
        load(path, labels="one", label_separator=";")
    with pytest.raises(UserError, match=r"no column .happy. .data.label_column.; choose"):
        load(path, label_column="happy,label")
    (tmp_path / "b.jsonl").write_text('{"text": "a", "label": ["joy", "hope"]}')
    with pytest.raises(
        UserError, match=r"b.jsonl:1: unseen label 'hope', not in the training rows"
    ):
        load(path, test=str(tmp_path / "b.jsonl"))
    flags(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text((tmp_path / "a.csv").read_text().replace("1", "2"))
    with pytest.raises(UserError, match=r"b.csv:2: '2' in column 'joy'; give 0 or 1"):
        load(tmp_path / "b.csv", label_column="joy,rage,sad")
    (tmp_path / "folder" / "joy").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a text of a folder has one label"):
        load(tmp_path / "folder")
    (tmp_path / "one.jsonl").write_text('{"x": [1, 2, 3], "label": ["0"]}')
    one = load_dataset("arrays", npz(tmp_path / "one.npz", np.arange(len(TABLE)) % 2))
    with pytest.raises(UserError, match=r"one.jsonl:1: .*is no label"):
        read_inputs(tmp_path / "one.jsonl", describe(one))
    many = load_dataset("arrays", npz(tmp_path / "many.npz"))
    with pytest.raises(
        UserError, match=r"one.npz: row 1: '0'; the model was trained on any number"
    ):
        read_inputs(tmp_path / "one.npz", describe(many))
    npz(tmp_path / "c.npz", TABLE + 2 * (np.arange(8)[:, None] == 1) * [0, 1, 0])
    with pytest.raises(UserError, match=r"row 2 of 'y' .rows, labels. is .0 2 0.; give 0 and 1"):
        load_dataset("arrays", {"train": str(tmp_path / "c.npz")})
    with pytest.raises(UserError, match=r"'classes' is .* .2,.; give 3 names"):
        load_dataset("arrays", npz(tmp_path / "d.npz", classes=["a", "b"]))
    files = {"train": str(tmp_path / "many.npz"), "test": str(tmp_path / "one.npz")}
    with pytest.raises(UserError, match=r"one.npz: 'y' has 1 axes, that of .*many.npz has 2"):
        load_dataset("arrays", files)


def test_a_split_keeps_a_row_of_every_label():
    rng = np.random.default_rng(0)
    y = (rng.random((500, 9)) < [0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.004, 0.004]).astype(np.int8)
    y[0], y[1:, 8] = 1, 0
    for seed in range(20):
        kept, held = stratified_split(y, 0.2, seed, "data.test_fraction")
        assert sorted([*kept, *held]) == list(range(500))
        assert (y[kept].sum(0) > 0).all()
        assert abs(len(held) - 100) <= 2
        # Each label of 40 rows or more has its share held out, nearly.
        common = y.sum(0) >= 40
        np.testing.assert_allclose(y[held].mean(0)[common], y.mean(0)[common], atol=0.1)
    assert strata(np.array([[1, 0], [1, 1], [0, 0]])).tolist() == [0, 1, 2]


def test_validation_and_fingerprint(tmp_path):
    data = load_dataset("arrays", npz(tmp_path / "a.npz"))
    held = split_validation(data, 0.4, 0)
    assert held.valid.y.shape[1] == 3
    assert fingerprint(data) != fingerprint(held)
