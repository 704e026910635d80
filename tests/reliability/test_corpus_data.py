"""Every malformed data file is one line; every valid one is read."""

from collections import Counter

import pytest
from reliability.corpus_data import CASES
from reliability.run_cases import run

MANY = ("1.2 GB out of 1.2 MB", "a line of 70 million characters", "a line of 100 MB")


def _parameter(case):
    slow = case.status == 0 or case.name.split("/")[1] in MANY or "70 million" in case.name
    return pytest.param(case, id=case.name, marks=pytest.mark.table if slow else ())


def test_cases_have_names_of_their_own():
    assert [name for name, count in Counter(c.name for c in CASES).items() if count > 1] == []


@pytest.mark.parametrize("case", [_parameter(case) for case in CASES])
def test_a_file_is_read_or_told_in_one_line(case, tmp_path):
    result = run(case, tmp_path)
    assert result.outcome == "right", (result.outcome, result.line)
