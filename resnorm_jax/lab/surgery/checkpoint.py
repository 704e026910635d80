"""A pretrained checkpoint under the knife: no run, and texts without labels.

The unchanged model is the teacher. One without a head is given the identity as its head, so that what
it says of a text is its pooled vector; a changed model may then fold what its norms lack into it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from resnorm_jax.build import build_model
from resnorm_jax.config import Config
from resnorm_jax.config_file import read_config
from resnorm_jax.data import Dataset, Examples
from resnorm_jax.data.inputs import read_inputs
from resnorm_jax.data.preprocess import describe
from resnorm_jax.data.tokenizer_files import read_tokenizer, tokenizer_path
from resnorm_jax.errors import UserError
from resnorm_jax.interop.config_json import Description, describe_checkpoint
from resnorm_jax.interop.files import CONFIG, exists, read_object
from resnorm_jax.interop.init_from import checked_config, with_weights
from resnorm_jax.lab.surgery.measure import Patient
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.run_data import padded_lengths

RECIPE = "finetune"  # the config whose optimizer and batches these are, unless told
HELD = 5  # one row in so many is held out where no test file is given
LEAST = 2  # rows of either split
# What stands for rows until they are read: reading them needs the metadata of a data set.
BLANK = Examples(np.zeros((1, 1), np.int32), np.ones(1, np.int32), np.zeros(1, np.int32))


@dataclass(frozen=True)
class Texts:
    """The texts that the changed model learns from, and those that both are compared on.

    Attributes:
      train: a file or folder of texts, as ``resnorm predict`` reads them.
      test: likewise; None holds out one row in five.
      column: of the text.
      max_length: most tokens of a text.
      batch_size: of a training batch.
    """

    train: str
    test: str | None = None
    column: str = "text"
    max_length: int = 128
    batch_size: int = 32


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is one of Hugging Face's, rather than a run."""
    path = folder / CONFIG
    return exists(path) and "model_type" in read_object(path)


def admitted(folder: Path, texts: Texts, seed: int) -> Patient:
    """Return a checkpoint's model with texts to learn from and to compare on.

    Args:
      folder: of the checkpoint, with its ``tokenizer.json``.
      texts: their files.
      seed: of the held-out rows, and the first of the surgery.

    Raises:
      UserError: for a checkpoint, a tokenizer or texts that cannot be read or do not fit.
    """
    described = describe_checkpoint(folder)
    if described.family.kind != "tokens":
        raise UserError(
            f"{folder}: a {described.family.name!r} model reads {described.family.kind}; this command "
            "reads texts: train it (config.init_from), and name the run"
        )
    config = _config(folder, described, texts, seed)
    dataset = _dataset(folder, described, texts, seed)
    longest = config.model.max_length
    if longest is not None and dataset.max_length > longest:
        raise UserError(f"--max-length: {texts.max_length}, but the model has {longest} positions")
    meta = describe(dataset)
    buckets = padded_lengths(config, dataset)
    model = build_model(config, meta)
    variables = with_weights(config, model, init_variables(model, dataset, buckets, seed)).variables
    if described.classes is None:
        variables = {**variables, "params": _with_identity(variables["params"])}
    return Patient(config, meta, variables, dataset, buckets, vectors=described.classes is None)


def _config(folder: Path, described: Description, texts: Texts, seed: int) -> Config:
    made = read_config(RECIPE)
    made.update({"init_from": str(folder), "seed": seed})
    made.data.update({"train": texts.train, "max_length": texts.max_length})
    made.train.batch_size = texts.batch_size
    config = checked_config(made.to_dict())
    if described.classes is not None:
        return config
    plain = replace(
        config.model, head_activation=None, head_norm=None, head_hidden_bias=True, head_bias=True
    )
    return replace(config, model=plain)


def _dataset(folder: Path, described: Description, texts: Texts, seed: int) -> Dataset:
    tokenizer = read_tokenizer(tokenizer_path(str(folder), str(folder)), texts.max_length)
    tokenizer.check_length(False)
    headless = described.classes is None
    names = described.classes or tuple(map(str, range(described.fields["width"])))
    # Labels of a model without classes are nobody's: the column is not looked at.
    columns = {"text_column": texts.column, "label_column": "" if headless else "label"}
    dataset = Dataset(
        name=folder.resolve().name,
        kind="tokens",
        train=BLANK,
        test=BLANK,
        classes=names,
        vocabulary=tokenizer.names,
        encoding={**tokenizer.encoding, **columns},
    )
    meta = {**describe(dataset), "directory": str(folder)}
    train = read_inputs(texts.train, meta)
    if texts.test is not None:
        rows, test = np.arange(len(train)), read_inputs(texts.test, meta)
    else:
        order = np.random.default_rng(seed).permutation(len(train))
        rows, held = (np.sort(part) for part in np.split(order, [-(-len(train) // HELD) * -1]))
        test = train.take(held)
    for name, count in ((texts.train, len(rows)), (texts.test or texts.train, len(test))):
        if count < LEAST:
            raise UserError(f"--data: {name}: too few texts; give {HELD * LEAST} or more")
    return dataset.replace(train=train.take(rows), test=test)


def _with_identity(params: Mapping[str, Any]) -> dict[str, Any]:
    head = {name: np.zeros_like(np.asarray(leaf)) for name, leaf in params["head"].items()}
    head["kernel"] = np.eye(*head["kernel"].shape, dtype=head["kernel"].dtype)
    return {**params, "head": {name: jnp.asarray(leaf) for name, leaf in head.items()}}
