"""Every malformed data file is one line; every valid one is read."""

from collections import Counter

import pytest
from reliability.corpus_data import CASES
from reliability.run_cases import command, run

LARGE = ("1.2 GB", "70 million", "100 MB")
WRONG = [
    pytest.param(
        case,
        id=case.name,
        marks=pytest.mark.table if number % 2 or any(w in case.name for w in LARGE) else (),
    )
    for number, case in enumerate(CASES)
    if case.status
]
VALID = [pytest.param(case, id=case.name) for case in CASES if not case.status]


def test_cases_have_names_of_their_own():
    assert [name for name, count in Counter(c.name for c in CASES).items() if count > 1] == []


@pytest.mark.parametrize("case", WRONG)
def test_a_malformed_file_is_one_line(case, tmp_path):
    result = run(case, tmp_path)
    assert result.outcome == "right", (result.outcome, result.line)


@pytest.mark.parametrize("case", VALID)
def test_a_valid_file_is_read(case, tmp_path):
    from resnorm_jax.config import from_dict
    from resnorm_jax.config_file import read_config
    from resnorm_jax.training.run_data import prepare_data

    case.files(tmp_path)
    config = read_config(command(case, tmp_path)[1].removeprefix("--config="))
    dataset = prepare_data(from_dict(config.to_dict()))
    assert len(dataset.classes) == 2
    assert set(dataset.train.y) == {0, 1}
