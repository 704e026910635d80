"""Handwritten digits as sequences: 8 rows of 8 pixels (or view=pixels, view=image).

python train.py --config=configs/digits.py --workdir=runs/digits
"""

from resnorm_jax.config import experiment

SMOKE = {"model.width": 16, "model.depth": 1, "model.heads": 2, "train.epochs": 1}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE},
        data={"source": "digits", "view": "rows"},
        model={"width": 64, "depth": 3, "heads": 8, "dropout": 0.1},
        optimizer={"learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.05},
        train={"batch_size": 64, "epochs": 60, "scale": False},
    )
