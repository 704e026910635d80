"""ListOps: the generator against an evaluator, published statistics and a fixed split."""

import hashlib
import logging
import random

import numpy as np
import pytest

from resnorm_jax.data import load_dataset
from resnorm_jax.data.listops import ListOpsOptions, generate, root_rule, unpack
from resnorm_jax.data.listops_cache import cache_path
from resnorm_jax.data.listops_grammar import VOCABULARY, draw, evaluate
from resnorm_jax.errors import UserError

SMALL = {"min_length": 20, "max_length": 128, "max_depth": 6, "max_args": 5}


@pytest.fixture(scope="module")
def small():
    return unpack(generate(ListOpsOptions(**SMALL, train=10_000, valid=0, test=1)))


def ids(text):
    return [VOCABULARY.index(word) for word in text.split()]


def reference_value(words):
    """Evaluate by substituting innermost brackets, as one would by hand."""
    text = " ".join(words)
    while "[" in text:
        start = text.rindex("[")
        end = text.index("]", start)
        operator, *values = text[start:end].split()
        values = [int(value) for value in values]
        result = {
            "[MIN": min(values),
            "[MAX": max(values),
            "[MED": int(np.median(values)),
            "[SM": int(np.sum(values) % 10),
        }[operator]
        text = text[:start] + str(result) + text[end + 1 :]
    return int(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MED 3 4 ]", 3),
        ("[MED 1 8 6 9 ]", 7),
        ("[MED 9 0 5 ]", 5),
        ("[SM 9 9 [MED 1 2 ] ]", 9),
        ("[MIN [SM 5 5 ] 3 ]", 0),
    ],
)
def test_evaluate_by_hand(text, value):
    assert evaluate(ids(text)) == value
    assert reference_value(text.split()) == value


@pytest.mark.parametrize("text", ["", "[MAX 2", "2 ]", "1 2", "[MAX ]", "<pad>", "] 3"])
def test_evaluate_refuses_what_is_no_expression(text):
    with pytest.raises(ValueError):
        evaluate(ids(text))


def test_labels_are_the_values(small):
    for x, length, label in zip(small.x[:3000], small.lengths, small.y, strict=False):
        tokens = x[:length].tolist()
        assert evaluate(tokens) == label
        assert reference_value([VOCABULARY[token] for token in tokens]) == label


def test_rows_obey_the_limits(small):
    assert small.x.dtype == np.uint8
    assert small.lengths.min() == 21  # strict: 20 < length < 128
    assert small.lengths.max() <= 127
    assert ((small.x != 0).sum(axis=1) == small.lengths).all()
    assert (small.x[:, 0] >= VOCABULARY.index("[MIN")).all()
    rows = {bytes(row) for row in small.x}
    assert len(rows) == len(small)
    opened = np.isin(small.x, ids("[MIN [MAX [MED [SM"))
    depth = np.cumsum(opened.astype(int) - (small.x == ids("]")[0]), axis=1)
    assert depth.max() == 5  # max_depth 6 counts the digit
    assert depth.min() == 0


def test_arguments_are_two_to_max_args(small):
    counts = set()
    for x, length in zip(small.x[:500], small.lengths, strict=False):
        stack = [0]
        for token in x[:length]:
            if VOCABULARY[token] == "]":
                counts.add(stack.pop())
            else:
                stack[-1] += 1
                if VOCABULARY[token].startswith("["):
                    stack.append(0)
    assert counts == {2, 3, 4, 5}


def test_statistics_of_the_small_variant(small):
    """Figures measured on the original LRA generator with the same limits."""
    assert np.mean(small.lengths) == pytest.approx(40, abs=1)
    assert np.bincount(small.y).max() / len(small) == pytest.approx(0.123, abs=0.01)
    half = np.arange(len(small)) < 5000
    rule = root_rule(small.take(np.flatnonzero(half)), small.take(np.flatnonzero(~half)))
    assert rule == pytest.approx(0.253, abs=0.02)


@pytest.mark.table
def test_statistics_of_the_full_variant():
    rows = unpack(generate(ListOpsOptions(train=1500, valid=0, test=1)))
    assert np.mean(rows.lengths) == pytest.approx(1035, abs=30)
    assert rows.lengths.min() > 500
    assert rows.lengths.max() < 2000
    frequency = np.bincount(rows.y) / len(rows)
    assert frequency[[0, 9]] == pytest.approx([0.168, 0.170], abs=0.03)
    assert evaluate(rows.x[3, : rows.lengths[3]].tolist()) == rows.y[3]


def test_distribution_matches_a_plain_transcription_of_the_grammar():
    """An independent sampler, with the standard library's own choice and randint."""

    def tree(rand, depth):
        if depth == 6 or rand.random() > 0.25:
            return [str(rand.choice(range(10)))]
        children = [tree(rand, depth + 1) for _ in range(rand.randint(2, 5))]
        operator = rand.choice(["[MIN", "[MAX", "[MED", "[SM"])
        return [operator, *(token for child in children for token in child), "]"]

    rand = random.Random(5)
    theirs = [t for t in (tree(rand, 1) for _ in range(40_000)) if 20 < len(t) < 128]
    ours = [row for row in (draw(rand.random, 20, 128, 6, 5) for _ in range(40_000)) if row]
    assert len(ours) == pytest.approx(len(theirs), rel=0.1)
    lengths = [np.mean([len(t) for t in theirs]), np.mean([len(row[0]) for row in ours])]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.06)
    shares = [
        np.bincount([VOCABULARY.index(w) for t in theirs for w in t], minlength=16),
        np.bincount(list(b"".join(row[0] for row in ours)), minlength=16),
    ]
    np.testing.assert_allclose(*(share / share.sum() for share in shares), atol=0.01)


