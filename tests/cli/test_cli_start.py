"""Commands start at once: none imports jax for its help, nor libraries that it may never need."""

import subprocess
import sys

CODE = """
import sys
from resnorm_jax.cli import main, train
for words in sys.argv[1:]:
    try:
        assert main.main(words.split()) == 0
    except SystemExit as end:
        assert not end.code
assert train.main(["train.py", "--help"]) == 0
print([name for name in ("jax", "flax", "orbax", "grain", "rich", "numpy") if name in sys.modules])
import resnorm_jax.interop.init_from, resnorm_jax.training.experiment
unused = "grain", "matplotlib", "orbax", "scipy.optimize", "sklearn", "tensorboardX", "tokenizers"
print([name for name in unused if name in sys.modules])
"""
LABS = ("article", "certify", "compare", "signal", "theory")  # prune names its table's methods


def test_help_does_not_wait_for_jax():
    commands = ["--help", "--version", "lab --help", *(f"lab {name} --help" for name in LABS)]
    commands += [f"{name} --help" for name in ("list", "show", "evaluate", "predict", "bench")]
    commands += ["plan-run --help", "launch --help"]
    commands += [f"launch {name} --help" for name in ("local", "slurm", "jobset")]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *commands],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]
    assert "usage: resnorm lab signal" in done.stdout
