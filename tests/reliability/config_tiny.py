"""A run of a second, for the harness: 18 steps of 6 an epoch, several checkpoints and evaluations."""

from resnorm_jax.config import experiment

PRESETS = {
    "plain": {},
    "epoch": {"train.checkpoint_every": 6},  # saves at the end of epochs
    "best": {"train.select": "best", "train.validation": 0.25, "train.ema": 0.9},
    "seeds": {"seeds": 2, "train.steps": 10, "train.accumulate": 2},
    "short": {"train.steps": 2, "train.checkpoint_every": 1},
    "short_best": {"train.steps": 2, "train.select": "best", "train.validation": 0.25},
}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets=PRESETS,
        data={"source": "sample_text", "train": 48, "test": 16},
        model={"width": 8, "depth": 1, "heads": 2, "dropout": 0.2},
        optimizer={"learning_rate": 1e-2},
        train={
            "batch_size": 8,
            "steps": 18,
            "buckets": 1,
            "log_every": 2,
            "evaluate_every": 5,
            "checkpoint_every": 4,
        },
    )
