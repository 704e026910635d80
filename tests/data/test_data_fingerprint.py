"""The content of a data set as its fingerprint: what changes it, and what must not."""

import json

import numpy as np
import pytest

from resnorm_jax.data import Dataset, Examples, scale_channels
from resnorm_jax.data.fingerprint import fingerprint


def examples(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5, 2)).astype(np.float32)
    return Examples(x, np.full(rows, 5, np.int32), np.arange(rows, dtype=np.int32) % 2)


def dataset(**changes):
    made = Dataset("made", "features", examples(), examples(4, 1), ("a", "b"))
    return made.replace(**changes)


def changed(**changes):
    first = examples()
    given = {"x": first.x.copy(), "lengths": first.lengths.copy(), "y": first.y.copy()}
    for name, change in changes.items():
        change(given[name])
    return Examples(**given)


def add_one(array):
    array.flat[-1] += 1


CHANGES = {
    "order of classes": {"classes": ("b", "a")},
    "a third class": {"classes": ("a", "b", "c")},
    "a value": {"train": changed(x=add_one)},
    "a length": {"train": changed(lengths=add_one)},
    "a label": {"train": changed(y=add_one)},
    "the test rows": {"test": examples(4, 2)},
    "order of the rows": {"train": examples().take(np.arange(6)[::-1])},
    "validation rows": {"valid": examples(2)},
    "vocabulary": {"vocabulary": ("<pad>", "a")},
    "where words end": {"vocabulary": ("<pad>a",)},
    "kind": {"kind": "tokens"},
    "scaling": {"scaling": (np.zeros(2), np.ones(2))},
}


def test_every_change_of_content_changes_it():
    seen = [fingerprint(dataset(**change)) for change in ({}, *CHANGES.values())]
    texts = [json.dumps(found) for found in seen]
    assert len(set(texts)) == len(texts)


def test_it_survives_json_and_does_not_see_names_of_files():
    found = fingerprint(scale_channels(dataset(source={"name": "arrays"})))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == fingerprint(scale_channels(dataset(name="other")))
    assert found["splits"]["train"]["shape"] == [6, 5, 2]
    assert found["splits"]["train"]["dtype"] == "float32"
    assert found["splits"]["valid"] is None


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda x: x.astype(">f4")])
def test_layout_in_memory_does_not_matter(layout):
    first = examples()
    other = Examples(layout(first.x), first.lengths, first.y)
    found, expected = fingerprint(dataset(train=other)), fingerprint(dataset())
    assert found == expected


def test_arrays_are_not_confused_at_their_ends():
    empty = Examples(np.zeros((0, 5, 2), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))
    shorter = Examples(empty.x[:, :4], empty.lengths, empty.y)
    assert fingerprint(dataset(valid=empty)) != fingerprint(dataset(valid=shorter))
