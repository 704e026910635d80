"""Data in NumPy: sources by name, preprocessing, and batches of few shapes."""

from resnorm_jax.data.buckets import length_buckets
from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.pipeline import TrainBatches, eval_batches, iterate
from resnorm_jax.data.preprocess import (
    describe,
    majority_accuracy,
    scale_channels,
    split_validation,
)
from resnorm_jax.data.source import Source
from resnorm_jax.data.sources import SOURCES, load_dataset, register_source

__all__ = [
    "SOURCES",
    "Dataset",
    "Examples",
    "Source",
    "TrainBatches",
    "describe",
    "eval_batches",
    "iterate",
    "length_buckets",
    "load_dataset",
    "majority_accuracy",
    "register_source",
    "scale_channels",
    "split_validation",
]
