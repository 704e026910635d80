"""Train a sequence classifier, data-parallel, from a config file.

    python train.py --config=configs/japanese_vowels.py --workdir=runs/japanese_vowels
    python train.py --config=configs/digits.py:arrangement=post_ln,depth=6,seeds=5 --workdir=runs/d
    python train.py --config=configs/listops_small.py:smoke --workdir=runs/smoke

Run again with the same command, an interrupted run goes on where its last checkpoint stands.
"""

import sys

if __name__ == "__main__":
    try:
        from resnorm_jax.cli.start import ending_at_once

        with ending_at_once():
            from resnorm_jax.cli.large_pages import start_with_large_pages

            start_with_large_pages()
            from resnorm_jax.cli.train import main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(main(sys.argv))
