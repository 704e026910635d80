"""Tokenizers: trained on the training rows, or a checkpoint's; ids equal transformers'."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer

from resnorm_jax.data import load_dataset
from resnorm_jax.data.inputs import given_inputs, read_inputs
from resnorm_jax.data.preprocess import describe
from resnorm_jax.data.tokenizer_files import LibraryTokenizer
from resnorm_jax.data.tokenizer_training import SPECIAL, TRAINED, train_tokenizer
from resnorm_jax.errors import UserError

WORDS = [
    *"abc",
    "the",
    "film",
    "plot",
    "was",
    "is",
    "not",
    "dull",
    "clever",
    "naïve",
    "Öde",
    "東京",
    "2,000",
]
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 4 + i % 7)) for i in range(60)]
SIZES = {"bpe": 300, "wordpiece": 90, "unigram": 70}


def trained(kind, texts=TEXTS):
    return train_tokenizer(kind, lambda: iter(texts), SIZES[kind])


def dataset(tmp_path, tokenizer, pair="", **options):
    rows = [{"text": t, "label": "ab"[i % 2], "pair": TEXTS[-i]} for i, t in enumerate(TEXTS)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    options = {"train": str(path), "tokenizer": str(tokenizer), "pair_column": pair, **options}
    return load_dataset("text", options)


@pytest.mark.parametrize("kind", TRAINED)
def test_training_is_the_same_in_every_process(kind, tmp_path):
    data = trained(kind)
    made = LibraryTokenizer("here", data, 100)
    assert made.names[: len(SPECIAL)] == SPECIAL
    assert made.encoding["special"] == {
        "pad": 0, "unknown": 1, "begin": 2, "separator": 3, "mask": 4
    }  # fmt: skip
    assert len(made.names) <= SIZES[kind]
    ids = made.encode(["the film was clever"])[0][0]
    assert (ids[0], ids[-1]) == (2, 3)
    assert 1 not in ids
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    program = (
        "import hashlib, json, sys; from resnorm_jax.data.tokenizer_training import train_tokenizer;"
        f"texts = json.load(open({str(tmp_path / 'texts.json')!r}));"
        f"data = train_tokenizer({kind!r}, lambda: iter(texts), {SIZES[kind]});"
        "print(hashlib.sha256(data).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.decode().strip() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", TRAINED)
def test_a_vocabulary_under_the_alphabet_is_refused(kind):
    with pytest.raises(UserError, match=r"data.vocabulary: 20 is under the \d+ tokens that"):
        train_tokenizer(kind, lambda: iter(TEXTS), 20)


@pytest.mark.parametrize("kind", TRAINED)
def test_ids_and_cuts_equal_those_of_transformers(kind, tmp_path):
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer.from_buffer(trained(kind))
    made.enable_padding(length=7)  # a file's own settings are not used
    made.enable_truncation(3)
    made.save(str(tmp_path / "tokenizer.json"))
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]"
    )
    texts = [*TEXTS, "", "unseen ☃ [SEP] [MASK] x" * 9, "\u200b", "A\n\tB"]
    pairs = list(zip(texts, texts[::-1], strict=True))
    for longest in (4, 9, 1000):
        ours = LibraryTokenizer("here", (tmp_path / "tokenizer.json").read_bytes(), longest)
        for given in (texts, pairs):
            split = (given,) if given is texts else map(list, zip(*given, strict=True))
            split = [list(part) for part in split]
            want = theirs(*split, truncation=True, max_length=longest, padding=False)["input_ids"]
            whole = theirs(*map(list, split), truncation=False, padding=False)["input_ids"]
            ids, cut = ours.encode(given)
            assert ids == want
            assert cut == [len(w) - len(i) for w, i in zip(whole, ids, strict=True)]


def test_a_checkpoints_folder_and_its_digest(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(trained("wordpiece"))
    one = dataset(tmp_path, folder, max_length=6)
    two = dataset(tmp_path, folder / "tokenizer.json", max_length=6)
    np.testing.assert_array_equal(one.train.x, two.train.x)
    assert one.files == {"tokenizer.json": trained("wordpiece")}
    assert one.encoding["sha256"] == hashlib.sha256(trained("wordpiece")).hexdigest()
    assert one.encoding["tokenizer"] == "tokenizer.json"
    assert one.lines[0].startswith(f"tokenizer: model, {len(one.vocabulary)} tokens; ")
    assert one.train.x.max() < len(one.vocabulary)
    assert (one.train.x[:, 0] == 2).all()
    last = one.train.x[np.arange(len(one.train)), one.train.lengths - 1]
    assert (last == 3).all()  # a text that is cut keeps its special tokens


@pytest.mark.parametrize("kind", TRAINED)
def test_it_is_trained_on_training_rows_and_kept_for_new_ones(kind, tmp_path):
    data = dataset(tmp_path, kind, pair="pair", vocabulary=SIZES[kind], max_length=20)
    again = dataset(tmp_path, kind, pair="pair", vocabulary=SIZES[kind], max_length=20)
    assert data.files == again.files
    meta = json.loads(json.dumps(describe(data))) | {"directory": str(tmp_path)}
    with pytest.raises(UserError, match=r"tokenizer.json: no such file"):
        read_inputs(tmp_path / "a.jsonl", meta)
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"tokenizer.json: not the tokenizer of this run"):
        read_inputs(tmp_path / "a.jsonl", meta)
    (tmp_path / "tokenizer.json").write_bytes(data.files["tokenizer.json"])
    rows = read_inputs(tmp_path / "a.jsonl", meta)
    known = {x.tobytes() for part in (data.train, data.test) for x in part.x[:, :20]}
    assert {x.tobytes() for x in np.pad(rows.x, [(0, 0), (0, 20 - rows.x.shape[1])])} == known
    given = given_inputs([("the film", "was dull"), ("a", "b")], meta)
    assert (given.x[0] == 3).sum() == 2  # a separator after each of a pair
    for bad, message in [
        ("the film", "row 1: 'the film'; the model was trained on pairs of texts: give"),
        (("a", " "), "row 1: empty text"),
        (("a", "b", "c"), "trained on pairs"),
        (("a", 3), "trained on pairs"),
        (("a", "\ud800"), "row 1: broken Unicode"),
    ]:
        with pytest.raises(UserError, match=message):
            given_inputs([bad], meta)
    with pytest.raises(UserError, match=r"row 1: .* trained on single texts"):
        given_inputs([("a", "b")], {**meta, "encoding": {**meta["encoding"], "pair_column": ""}})
    with pytest.raises(UserError, match=r"its tokenizer lies beside it; load the run"):
        read_inputs(tmp_path / "a.jsonl", {**meta, "directory": None})


def test_only_training_rows_are_learned_from(tmp_path):
    rows = [{"text": f"word{i}", "label": i % 2} for i in range(40)]
    path = tmp_path / "b.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = load_dataset("text", {"train": str(path), "tokenizer": "wordpiece", "vocabulary": 500})
    held = {i for i in range(40) if f"word{i}" not in data.vocabulary}
    assert len(held) == len(data.test) == 8


def test_lengths_that_leave_no_room(tmp_path):
    with pytest.raises(
        UserError, match=r"data.max_length: 2 leaves no room for text beside 2 special"
    ):
        dataset(tmp_path, "bpe", max_length=2)
    with pytest.raises(UserError, match="beside 3 special tokens; give 5 or more"):
        dataset(tmp_path, "bpe", pair="pair", max_length=4)


def test_a_text_without_tokens_and_damaged_tokenizers(tmp_path):
    bare = json.loads(trained("wordpiece"))
    bare["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(bare))
    (tmp_path / "a.csv").write_text("text,label\na,x\n\u200b,y\n", encoding="utf-8")
    options = {"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "a.csv")}
    with pytest.raises(UserError, match=r"a.csv:3: the tokenizer makes no token of the text"):
        load_dataset("text", options | {"tokenizer": str(tmp_path)})
    (tmp_path / "b.csv").write_text("text,label\na,x\nb,y\n")
    two = dict.fromkeys(("train", "test"), str(tmp_path / "b.csv"))
    meta = describe(load_dataset("text", two | {"tokenizer": str(tmp_path)}))
    with pytest.raises(UserError, match=r"a.csv:3: the tokenizer makes no token of the text"):
        read_inputs(tmp_path / "a.csv", {**meta, "directory": str(tmp_path)})
    for damage in (b"", b"{}", b"[1]", b"\xff", trained("bpe")[:-9]):
        (tmp_path / "tokenizer.json").write_bytes(damage)
        with pytest.raises(UserError, match=r"tokenizer.json: .*damaged") as error:
            load_dataset("text", options | {"tokenizer": str(tmp_path)})
        assert "\n" not in str(error.value)


def test_a_large_files_tokenizer_is_learned_once(tmp_path, monkeypatch, caplog):
    from resnorm_jax.data import text_cache

    monkeypatch.setattr(text_cache, "SMALL", 0)
    options = {"vocabulary": 90, "cache": str(tmp_path / "cache")}
    first = dataset(tmp_path, "wordpiece", **options)
    (made,) = (tmp_path / "cache").glob("text-*/made")
    with monkeypatch.context() as patch:
        patch.setattr("resnorm_jax.data.tokenizers_by_name.train_tokenizer", None)
        assert dataset(tmp_path, "wordpiece", **options).files == first.files
    made.write_bytes(made.read_bytes()[:-9])
    assert dataset(tmp_path, "wordpiece", **options).files == first.files
    assert "damaged cache" in caplog.text
    other = dataset(tmp_path, "wordpiece", **options, seed=1)
    assert len(list((tmp_path / "cache").glob("text-*/made"))) == 2
    assert other.files != first.files
