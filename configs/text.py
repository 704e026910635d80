"""Your own text: .csv, .tsv, .jsonl or .parquet files, a folder a class, or a saved data set.

    python train.py --config=configs/text.py:train=train.csv,test=test.csv --workdir=runs/text

The columns are text and label; ``text_column=``, ``pair_column=`` and ``label_column=`` name others.
``tokenizer=wordpiece`` (bpe, unigram) learns subwords of the training rows, and ``tokenizer=FOLDER``
takes a checkpoint's. Without a test file a fifth of the rows is held back. ``:smoke`` runs on made-up
sentences. All of it: ``resnorm_jax/data/README.md``.
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
