"""JapaneseVowels."""

from resnorm_jax.config import experiment

SMOKE = {"model.width": 16, "model.depth": 1, "model.heads": 2, "train.epochs": 2}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE},
        data={"source": "series", "name": "JapaneseVowels"},
        model={"width": 64, "depth": 3, "heads": 8, "dropout": 0.2},
        optimizer={"learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.05},
        train={"batch_size": 32, "epochs": 60},
    )
