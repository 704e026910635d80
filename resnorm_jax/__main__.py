"""``python -m resnorm_jax`` is the ``resnorm`` command, for a checkout that is not installed."""

import sys

from resnorm_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
