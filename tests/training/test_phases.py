"""Time by phase: every moment once."""

import io
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
from rich.console import Console

from resnorm_jax.reporting.tables import phases_table
from resnorm_jax.training.feed import put_ahead, together
from resnorm_jax.training.phases import PHASES, Phases


class Clock:
    now = 100.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


def test_each_moment_is_of_the_innermost_phase():
    clock = Clock()
    phases = Phases(clock)
    clock.pass_(1)
    with phases("data"):
        clock.pass_(2)
    with phases("evaluation"):
        clock.pass_(4)
        with phases("save"):
            clock.pass_(8)
        clock.pass_(16)
    clock.pass_(32)
    told = phases.told()
    assert list(told) == list(PHASES)
    assert {name: s for name, s in told.items() if s} == {
        "other": 33, "data": 2, "evaluation": 20, "save": 8,
    }  # fmt: skip
    assert sum(told.values()) == clock() - 100


def test_what_compiles_is_of_its_own_phase():
    clock, programs = Clock(), [0]
    phases = Phases(clock)
    phases.programs = lambda: programs[0]
    with phases("evaluation"):
        clock.pass_(1)
        phases.lap()
        programs[0] += 1
        clock.pass_(2)
        phases.lap()
        clock.pass_(4)
    assert {name: s for name, s in phases.told().items() if s} == {"evaluation": 5, "compile": 2}


def test_a_phase_that_raises_ends():
    clock = Clock()
    phases = Phases(clock)
    with suppress(KeyError), phases("data"):
        clock.pass_(1)
        raise KeyError
    clock.pass_(2)
    assert (phases.told()["data"], phases.told()["other"]) == (1, 2)


def test_the_table_has_shares_and_the_whole():
    out = io.StringIO()
    seconds = dict.fromkeys(PHASES, 0.0) | {"data": 1.0, "step": 3.0}
    phases_table(seconds, PHASES, Console(file=out, width=120))
    lines = out.getvalue().splitlines()
    assert any("step" in line and "3.0" in line and "75.0" in line for line in lines)
    assert any("total" in line and "4.0" in line for line in lines)
    phases_table(dict.fromkeys(PHASES, 0.0), PHASES, Console(file=out))  # no time at all


def test_a_batch_is_put_while_the_one_before_is_used():
    events = []

    def numbered():
        for index in range(3):
            events.append(f"made {index}")
            yield [(index, {"weight": np.array([1.0, 0.0]), "x": index})]

    def put(batch):
        events.append(f"put {batch['x']}")
        return batch

    for index, updates, batch, rows in put_ahead(SimpleNamespace(put=put), Phases(), numbered()):
        assert (batch["x"], updates, rows) == (index, 1, 1)
        events.append(f"used {index}")
    assert events == [
        "made 0", "put 0", "made 1", "put 1", "used 0", "made 2", "put 2", "used 1", "used 2",
    ]  # fmt: skip
    assert list(put_ahead(SimpleNamespace(put=put), Phases(), iter(()))) == []


def test_batches_go_together_where_nothing_is_to_be_done_between_them():
    def called(start, most):
        long = {5, 6}  # batches of another padded length
        numbered = ((i, {"x": np.zeros((2, 8 if i in long else 4))}) for i in range(start, 13))
        return [[i for i, _ in call] for call in together(numbered, most, lambda i: i == 9)]

    assert called(0, 1) == [[i] for i in range(13)]
    assert called(0, 2) == [[0, 1], [2, 3], [4], [5], [6], [7], [8, 9], [10, 11], [12]]
    # 4 to 7 differ in length, and something is to be done between 9 and 10.
    assert called(0, 4) == [[0, 1, 2, 3], *([i] for i in range(4, 13))]
    assert called(2, 4) == [[i] for i in range(2, 13)]  # calls begin at multiples alone
