"""Your own arrays: .npz files with x, y and, if rows differ in length, lengths.

    python train.py --config=configs/arrays.py:train=train.npz,test=test.npz --workdir=runs/mine

x is [N, L, C] features, [N, L] integers (tokens) or [N, H, W, C] images. Without a test file a fifth
of the rows is held back.
"""

from resnorm_jax.config import experiment

SMOKE = {"model.width": 16, "model.depth": 1, "model.heads": 2, "train.epochs": 1}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE},
        data={"source": "arrays"},
        model={"width": 64, "depth": 3, "heads": 8, "dropout": 0.1},
        optimizer={"learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.05},
        train={"batch_size": 32, "epochs": 30},
    )
