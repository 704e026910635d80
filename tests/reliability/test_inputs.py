"""Wrong inputs: one line, status 2, nothing written. Some by default, all with -m table."""

import re

import pytest
from reliability.inputs import cases
from reliability.run_cases import Result, run
from tiers import every

CASES = cases()
DEFAULT = {case.name for case in CASES[::60] if case.status}  # a valid input is trained on: slower


def slug(case) -> str:
    """A name that every terminal and every file system takes."""
    return re.sub(r"[^\w./=-]+", "_", case.name)


@pytest.mark.parametrize(
    "case", every(CASES, [c for c in CASES if c.name in DEFAULT], slug), ids=lambda c: slug(c)
)
def test_one_line_that_names_the_place(case, tmp_path):
    result: Result = run(case, tmp_path)
    assert result.outcome == "right", result


def test_there_are_enough_and_each_has_a_name_of_its_own():
    assert len(CASES) >= 400
    assert len({slug(case) for case in CASES}) > 0.9 * len(CASES)
