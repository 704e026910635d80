"""One name for one thing in all of the lab's commands; what had another name says so for a release."""

import re
from importlib import import_module

import pytest

from resnorm_jax.cli import lab
from resnorm_jax.cli.main import main

# Option to what it takes: the same in every command that has it.
GRAMMAR = {
    "--config": "CONFIG", "--arrangements": "A,B", "--only": "A,B", "--depths": "N,N",
    "--depth": "N", "--learning-rates": "R,R", "--seeds": "N", "--seed": "N", "--steps": "N",
    "--rows": "N", "--keep": "S,S", "--checkpoint": "{best,last}", "--output": "DIR",
    "--against": "FOLDER", "--order": "ORDER", "--quick": "", "--list": "",
    "--to": "WHAT", "--learning-rate": "R", "--temperature": "T", "--hidden": "W", "--widen": "",
    "--data": "FILE", "--test": "FILE", "--text-column": "NAME", "--max-length": "N",
    "--batch-size": "N", "--positions": "W",
}  # fmt: skip
SAME_WORDS = ("--seed", "--checkpoint")


def options(name, capsys):
    """The options of a command: what each takes, and its help."""
    with pytest.raises(SystemExit, match="0"):
        main(["lab", name, "--help"])
    text = capsys.readouterr().out.partition("options:")[2]
    found = re.findall(
        r"^  (?:-h, )?(--[a-z-]+) ?(\S*)((?:.*\n)(?: {10,}.*\n)*)", text, re.MULTILINE
    )
    return {option: (takes, " ".join(said.split())) for option, takes, said in found}


def test_an_option_takes_the_same_in_all_commands(capsys):
    found = {name: options(name, capsys) for name in lab.LABS}
    for name, command in found.items():
        takes = {option: kind for option, (kind, _) in command.items() if option != "--help"}
        assert takes == {option: GRAMMAR[option] for option in takes}, name
        assert "--output" in takes
    for option in SAME_WORDS:
        assert len({c[option] for c in found.values() if option in c}) == 1


def test_what_is_measured_is_a_run_or_a_config():
    parsers = {
        n: import_module(f"resnorm_jax.cli.lab_{n}")
        for n in ("signal", "certify", "prune", "surgery")
    }
    positional = {
        name: [a.metavar for a in module._parser()._actions if not a.option_strings and a.metavar]
        for name, module in parsers.items()
    }
    assert positional == {"signal": ["RUN"], "certify": [], "prune": ["RUN"], "surgery": ["RUN"]}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["certify", "configs/none.py"], "--config=configs/none.py"),
        (["prune", "nowhere", "--method=int8"], "--only=int8"),
        (["prune", "nowhere", "--method=all"], "no --only"),
    ],
)
def test_an_old_spelling_works_and_says_the_new_one(old, new, capsys):
    assert main(["lab", *old]) == 2  # there is no such config or run
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"resnorm lab {old[0]}: ")
    assert first.endswith(f"is deprecated and ends with the next release; write {new}")
    assert "none.py" in second or "nowhere" in second


@pytest.mark.parametrize("command", [["signal"], ["theory"], ["prune", "nowhere"]])
def test_only_names_something(command, capsys):
    assert main(["lab", *command, "--only=,"]) == 2
    assert "--only: ',' names nothing; write A,B" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["certify", "a.py", "--config=b.py"], "--config: given twice; write --config=a.py alone"),
        (["prune", "a", "--only=int8", "--method=int8"], "--method: not read beside --only"),
    ],
)
def test_both_spellings_are_one_too_many(argv, message, capsys):
    assert main(["lab", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
