"""The article's modules in PyTorch, as it prints them, and their weights laid out as ours."""

import numpy as np
import torch
from torch import nn


class ResidualBlock(nn.Module):
    def __init__(self, d_model, dropout=0.1):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.layer_norm, self.dropout = nn.LayerNorm(d_model), nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(self.layer_norm(self.linear2(torch.relu(self.linear1(x)))))


class LayerNormalization(nn.Module):
    def __init__(self, d_model, epsilon=1e-6):
        super().__init__()
        self.epsilon = epsilon
        self.gamma = nn.Parameter(torch.ones(d_model))
        self.beta = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.gamma * (x - mean) / (std + self.epsilon) + self.beta


class TransformerLayer(nn.Module):
    def __init__(self, d_model, nhead, dropout=0.1, relu=False):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout, self.between = nn.Dropout(dropout), nn.ReLU() if relu else nn.Identity()

    def forward(self, src, src_mask=None, src_key_padding_mask=None):
        attended = self.self_attn(
            src, src, src, attn_mask=src_mask, key_padding_mask=src_key_padding_mask
        )[0]
        src = self.norm1(src + self.dropout(attended))
        h = self.linear2(self.dropout(self.between(self.linear1(src))))
        return self.norm2(src + self.dropout(h))


class Transformer(nn.Module):
    def __init__(self, d_model=512, nhead=8, num_layers=3, dropout=0.1, relu=False):
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(d_model, nhead, dropout, relu) for _ in range(num_layers)
        )
        self.fc = nn.Linear(d_model, d_model)

    def forward(self, src, src_mask=None, src_key_padding_mask=None):
        for layer in self.layers:
            src = layer(src, src_mask, src_key_padding_mask)
        return self.fc(src)


class PrintedModel(nn.Module):
    """L5 as the article prints it: it cannot run."""

    def __init__(self, input_dim=100, hidden_dim=512, output_dim=10):
        super().__init__()
        self.projection1 = nn.Linear(input_dim, hidden_dim)
        self.projection2 = nn.Linear(hidden_dim, hidden_dim)
        self.norm1, self.norm2 = nn.LayerNorm(hidden_dim), nn.LayerNorm(hidden_dim)
        self.attention = nn.MultiheadAttention(hidden_dim, 4)
        self.fc1, self.fc2 = nn.Linear(hidden_dim, hidden_dim), nn.Linear(hidden_dim, hidden_dim)
        self.classifier = nn.Linear(hidden_dim, output_dim)

    def skip(self, x):
        return x

    def attend(self, x):
        return self.attention(x, x, x)[0]

    def forward(self, x):
        x = self.skip(x) + self.projection2(torch.relu(self.projection1(x)))
        x = self.norm2(self.attend(self.norm1(x)))
        return self.classifier(self.norm2(x + self.fc2(torch.relu(self.fc1(x)))))


class TransformerModel(PrintedModel):
    """L5 with the two corrections: a projected skip where widths differ, rows apart."""

    def __init__(self, input_dim=100, hidden_dim=512, output_dim=10):
        super().__init__(input_dim, hidden_dim, output_dim)
        if input_dim != hidden_dim:
            self.shortcut = nn.Linear(input_dim, hidden_dim, bias=False)

    def skip(self, x):
        return self.shortcut(x) if hasattr(self, "shortcut") else x

    def attend(self, x):
        one = x[None]  # [L=1, B, D]: this attention is not batch-first
        return self.attention(one, one, one)[0][0]


def randomized(module, seed=0):
    """No scale at 1 and no bias at 0, or a wrong one would pass."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.train()  # the fast path of eval mode is another implementation


def to_flax(values, heads):
    """Lay out PyTorch's parameters, or their gradients, as a tree of ours."""
    tree = {}
    for name, value in values.items():
        path, value = name.replace("layers.", "layers_").split("."), np.asarray(value)
        for keys, array in _entries(path, value, heads):
            node = tree
            for key in keys[:-1]:
                node = node.setdefault(key, {})
            node[keys[-1]] = array
    return tree


def _entries(path, value, heads):
    *inner, last = path
    if last.startswith("in_proj"):
        for role, part in zip(("query", "key", "value"), np.split(value, 3), strict=True):
            width = part.shape[0]
            shape = (heads, width // heads)
            if last.endswith("weight"):
                yield [*inner, role, "kernel"], part.T.reshape(width, *shape)
            else:
                yield [*inner, role, "bias"], part.reshape(shape)
    elif inner and inner[-1] == "out_proj":
        array = value.T.reshape(heads, -1, value.shape[0]) if last == "weight" else value
        yield [*inner[:-1], "out", {"weight": "kernel"}.get(last, last)], array
    elif last == "weight":
        yield [*inner, "scale" if value.ndim == 1 else "kernel"], value.T
    else:
        yield path, value
