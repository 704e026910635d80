"""Your own text: .csv, .tsv, .jsonl or .parquet files, a folder a class, or a saved data set.

    python train.py --config=configs/text.py:train=train.csv,test=test.csv --workdir=runs/text

The columns are text and label; ``text_column=``, ``pair_column=`` and ``label_column=`` name others.
``tokenizer=wordpiece`` (bpe, unigram) learns subwords of the training rows, and ``tokenizer=FOLDER``
takes a checkpoint's. Without a test file a fifth of the rows is held back. ``:smoke`` runs on made-up
sentences. All of it: ``resnorm_jax/data/README.md``.

``:subwords`` is for some thousands of texts of any language, without a pretrained encoder, and
``:places`` for rows whose places mean something, such as the nucleotides around a splice site. Both
hide tokens and let embeddings decay; ``resnorm_jax/bench/README.md`` has
what they score.
"""

from resnorm_jax.config import experiment

SMOKE = {
    "data": {"source": "sample_text"},
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "train.epochs": 1,
}


REGULAR = {
    "model.depth": 1,
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.5,
    "optimizer.decay": "kernel+embedding",
}
SUBWORDS = {
    **REGULAR,
    "data.tokenizer": "unigram",
    "data.vocabulary": 12_000,
    "model.dropout": 0.5,
    "model.token_dropout": 0.3,
    "train.batch_size": 64,
    "train.epochs": 6,
    "train.ema": 0.998,
    "train.label_smoothing": 0.1,
}
PLACES = {
    **REGULAR,
    "data.tokenizer": "places",
    "model.width": 128,
    "model.dropout": 0.3,
    "model.token_dropout": 0.3,
    "train.epochs": 25,
    "train.ema": 0.99,
}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE, "subwords": SUBWORDS, "places": PLACES},
        data={"source": "text", "tokenizer": "words"},
        # Embeddings of deviation 1 drown what some thousands of texts say of a word.
        model={"width": 64, "depth": 2, "heads": 4, "dropout": 0.2, "embedding_std": 0.02},
        optimizer={"learning_rate": 5e-4, "warmup": 0.1, "weight_decay": 0.05},
        train={"batch_size": 32, "epochs": 10, "buckets": 4},
    )
