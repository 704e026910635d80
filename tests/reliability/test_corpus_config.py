"""Every wrong field, config file and command line: one line, its status, nothing written."""

from collections import Counter

import pytest
from reliability.corpus_config import CASES
from reliability.run_cases import run
from tiers import every

PARAMETERS = every(CASES, CASES[::2], lambda case: case.name)  # every second one by default


def test_cases_have_names_of_their_own():
    assert [name for name, count in Counter(c.name for c in CASES).items() if count > 1] == []


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_mistake_is_one_line(case, tmp_path):
    result = run(case, tmp_path)
    assert result.outcome == "right", (result.outcome, result.line)
