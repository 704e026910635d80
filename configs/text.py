"""Your own text: .csv or .jsonl files with the columns text and label.

    python train.py --config=configs/text.py:train=train.csv,test=test.csv --workdir=runs/text

Without a test file a fifth of the rows is held back. ``:smoke`` runs on made-up sentences.
"""

from resnorm_jax.config import experiment

SMOKE = {
    "data": {"source": "sample_text"},
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "train.epochs": 1,
}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE},
        data={"source": "text", "tokenizer": "words"},
        model={"width": 64, "depth": 2, "heads": 4, "dropout": 0.2},
        optimizer={"learning_rate": 5e-4, "warmup": 0.1, "weight_decay": 0.05},
        train={"batch_size": 32, "epochs": 10, "buckets": 4},
    )
