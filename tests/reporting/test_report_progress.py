import io

import pytest
from rich.console import Console

from resnorm_jax.reporting.progress import Progress, format_duration, format_number


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def lines_of(console):
    return console.file.getvalue().splitlines()


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=40)  # narrow: plain lines must not wrap


def test_plain_lines_are_spaced_and_the_last_step_is_told(console):
    clock = Clock()
    with Progress("seed 0", 100, console=console, interval=10, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 1 if step < 100 else 0.5
            progress.update(step, examples=32, loss=0.5, accuracy=0.75)
    steps = [int(line.split("/100")[0].split()[-1]) for line in lines_of(console)]
    assert steps == [*range(1, 100, 10), 100]


def test_plain_line_holds_every_number(console):
    clock = Clock()
    with Progress("seed 0", 10, console=console, interval=1, clock=clock) as progress:
        clock.now += 60  # compilation
        progress.update(1, examples=32, loss=1.5, accuracy=0.25)
        clock.now += 2
        progress.update(2, examples=200, loss=0.5, accuracy=0.75)
    # 200 examples in 2 s without the minute of compilation; 8 steps of 2 s are left.
    assert lines_of(console)[-1] == (
        "seed 0   20%  2/10  loss 0.5000  accuracy 0.7500  100 examples/s  0:16 left"
    )
    # One update: the minute was the compilation's, and says nothing of the other nine.
    assert lines_of(console)[0] == "seed 0   10%  1/10  loss 1.5000  accuracy 0.2500  -:-- left"


def test_resumed_steps_do_not_count_as_speed(console):
    clock = Clock()
    with Progress("seed 0", 100, start=80, console=console, clock=clock) as progress:
        clock.now += 60
        progress.update(81, examples=1)
        clock.now += 10
        progress.update(91, examples=10)
    assert lines_of(console)[-1] == "seed 0   91%  91/100  1 examples/s  0:09 left"


def test_no_time_passed(console):
    with Progress("a [b]", 0, console=console, clock=Clock()) as progress:
        progress.update(0)
    assert lines_of(console) == ["a [b]    0%  0/0  0 examples/s  -:-- left"]


def test_the_rate_can_be_left_out(console):
    with Progress("claims", 4, console=console, clock=Clock(), rate=False) as progress:
        progress.update(1)
    assert lines_of(console) == ["claims   25%  1/4  -:-- left"]


def test_bar_on_a_terminal_fits_80_columns():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    clock = Clock()
    with Progress("seed 0", 2000, console=console, clock=clock) as progress:
        for step in (500, 1000):
            clock.now += 2
            progress.update(step, examples=16000, loss=0.1234, accuracy=0.5)
    last = [line for line in lines_of(console) if "seed 0" in line][-1]
    assert "1000/2000" in last
    assert "loss 0.1234" in last
    assert "8,000 ex/s" in last
    assert "0:04 left" in last
    assert "━━━━" in last


def test_bar_is_stopped_by_an_error():
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(RuntimeError), Progress("seed 0", 2, console=console) as progress:
        raise RuntimeError
    assert progress._bar.finished is False
    assert not progress._bar.live.is_started


def test_formats():
    values = (0.0, 0.12345, -2.5, 1e-5, 123456.0, float("nan"))
    assert [format_number(v) for v in values] == [
        *("0.0000", "0.1235", "-2.5000", "1.00e-05", "1.23e+05", "nan"),
    ]
    durations = (None, 0, 59.6, 3599, 3600)
    assert [format_duration(d) for d in durations] == ["-:--", "0:00", "1:00", "59:59", "1:00:00"]
