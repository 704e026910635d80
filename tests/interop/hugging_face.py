"""Tiny random models of `transformers`, saved as their users save them."""

import numpy as np
import torch

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": 40, "max_position_embeddings": 20, "num_labels": 3,
}  # fmt: skip
# model_type to their class of a classifier, and what its config is given.
TINY = {
    "bert": ("BertForSequenceClassification", SIZES),
    "roberta": ("RobertaForSequenceClassification", SIZES),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", SIZES),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, "vocab_size": 40,
         "max_position_embeddings": 20, "num_labels": 3},
    ),
    "electra": ("ElectraForSequenceClassification", {**SIZES, "embedding_size": 8}),
    "vit": (
        "ViTForImageClassification",
        {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 24, "image_size": 8, "patch_size": 4, "num_labels": 3},
    ),
}  # fmt: skip


def tiny(model_type, seed=0, **changed):
    """A random model in which no array is zero or one, so that each has its effect."""
    import transformers

    name, options = TINY[model_type]
    architecture = getattr(transformers, name)
    torch.manual_seed(seed)
    model = architecture(architecture.config_class(**{**options, **changed})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def token_batch(rows=4, length=12, words=40, seed=0):
    """Ids from 5 on, padding 1, and the mask; one row is full, one has a single token."""
    generator = np.random.default_rng(seed)
    lengths = np.array([length, 1, *generator.integers(2, length, rows - 2)])
    mask = np.arange(length) < lengths[:, None]
    ids = np.where(mask, generator.integers(5, words, (rows, length)), 1)
    return ids.astype(np.int32), mask
