"""The changelog names every public name in the version that added it."""

import re
from pathlib import Path

import resnorm_jax as rn

TEXT = (Path(rn.__file__).parent / "CHANGES.md").read_text()
VERSIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
NEW = re.compile(r"^New public names of `rn`: (.*?)\.$", re.MULTILINE | re.DOTALL)


def test_versions_from_the_newest_to_the_first():
    assert [*VERSIONS][:2] == ["Unreleased", rn.__version__]
    assert [*VERSIONS][-1] == "0.1.0"


def test_each_public_name_is_new_in_one_version():
    found = [
        name for text in VERSIONS.values() for name in re.findall(r"`(\w+)`", NEW.search(text)[1])
    ]
    assert sorted(found) == sorted(rn.__all__)


def test_no_line_begins_twice():
    starts = [line[:60] for line in TEXT.splitlines() if line.startswith("- ")]
    assert [line for line in starts if starts.count(line) > 1] == []
