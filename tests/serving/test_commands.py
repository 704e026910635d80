"""Mistakes in `resnorm export` and `resnorm serve`: one line, status 2, nothing written."""

import socket

import pytest

from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "run"], "--output"),
        (["export", "run", "--output={d}/x", "--format=h5"], "invalid choice: 'h5'"),
        (["export", "no/such/run", "--output={d}/x"], "not a run directory"),
        (["serve"], "required: run"),
        (["serve", "no/such/run"], "not a run directory"),
        (["serve", "run", "--port=70000"], "--port: 70000 is out of range"),
        (["serve", "run", "--port=80a"], "'80a' is not a whole number"),
        (["serve", "run", "--rows=300"], "300 could never wait in a --queue of 256"),
        (["serve", "run", "--timeout=0"], "--timeout: 0.0 must be over 0"),
        (["predict", "run"], "give a file, or --text"),
    ],
)
def test_mistakes(arguments, says, tmp_path, capsys):
    assert resnorm([argument.format(d=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_cannot_be_had_is_told():
    from resnorm_jax.serving.server import listen

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}: .*in use; name another port"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="--host=a b"):
        listen("a b", 0)


def test_every_limit_is_an_option(capsys):
    with pytest.raises(SystemExit):
        resnorm(["serve", "--help"])
    told = capsys.readouterr().out
    for name in ("batch", "rows", "body", "characters", "queue", "timeout", "connections", "drain"):
        assert f"--{name}" in told
