"""A pretrained encoder, fine-tuned on your own text: a file with the columns text and label.

    python train.py --config=configs/finetune.py:train=train.csv,test=test.csv \
        --config.init_from=DIR --workdir=runs/finetuned

DIR is the folder of a Hugging Face checkpoint: config.json, model.safetensors and tokenizer.json, which
is the tokenizer of the run. The model is the checkpoint's, with a head for your classes. Without a test
file a fifth of the rows is held back. ``:smoke`` takes two steps.
"""

from resnorm_jax.config import experiment

SMOKE = {"train.steps": 2, "train.batch_size": 8, "train.evaluate_every": 2}


def get_config(argument: str = ""):
    return experiment(
        argument,
        presets={"smoke": SMOKE},
        data={"source": "text", "max_length": 128},
        model={"dropout": 0.1, "attention_dropout": 0.1},
        optimizer={
            "learning_rate": 5e-5,
            "warmup": 0.1,
            "schedule": "linear",
            "weight_decay": 0.01,
        },
        train={"batch_size": 32, "epochs": 3, "buckets": 6},
    )
