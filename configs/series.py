"""Time series: any UEA/UCR set bundled with aeon, or a pair of local .ts files.

python train.py --config=configs/series.py:name=BasicMotions --workdir=runs/motions
python train.py --config=configs/series.py:train=a_TRAIN.ts,test=a_TEST.ts --workdir=runs/a
"""

from resnorm_jax.config import experiment

SMOKE = {
    "data.name": "UnitTest",
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "train.batch_size": 8,
    "train.epochs": 2,
}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE},
        data={"source": "series", "name": "BasicMotions"},
        model={"width": 64, "depth": 3, "heads": 8, "dropout": 0.2},
        optimizer={"learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.05},
        train={"batch_size": 16, "epochs": 60},
    )