def test_the_split_of_seed_0_never_changes(small):
    text = " ".join(VOCABULARY[token] for token in small.x[0, : small.lengths[0]])
    assert text == GOLDEN_TEXT
    rows = [bytes(x[:n]) for x, n in zip(small.x[:1000], small.lengths, strict=False)]
    content = b"".join(rows) + bytes(small.y[:1000].tolist())
    assert hashlib.sha256(content).hexdigest()[:16] == GOLDEN_DIGEST


GOLDEN_TEXT = "[MAX 2 8 [MED [SM 4 [MAX 9 [SM 7 5 8 5 ] 5 ] 3 2 [SM 6 0 ] ] 8 9 3 ] ]"
GOLDEN_DIGEST = "ee2ff5f15a261df3"


def test_load_and_splits(tmp_path):
    options = {**SMALL, "train": 300, "valid": 40, "test": 60, "cache": str(tmp_path)}
    data = load_dataset("listops", options)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [300, 40, 60]
    assert data.kind == "tokens"
    assert data.vocabulary == VOCABULARY
    assert len(data.vocabulary) == 16
    rows = [bytes(x) for part in (data.train, data.valid, data.test) for x in part.x]
    assert len(set(rows)) == 400
    assert data.rules == {"root operator": root_rule(data.train, data.test)}
    assert load_dataset("listops", {**options, "valid": 0}).valid is None


def test_root_rule_by_hand(small):
    train = small.take(np.arange(4000))
    test = small.take(np.arange(4000, 6000))
    names = [VOCABULARY[token] for token in train.x[:, 0]]
    summed = [label for name, label in zip(names, train.y, strict=True) if name == "[SM"]
    best = max(range(10), key=lambda label: (summed.count(label), -label))
    guesses = {"[MIN": 0, "[MAX": 9, "[MED": 4, "[SM": best}
    hits = [guesses[VOCABULARY[x[0]]] == y for x, y in zip(test.x, test.y, strict=True)]
    assert root_rule(train, test) == pytest.approx(np.mean(hits))


def test_cache_is_used_checked_and_made_again(tmp_path, caplog, monkeypatch):
    options = ListOpsOptions(**SMALL, train=50, valid=5, test=5, cache=str(tmp_path))
    settings = {**SMALL, "train": 50, "valid": 5, "test": 5, "cache": str(tmp_path)}
    first = load_dataset("listops", settings)
    path = cache_path(options)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    stamp = path.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("resnorm_jax.data.listops.generate", lambda options: 1 / 0)
        again = load_dataset("listops", settings)
    np.testing.assert_array_equal(first.train.x, again.train.x)
    assert path.stat().st_mtime_ns == stamp

    whole = path.read_bytes()
    with np.load(path) as file:
        changed = dict(file)
    changed["labels"] = (changed["labels"] + 1) % 10
    for damage in ("cut", "text", "labels"):
        if damage == "labels":
            np.savez(path, **changed)
        else:
            path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"nonsense")
        with caplog.at_level(logging.WARNING):
            data = load_dataset("listops", settings)
        assert "damaged cache" in caplog.text
        caplog.clear()
        np.testing.assert_array_equal(first.train.y, data.train.y)
        np.testing.assert_array_equal(first.test.x, data.test.x)
        assert path.read_bytes() == whole


def test_cache_name_depends_on_options_and_folder_on_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = [cache_path(ListOpsOptions(seed=seed)) for seed in (0, 0, 1)]
    assert paths[0] == paths[1] != paths[2]
    assert paths[0].parent == tmp_path / "resnorm_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_path(ListOpsOptions()).parent == tmp_path / ".cache" / "resnorm_jax"


def test_a_cache_that_cannot_be_written_is_only_a_note(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    settings = {**SMALL, "train": 20, "valid": 0, "test": 5, "cache": str(blocked)}
    with caplog.at_level(logging.WARNING):
        assert len(load_dataset("listops", settings).train) == 20
    assert "cannot be written" in caplog.text


def test_progress_bar_appears_when_generation_lasts(monkeypatch):
    from rich.progress import Progress

    calls = []
    monkeypatch.setattr("resnorm_jax.data.bar.BAR_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(Progress, "start", lambda self: calls.append("start"))
    monkeypatch.setattr(Progress, "stop", lambda self: calls.append("stop"))
    monkeypatch.setattr(Progress, "update", lambda self, task, completed: calls.append(completed))
    generate(ListOpsOptions(**SMALL, train=600, valid=0, test=1))
    assert calls == ["start", 256, 512, "stop"]


def test_different_seeds_differ():
    parts = [
        generate(ListOpsOptions(**SMALL, train=20, valid=0, test=1, seed=s))["tokens"][:400]
        for s in (0, 1)
    ]
    assert (parts[0] != parts[1]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_length": 501},
            "data.max_length: 501 is out of range; give a value from 502 to 1000000",
        ),
        ({"max_args": 1}, "data.max_args: 1 is out of range; give a value from 2 to 1000"),
        ({"train": 0}, "data.train: 0 is out of range; give a value from 1 to 100000000"),
        ({"seed": -1}, f"data.seed: -1 is out of range; give a value from 0 to {2**63 - 1}"),
        (
            {"max_depth": 1, "min_length": 0, "max_length": 5},
            "data.min_length: found only 10 of 100000 different sequences of length 0-5 with "
            "max_depth 1 and max_args 10; widen the lengths, deepen the trees, or take fewer rows",
        ),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(UserError) as error:
        load_dataset("listops", {"cache": str(tmp_path), **options})
    assert str(error.value) == message
