"""``resnorm lab NAME``: measurements that tell which arrangement will train."""

from importlib import import_module

from resnorm_jax.cli.arguments import usage
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError, nearest

LABS = {
    "article": "the article that this library implements: its listings, numbers and claims",
    "signal": "what flows through a model, layer by layer, at the start or at a checkpoint",
    "theory": "published results on signal propagation, measured again",
    "compare": "train a grid of arrangements, depths, seeds and learning rates",
    "certify": "which arrangements will train on this model and data, told without training",
    "prune": "accuracy of a trained run against the share of it that is kept",
    "surgery": "another norm or arrangement for a trained run: what it costs, what steps bring back",
}


def main(argv: list[str]) -> int:
    """Run one of the lab's commands; return the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage("resnorm lab NAME [ARGUMENTS]", LABS, "resnorm lab NAME --help says more."))
        return 0
    if argv[0] not in LABS:
        raise UserError(f"resnorm lab: no command {argv[0]!r}; {nearest(argv[0], LABS)}")
    with ending_at_once():
        command = import_module(f"resnorm_jax.cli.lab_{argv[0]}").main
    return command(argv[1:])
