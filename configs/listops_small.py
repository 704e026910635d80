"""ListOps with short expressions (20 to 128 tokens, depth 6, 5 arguments), for two CPU cores.

python train.py --config=configs/listops_small.py --workdir=runs/listops_small

Fourteen minutes on two busy CPU cores. Test accuracy of seed 0: 39.1 %; the rule that reads the first
operator alone has 25.2 %, the majority class 12.8 %.
"""

from resnorm_jax.config import experiment

SMOKE = {
    "data.train": 300,
    "data.valid": 60,
    "data.test": 60,
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "train.steps": 10,
}


# The same budget of updates, all for classification, and half of it for masked tokens first (half of
# them masked, as Amos et al. 2023, arXiv 2310.02980, do here):
#     --config=configs/listops_small.py:scratch,seeds=3
#     --config=configs/listops_small.py:pretrain,seeds=3
# and in seconds: --config=configs/listops_small.py:pretrain,smoke,pretrain.updates=10
SCRATCH = {"train.steps": 3000}
PRETRAIN = {
    "pretrain.updates": 1500,
    "pretrain.rate": 0.5,
    "pretrain.masking": "plain",
    "train.steps": 1500,
}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE, "scratch": SCRATCH, "pretrain": PRETRAIN},
        data={
            "source": "listops",
            "min_length": 20,
            "max_length": 128,
            "max_depth": 6,
            "max_args": 5,
            "train": 20_000,
            "valid": 1000,
            "test": 2000,
        },
        model={"width": 64, "depth": 4, "heads": 4, "dropout": 0.1, "positions": "rotary"},
        optimizer={"learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.01},
        train={"batch_size": 64, "epochs": 10, "log_every": 20, "buckets": 4},
    )
