"""A command starts again once for large pages, where the system has them on request."""

import os
import subprocess
import sys

import pytest

from resnorm_jax.cli import large_pages
from resnorm_jax.cli.large_pages import SETTING, VARIABLE, start_with_large_pages


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What is started, on a system that has large pages on request."""
    calls = []
    system = tmp_path / "enabled"
    system.write_text("always [madvise] never\n")
    monkeypatch.setattr(large_pages, "SYSTEM", system)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "train.py", "--config=a b.py"])
    monkeypatch.delenv(VARIABLE, raising=False)
    return calls


def test_a_command_is_started_again_as_it_was(started):
    start_with_large_pages()
    ((program, arguments, environment),) = started
    assert program == sys.executable
    assert arguments == [sys.executable, "-X", "dev", "train.py", "--config=a b.py"]
    assert environment == {**os.environ, VARIABLE: SETTING}


@pytest.mark.parametrize("libc", ["glibc 2.34", "musl 1.2", "", None])
def test_not_with_another_library(started, monkeypatch, libc):
    monkeypatch.setattr(os, "confstr", lambda name: libc)
    start_with_large_pages()
    assert not started


@pytest.mark.parametrize("enabled", ["[always] madvise never", "always madvise [never]", None])
def test_not_where_pages_are_large_anyway_or_never(started, enabled):
    if enabled is None:
        large_pages.SYSTEM.unlink()
    else:
        large_pages.SYSTEM.write_text(enabled)
    start_with_large_pages()
    assert not started


def test_not_where_tunables_are_set(started, monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    start_with_large_pages()
    assert not started


def test_one_that_cannot_be_started_again_goes_on(started, monkeypatch):
    tried = []

    def fails(*call):
        tried.append(call)
        raise OSError

    monkeypatch.setattr(os, "execve", fails)
    start_with_large_pages()
    assert len(tried) == 1


def test_a_process_is_started_again_once():
    code = (
        "import os, sys\n"
        "from resnorm_jax.cli.large_pages import start_with_large_pages\n"
        "print('began', flush=True)\n"
        "start_with_large_pages()\n"
        "print(sys.argv[1:], os.environ.get('GLIBC_TUNABLES'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code, "a b"], env=environment, capture_output=True, text=True
    )
    *began, last = done.stdout.splitlines()
    served = large_pages._served()
    assert began == ["began"] * (2 if served else 1)
    assert last == f"['a b'] {SETTING if served else None}"
