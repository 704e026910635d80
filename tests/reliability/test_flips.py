"""A damaged file of a finished run: the same result or none. All flips and whole commands are slow."""

import random

import pytest
from reliability import flips, made


def silent(items, label):
    return iter(items)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made.place(tmp_path_factory.mktemp("flips"))


@pytest.mark.table
@pytest.mark.parametrize("name", ["manifest.json", "config.json", "metrics.jsonl", "_METADATA"])
def test_a_flipped_bit_is_found_or_changes_nothing(run, name):
    rand, bad = random.Random(12), []
    readers = {p: read for p, read in flips._readers(run).items() if p.name == name}
    assert readers
    for path, read in readers.items():
        for bit in rand.sample(range(path.stat().st_size * 8), 12):
            flips._flipped(path, bit, read, bad)
    assert bad == []


@pytest.mark.slow
def test_all():
    found = flips.measure(False, 12, silent)
    assert not set(found["outcomes"]) & set(flips.BAD), found
