"""The lab's commands are found by name."""

from importlib import util

import pytest

from resnorm_jax.cli import lab
from resnorm_jax.cli.main import main


def test_usage_names_every_command(capsys):
    assert main(["lab"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in lab.LABS)


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["lab", "signals"]) == 2
    assert "did you mean 'signal'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", lab.LABS)
def test_every_command_is_there_and_has_help(name, capsys):
    if util.find_spec(f"resnorm_jax.cli.lab_{name}") is None:
        pytest.skip("not built yet")
    with pytest.raises(SystemExit, match="0"):  # as argparse ends after its help
        main(["lab", name, "--help"])
    assert f"resnorm lab {name}" in capsys.readouterr().out
