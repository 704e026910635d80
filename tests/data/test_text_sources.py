"""Texts from every kind of file and folder, streamed; and each fault as one line."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnorm_jax.data import encoded, load_dataset, text_cache
from resnorm_jax.data.inputs import read_inputs
from resnorm_jax.data.pipeline import TrainBatches, eval_batches
from resnorm_jax.data.preprocess import describe
from resnorm_jax.data.text_lines import text_lines
from resnorm_jax.errors import UserError

TEXTS = ['A "fine", film!', "dull\tand\nlong", "Äußerst schön", "good; bad", "你好 世界", "x" * 300]
LABELS = ["pos", "neg", "pos", "pos", "neg", "neg"]
PAIRS = ["one", "two", "three", "four", "five", "six"]
BYTES = {"tokenizer": "bytes", "max_length": 400, "test_fraction": 0.4}


def message_of(options):
    with pytest.raises(UserError) as error:
        load_dataset("text", options)
    assert "\n" not in str(error.value)
    return str(error.value)


def make_csv(path, delimiter=",", encoding="utf-8", header=True):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["text", "label", "pair"]] * header)
        writer.writerows(zip(TEXTS, LABELS, PAIRS, strict=True))
    return path


def table():
    return pa.table({"text": TEXTS, "label": LABELS, "pair": PAIRS})


def make_json(path):
    rows = [
        {"text": t, "label": y, "pair": p} for t, y, p in zip(TEXTS, LABELS, PAIRS, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def make_parquet(path):
    pq.write_table(table(), path, row_group_size=4)
    return path


def make_folder(path):
    for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{i}.txt").write_text(text + "\n", encoding="utf-8")
    return path


def make_saved(path, names=("neg", "pos")):
    """What `datasets` writes by save_to_disk: labels as numbers, their names in the schema."""
    path.mkdir(parents=True)
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": list(names), "_type": "ClassLabel"},
    }
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    made = pa.table({"text": TEXTS, "label": [names.index(y) for y in LABELS]})
    made = made.replace_schema_metadata(about)
    with (
        pa.OSFile(str(path / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, made.schema) as stream,
    ):
        stream.write_table(made, max_chunksize=4)
    files = [{"filename": "data-00000-of-00001.arrow"}]
    (path / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train"}))
    (path / "dataset_info.json").write_text(json.dumps({"features": features}))
    return path


MAKERS = {
    "csv": lambda d: make_csv(d / "a.csv"),
    "tsv": lambda d: make_csv(d / "a.tsv", "\t"),
    "jsonl": lambda d: make_json(d / "a.jsonl"),
    "parquet": lambda d: make_parquet(d / "a.parquet"),
    "folder": lambda d: make_folder(d / "a"),
    "saved": lambda d: make_saved(d / "a"),
}


def texts_of(data):
    """The texts of all rows, from their bytes, with their class names."""
    rows = []
    for part in (data.train, data.test):
        for x, length, y in zip(np.asarray(part.x), part.lengths, part.y, strict=True):
            text = bytes((x[:length] - 1).astype(np.uint8)).decode()
            rows.append((text, data.classes[y]))
    return sorted(rows)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_source_gives_the_same_rows(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("resnorm_jax.data.text_files.CHUNK_ROWS", 2)
    data = load_dataset("text", {"train": str(MAKERS[kind](tmp_path)), **BYTES})
    assert texts_of(data) == sorted(zip(TEXTS, LABELS, strict=True))
    assert data.classes == ("neg", "pos")
    assert data.name == "a"


@pytest.mark.parametrize("kind", MAKERS)
def test_rows_to_predict_are_read_by_the_same_readers(tmp_path, kind):
    path = MAKERS[kind](tmp_path)
    data = load_dataset("text", {"train": str(path), "test": str(path), **BYTES})
    again = read_inputs(path, describe(data))
    np.testing.assert_array_equal(again.x, data.test.x)
    np.testing.assert_array_equal(again.y, data.test.y)


def test_columns_by_place_a_file_without_header_and_other_encodings(tmp_path):
    options = {"text_column": "1", "label_column": "2", "header": False, "encoding": "UTF-16"}
    path = make_csv(tmp_path / "b.csv", encoding="utf-16", header=False)
    data = load_dataset("text", {"train": str(path), **BYTES, **options})
    assert texts_of(data) == sorted(zip(TEXTS, LABELS, strict=True))
    again = read_inputs(path, json.loads(json.dumps(describe(data))))
    assert (again.y >= 0).all()
    make_csv(tmp_path / "c.csv", encoding="utf-8-sig")
    for encoding in ("utf-8", "utf-8-sig"):
        data = load_dataset(
            "text", {"train": str(tmp_path / "c.csv"), **BYTES, "encoding": encoding}
        )
        assert texts_of(data) == sorted(zip(TEXTS, LABELS, strict=True))
    data = load_dataset("text", {"train": str(make_parquet(tmp_path / "a.parquet")), **BYTES,
                                 "text_column": "3", "label_column": "2"})  # fmt: skip
    assert texts_of(data) == sorted(zip(PAIRS, LABELS, strict=True))


def test_quotes_may_be_characters(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\nan "odd one\ta\nplain\tb\n')
    data = load_dataset("text", {"train": str(path), "test": str(path), **BYTES, "quotes": False})
    assert texts_of(data)[0] == ('an "odd one', "a")


def test_a_long_field_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{'ab ' * 50_000},a\nb,b\n")
    data = load_dataset("text", {"train": str(path), "test": str(path), "max_length": 10})
    assert data.train.lengths.tolist() == [10, 1]
    cut = data.told["truncation"]
    assert cut == {"max_length": 10, "rows": 0.5, "tokens": round(49_990 / 50_001, 6)}
    assert data.lines[1] == "cut to 10 tokens: 50.00 % of rows, 99.98 % of tokens"


def test_a_saved_dictionary_has_its_own_splits(tmp_path):
    names = ["train", "validation", "test"]
    for name in names:
        make_saved(tmp_path / "d" / name)
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": names}))
    data = load_dataset("text", {"train": str(tmp_path / "d"), **BYTES})
    assert [len(part) for part in (data.train, data.valid, data.test)] == [6, 6, 6]
    path = make_csv(tmp_path / "a.csv")
    data = load_dataset(
        "text", {"train": str(path), "valid": str(path), "test": str(path), **BYTES}
    )
    assert len(data.valid) == 6


# Large files


def test_large_files_lie_in_the_cache_and_read_as_arrays(tmp_path, monkeypatch, caplog):
    path = make_csv(tmp_path / "a.csv")
    options = {"train": str(path), **BYTES, "cache": str(tmp_path / "cache")}
    small = load_dataset("text", options)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(text_cache, "SMALL", 0)
    monkeypatch.setattr(encoded, "PADDED", 0)
    monkeypatch.setattr("resnorm_jax.data.ragged.KEPT", 10)
    for turn in ("made", "read"):
        large = load_dataset("text", options)
        assert ("from the cache" in large.lines[0]) == (turn == "read")
        for part in ("train", "test"):
            one, two = getattr(small, part), getattr(large, part)
            assert one.x.shape == two.x.shape
            np.testing.assert_array_equal(one.x, two.x)
            np.testing.assert_array_equal(one.x[-1], two.x[-1])
            np.testing.assert_array_equal(one.take(np.array([1, 0])).x[:, 2:7], two.x[[1, 0], 2:7])
        assert same_batches(small.train, large.train)
    from resnorm_jax.data.fingerprint import fingerprint

    assert fingerprint(small) == fingerprint(large)


def same_batches(one, two):
    for make in (lambda e: TrainBatches(e, 2, (20, 400), 0), lambda e: eval_batches(e, 2, (20,))):
        made = [make(examples) for examples in (one, two)]
        count = getattr(made[0], "steps_per_epoch", None) or len(made[0])
        for step in range(count):
            pair = [m.batch_at(step) if hasattr(m, "batch_at") else m[step] for m in made]
            for key in pair[0]:
                np.testing.assert_array_equal(pair[0][key], pair[1][key])
    return True


def test_pages_of_the_disk_are_let_go(tmp_path, monkeypatch):
    from resnorm_jax.data import ragged

    path = tmp_path / "ids.npy"
    np.save(path, np.arange(4000, dtype=np.uint16))
    told = []
    ids = np.load(path, mmap_mode="r")
    monkeypatch.setattr(ragged, "KEPT", 3 * ragged.AROUND)
    rows = ragged.Ragged(ids, np.arange(0, 4001, 40), np.arange(100), 40)
    monkeypatch.setattr(
        rows, "_forget", lambda forget=rows._forget: told.append(rows._read) or forget()
    )
    for start in range(0, 8, 2):
        np.testing.assert_array_equal(rows[start : start + 2].ravel(), ids[start * 40 :][:80])
    assert told == [2 * ragged.AROUND, 4 * ragged.AROUND] * 2


def folder_of(cache):
    (folder,) = cache.glob("text-*")
    return folder


@pytest.mark.parametrize("name", ["ids.npy", "labels.npy", "about.json"])
def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch, caplog, name):
    monkeypatch.setattr(text_cache, "SMALL", 0)
    cache = tmp_path / "cache"
    options = {"train": str(make_csv(tmp_path / "a.csv")), **BYTES, "cache": str(cache)}
    good = load_dataset("text", options)
    file = folder_of(cache) / name
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.unlink()
    file.write_bytes(data)
    again = load_dataset("text", options)
    np.testing.assert_array_equal(good.train.x, again.train.x)
    assert "damaged cache" in caplog.text
    assert "from the cache" in load_dataset("text", options).lines[0]


def test_the_cache_knows_its_file_and_its_tokenizer_and_has_a_limit(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(text_cache, "SMALL", 0)
    cache, path = tmp_path / "cache", make_csv(tmp_path / "a.csv")
    options = {"train": str(path), **BYTES, "cache": str(cache)}
    load_dataset("text", options)
    load_dataset("text", options | {"max_length": 5})
    load_dataset("text", options | {"text_column": "pair"})
    assert len(list(cache.glob("text-*"))) == 3
    path.write_text(path.read_text("utf-8").replace("dull", "dusk"), "utf-8")
    changed = load_dataset("text", options)
    assert any("dusk" in text for text, _ in texts_of(changed))
    monkeypatch.setattr("resnorm_jax.data.cache_folder.LIMIT", 1)
    load_dataset("text", options | {"max_length": 6})
    assert len(list(cache.glob("*"))) == 1
    cache.joinpath("file").write_text("")
    load_dataset("text", options | {"cache": str(cache / "file" / "inside")})
    assert "cannot be written" in caplog.text


def test_a_fault_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "SMALL", 0)
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\nb,y\n ,y\n")
    assert "a.csv:4: empty text" in message_of(
        {"train": str(path), **BYTES, "cache": str(tmp_path / "cache")}
    )
    assert list((tmp_path / "cache").iterdir()) == []


# Faults


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def bad_parquet(rows):
    def make(path):
        pq.write_table(pa.table(rows), path)

    return make


def cut_parquet(path):
    pq.write_table(table(), path)
    path.write_bytes(path.read_bytes()[:-20])


def foreign_saved(path):
    make_saved(path)
    (path / "data-00000-of-00001.arrow").write_bytes(b"ARROW1 no")


def outside_saved(path):
    make_saved(path)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../x.arrow"}]}))


def stateless_saved(path):
    make_saved(path)
    (path / "state.json").write_text("{}")


JSON = '{"text": "a", "label": %s}\n'
BAD = [
    (
        "a.tsv",
        "text\tlabel\na\tx\nb\ty\tz\n",
        {},
        "a.tsv:3: 3 fields, the header has 2; quote texts that",
    ),
    (
        "a.csv",
        "text,label\na,x\n",
        {"text_column": "3"},
        "a.csv:2: no column '3' (data.text_column)",
    ),
    ("a.csv", "a,b\na,x\n", {"pair_column": "c", "tokenizer": "bpe"}, "a.csv:2: no column 'text'"),
    (
        "a.csv",
        "text,label\na,x\n",
        {"pair_column": "c"},
        "data.pair_column: the tokenizer 'words' has no",
    ),
    (
        "a.csv",
        "text,label,b\na,x,\n",
        {"pair_column": "b", "tokenizer": "bpe"},
        "a.csv:2: empty text in column 'b'",
    ),
    (
        "a.csv",
        "text,label\na,x\n",
        {"label_column": "text"},
        "data.label_column: 'text' is data.text_column too",
    ),
    ("a.jsonl", JSON % "1" + JSON % '"x"', {}, "a.jsonl:2: the label 'x' is a name, 1 of "),
    ("a.jsonl", JSON % "null", {}, "a.jsonl:1: 'label' is null"),
    (
        "a.csv",
        "text,label\ncaf\xe9,x\n".encode("latin-1"),
        {},
        "a.csv:2: not UTF-8 at byte 14; save it as UTF-8, or name its data.encoding",
    ),
    (
        "a.csv",
        b"text,label\n\xff,x\n",
        {"encoding": "ascii"},
        "a.csv:2: not ASCII at byte 11; name another",
    ),
    (
        "a.csv",
        "text,label\na,x\n",
        {"encoding": "utf-9"},
        "data.encoding: 'utf-9' is no encoding of text",
    ),
    (
        "a.csv",
        "text,label\na,x\n",
        {"encoding": "base64"},
        "data.encoding: 'base64' is no encoding of text",
    ),
    (
        "a.csv",
        "text,label\na,x\n".encode("utf-16"),
        {},
        "a.csv: the file is UTF-16; save it as UTF-8, or set data.encoding=utf-16",
    ),
    (
        "a.csv",
        "text,label\na,x\nb,x\nc,x\nd,x\n",
        {"test_fraction": 0.5},
        "data.source: the training rows of 'a' have one class, 'x'",
    ),
    ("a.parquet", b"PAR1 not PAR1", {}, "a.parquet: not a Parquet file, or damaged ("),
    ("a.parquet", cut_parquet, {}, "a.parquet: not a Parquet file, or damaged ("),
    ("a.parquet", b"", {}, "a.parquet: the file is empty"),
    (
        "a.parquet",
        bad_parquet({"text": ["a"], "mood": ["x"]}),
        {},
        "a.parquet: row 1: no column 'label' (data.label_column); choose one of: mood, text",
    ),
    (
        "a.parquet",
        bad_parquet({"text": ["a", None], "label": ["x", "y"]}),
        {},
        "a.parquet: row 2: 'text' is null",
    ),
    (
        "a.parquet",
        bad_parquet({"text": [1, 2], "label": ["x", "y"]}),
        {},
        "a.parquet: row 1: 1 is no text",
    ),
    (
        "a.parquet",
        bad_parquet({"text": ["a"], "label": [0.5]}),
        {},
        "a.parquet: row 1: 0.5 in column 'label' is no label",
    ),
    (
        "a.parquet",
        bad_parquet({"text": pa.array([], "string"), "label": pa.array([], "string")}),
        {},
        "a.parquet: no rows",
    ),
    (
        "d",
        lambda path: path.mkdir(),
        {},
        "d: a folder without classes: no folder inside holds .txt files; make",
    ),
    ("d/x/1.txt", "", {}, "d/x/1.txt: the file is empty"),
    ("d/x/1.txt", b"\xff\xfa", {}, "d/x/1.txt:1: not UTF-8 at byte 0"),
    ("d", foreign_saved, {}, "data-00000-of-00001.arrow: not an Arrow file, or damaged ("),
    ("d", outside_saved, {}, "state.json: '../x.arrow' lies outside of the folder"),
    ("d", stateless_saved, {}, "state.json: it names no files under '_data_files'"),
    (
        "a.csv",
        "text,label\na,x\n",
        {"tokenizer": "words", "valid": "gone.csv"},
        "data.valid: no file at 'gone.csv'",
    ),
    (
        "a.csv",
        "text,label\na,x\n",
        {"tokenizer": "wordpeice"},
        "data.tokenizer: unknown value 'wordpeice'; did you mean 'wordpiece'?",
    ),
    (
        "a.csv",
        "text,label\na,x\n",
        {"tokenizer": "no/tokenizer.json"},
        "data.tokenizer: 'no/tokenizer.json': no such file",
    ),
    (
        "a.csv",
        "text,label\na,x\nb,y\n",
        {"tokenizer": "{d}/a.csv", "test": "{d}/a.csv"},
        "a.csv: damaged, or no tokenizer of the library tokenizers (",
    ),
    (
        "a.csv",
        "text,label\na,x\n",
        {"tokenizer": "{d}"},
        "holds no tokenizer.json; write one by transformers",
    ),
]


@pytest.mark.parametrize(("name", "content", "options", "message"), BAD)
def test_faults_are_one_line(tmp_path, name, content, options, message):
    path = tmp_path / name
    content(path) if callable(content) else write(path, content)
    top = tmp_path / name.partition("/")[0]
    options = {k: v.format(d=tmp_path) if isinstance(v, str) else v for k, v in options.items()}
    assert message in message_of({"train": str(top), **options})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_the_place_of_what_cannot_be_decoded(tmp_path, encoding, monkeypatch):
    monkeypatch.setattr("resnorm_jax.data.text_lines.BLOCK", 7)
    path = tmp_path / "a.txt"
    good = "é日\r\nb\rc\n".encode(encoding)
    path.write_bytes(good + {"utf-16": b"\x00\xdc"}.get(encoding, b"\xff"))
    with pytest.raises(UserError, match=rf"a.txt:4: not {encoding.upper()} at byte {len(good)};"):
        list(text_lines(path, encoding))
    assert list(text_lines_of(tmp_path, "a\r\nb\rc\n\n")) == ["a\n", "b\n", "c\n", "\n"]


def text_lines_of(folder, text):
    (folder / "b.txt").write_bytes(text.encode())
    return text_lines(folder / "b.txt")
