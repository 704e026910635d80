"""Train a sequence classifier, data-parallel, from a config file.

    python train.py --config=configs/japanese_vowels.py --workdir=runs/japanese_vowels
    python train.py --config=configs/digits.py:arrangement=post_ln,depth=6,seeds=5 --workdir=runs/d
    python train.py --config=configs/listops_small.py:smoke --workdir=runs/smoke

Run again with the same command, an interrupted run goes on where its last checkpoint stands.
"""

import sys


def start() -> int:
    """Train as the command line says; Ctrl-C while modules are read is one line, too."""
    try:
        from resnorm_jax.cli.train import main

        return main(sys.argv)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(start())
