"""Tiny random models of `transformers`, saved as their users save them."""

import numpy as np
import torch

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": 40, "max_position_embeddings": 20, "num_labels": 3,
}  # fmt: skip
DECODER = {
    **SIZES, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
IMAGES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 8, "patch_size": 4, "num_labels": 3,
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
    "albert": (
        "AlbertForSequenceClassification",
        {**SIZES, "embedding_size": 8, "num_hidden_layers": 4, "num_hidden_groups": 2,
         "type_vocab_size": 2},
    ),
    "roformer": ("RoFormerForSequenceClassification", {**SIZES, "embedding_size": 8}),
    "mpnet": ("MPNetForSequenceClassification", SIZES),
    "modernbert": (
        "ModernBertForSequenceClassification",
        {**SIZES, "num_hidden_layers": 5, "local_attention": 6, "pad_token_id": 1,
         "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3},
    ),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
         "norm_rel_ebd": "layer_norm", "position_buckets": 6, "max_relative_positions": 10,
         "position_biased_input": False, "type_vocab_size": 0, "pooler_hidden_size": 16},
    ),
    "qwen3": ("Qwen3ForSequenceClassification", {**DECODER, "head_dim": 6}),
    "olmo2": ("Olmo2ForSequenceClassification", {**DECODER, "num_key_value_heads": 4}),
    "gemma3_text": (
        "Gemma3TextForSequenceClassification",
        {**DECODER, "head_dim": 6, "sliding_window": 4, "sliding_window_pattern": 3,
         "query_pre_attn_scalar": 10},
    ),
    "beit": (
        "BeitForImageClassification",
        {**IMAGES, "use_relative_position_bias": True, "use_mask_token": True, "image_size": 12},
    ),
    "vit": ("ViTForImageClassification", IMAGES),
    "deit": ("DeiTForImageClassification", IMAGES),
    "deit-with-teacher": ("DeiTForImageClassificationWithTeacher", IMAGES),
}  # fmt: skip


def tiny(model_type, seed=0, **changed):
    """A random model in which no array is zero or one, so that each has its effect."""
    import transformers

    name, options = TINY[model_type]
    architecture = getattr(transformers, name)
    torch.manual_seed(seed)
    model = architecture(architecture.config_class(**{**options, **changed})).eval()
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def token_batch(rows=4, length=12, words=40, seed=0):
    """Ids from 5 on, padding 1, and the mask; one row is full, one has a single token."""
    generator = np.random.default_rng(seed)
    lengths = np.array([length, 1, *generator.integers(2, length, rows - 2)])
    mask = np.arange(length) < lengths[:, None]
    ids = np.where(mask, generator.integers(5, words, (rows, length)), 1)
    return ids.astype(np.int32), mask
