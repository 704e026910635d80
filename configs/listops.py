"""ListOps as the Long Range Arena generates and trains it: length 500 to 2,000. Wants a GPU.

    python train.py --config=configs/listops.py --workdir=runs/listops

Model and optimizer of google-research/long-range-arena: 4 layers, width 512, 8 heads, CLS pooling,
Adam, learning rate 0.05 / sqrt(max(step, 1000)), batch 32, 5,000 steps. The published Transformer
has 36.4 %; the rule that reads the first operator alone has 36.3 %, and is printed beside the score.
"""

from resnorm_jax.config import experiment

SMOKE = {
    "data.min_length": 10,
    "data.max_length": 40,
    "data.max_depth": 4,
    "data.max_args": 4,
    "data.train": 300,
    "data.valid": 60,
    "data.test": 60,
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "model.mlp_width": 32,
    "train.steps": 10,
}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE},
        data={"source": "listops"},
        model={
            "width": 512,
            "depth": 4,
            "heads": 8,
            "mlp_width": 1024,
            "activation": "relu",
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "positions": "sinusoidal",
            "pooling": "cls",
        },
        optimizer={
            "algorithm": "adamw",
            "learning_rate": 1.58e-3,
            "schedule": "rsqrt",
            "warmup": 0.2,
            "b2": 0.98,
            "epsilon": 1e-9,
            "weight_decay": 0.1,
            "clip": None,
        },
        train={"batch_size": 32, "steps": 5000, "evaluate_every": 500, "log_every": 50},
    )
