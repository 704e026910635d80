"""A trace of some steps: once, of steady steps, never in the way of the run."""

import gzip
import json
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from resnorm_jax.training import profile as profiles
from resnorm_jax.training.profile import STEADY, STEPS, Profile


@pytest.fixture
def traces(monkeypatch):
    """What is asked of jax's profiler, which does nothing but make the folder."""
    calls = []

    def start(folder):
        Path(folder).mkdir()
        calls.append("start")

    monkeypatch.setattr(jax.profiler, "start_trace", start)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def steps(profile, calls, programs):
    for number, count in enumerate(programs):
        with profile.step(number, (), count):
            calls.append(number)


def test_ten_steps_are_traced_once_nothing_is_compiled(tmp_path, traces):
    said = []
    with Profile(tmp_path / "profile", said.append) as profile:
        steps(profile, traces, [0, 1, 1, 2, *[2] * 30])
    first, last = traces.index("start"), traces.index("stop")
    assert last - first == STEPS + 1
    assert traces[first + 1] == 4 + STEADY - 1
    assert traces.count("start") == traces.count("stop") == 1
    assert (tmp_path / "profile").is_dir()
    assert not (tmp_path / "profile.partial").exists()
    assert len(said) == 1
    assert "ui.perfetto.dev" in said[0]


def test_a_trace_ends_with_the_training(tmp_path, traces):
    (tmp_path / "profile.partial").mkdir()  # of a process that was killed
    with suppress(KeyError), Profile(tmp_path / "profile") as profile:
        steps(profile, traces, [1] * (STEADY + 4))
        raise KeyError
    assert traces[-1] == "stop"
    assert (tmp_path / "profile").is_dir()


def test_a_folder_that_is_there_is_left_alone(tmp_path, traces):
    folder, said = tmp_path / "profile", []
    folder.mkdir()
    with Profile(folder, said.append) as profile:
        steps(profile, traces, [1] * 40)
    assert "start" not in traces
    assert said == [f"profile: none: {folder} is there already; move it away for a new one"]


def test_without_steady_steps_there_is_none_and_it_is_said(tmp_path, traces):
    said = []
    with Profile(tmp_path / "profile", said.append) as profile:
        steps(profile, traces, range(40))
    assert "start" not in traces
    assert said == ["profile: none: there were no 5 steps in a row that compiled nothing"]


def test_what_goes_wrong_with_tracing_does_not_end_the_run(tmp_path, traces, monkeypatch):
    def start(folder):
        raise RuntimeError("Profile has already been started.\nOnly one is possible.")

    monkeypatch.setattr(profiles.jax.profiler, "start_trace", start)
    said = []
    with Profile(tmp_path / "profile", said.append) as profile:
        steps(profile, traces, [1] * 40)
    assert traces == list(range(40))
    assert said == ["profile: none: Profile has already been started. Only one is possible."]


def test_nothing_is_traced_unless_asked(traces):
    with Profile() as profile:
        steps(profile, traces, [1] * 40)
    assert traces == list(range(40))


def test_the_trace_opens_without_further_packages(tmp_path):
    """jax's own file for Perfetto holds the steps by name."""
    said = []
    with Profile(tmp_path / "profile", said.append) as profile:
        for number in range(STEADY + STEPS + 2):
            with profile.step(number, (), 1):
                jax.block_until_ready(jnp.ones(4) + number)
    file = said[0].removeprefix("profile: open ").split(" at ")[0]
    with gzip.open(file) as opened:
        events = json.load(opened)["traceEvents"]
    assert sum(event.get("name") == "train" for event in events) == STEPS
