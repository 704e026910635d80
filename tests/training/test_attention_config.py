"""``model.attention``: what a run takes, the line that says so, and one line for what cannot be."""

import re

import jax
import pytest

from resnorm_jax import build
from resnorm_jax.config import experiment, from_dict
from resnorm_jax.errors import UserError

META = {
    "kind": "features", "classes": ["a", "b"], "vocabulary": [], "max_length": 300, "shape": [3],
}  # fmt: skip
REAL = jax.nn.dot_product_attention


def config(precision="bfloat16", **model):
    values = experiment(
        data={"source": "sample_text"},
        model={"width": 16, "depth": 1, "heads": 2, **model},
        train={"precision": precision},
    )
    return from_dict(values.to_dict())


def on_a_gpu(monkeypatch):
    def played(q, k, v, *, implementation, **options):
        return REAL(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", played)


@pytest.mark.parametrize(
    ("made", "meta", "gpu", "chosen", "says"),
    [
        ({}, {}, False, "chunked", "chunked; not cudnn: it needs a GPU, and JAX runs on cpu"),
        ({"attention": "xla"}, {}, False, "xla", "xla"),
        ({"attention": "chunked"}, {}, True, "chunked", "chunked"),
        ({}, {}, True, None, "cudnn, by lengths"),
        ({"attention": "cudnn"}, {}, True, None, "cudnn, by lengths"),
        ({"precision": "float32"}, {}, True, "xla", "xla; not cudnn: .*this is float32"),
        ({"heads": 4}, {}, True, "xla", "xla; not cudnn: its heads have .*these have 4"),
        ({"attention_dropout": 0.1}, {}, True, "xla", "xla; not .*dropout=0, and it is 0.1"),
        (
            {}, {"kind": "images", "shape": [8, 8, 1]}, True, "xla",
            "xla; not cudnn: it takes lengths, and images have none",
        ),
    ],
)  # fmt: skip
def test_what_a_run_takes(monkeypatch, made, meta, gpu, chosen, says):
    if gpu:
        on_a_gpu(monkeypatch)
    made, meta = config(**made), META | meta
    assert build.attention_of(made, meta) == chosen
    line = build.attention_line(made, meta)
    assert re.fullmatch("attention: " + says, line), line
    build.check_attention(made, meta)
    model = build.build_model(made, meta)
    assert model.encoder.attention == chosen
    assert build.told_lengths(model) == (chosen is None)


def test_cudnn_where_it_cannot_be():
    made = config(attention="cudnn")
    with pytest.raises(
        UserError, match=r"model.attention: 'cudnn': it needs a GPU.*attention=auto"
    ):
        build.check_attention(made, META)
    # A run that was trained with it is still read, scored and explained elsewhere.
    assert build.build_model(made, META).encoder.attention == "chunked"


@pytest.mark.parametrize(
    ("meta", "model", "says"),
    [
        ({}, {}, r"config\.model\.relative: 'grid' is of patches of images; the data are features"),
        ({"shape": [8, 6, 1]}, {}, r"config\.model\.relative_buckets: 4, .* 4 x 3 patches"),
        ({"shape": [6, 6, 1]}, {}, r"config\.model\.relative_buckets: 4, .* 3 x 3 patches"),
        (
            {"shape": [8, 8, 1]},
            {"pooling": "distilled"},
            r"config\.model\.pooling: .* puts 2 tokens",
        ),
        ({"shape": [8, 8, 1]}, {"pooling": "mean"}, None),
        ({"shape": [8, 8, 1]}, {"pooling": "patches"}, None),
    ],
)
def test_relative_positions_of_patches_need_square_images(meta, model, says):
    made = config(relative="grid", relative_buckets=4, **model)
    told = META | ({"kind": "images", **meta} if meta else {})
    if says is None:
        assert build.build_model(made, told).encoder.relative == "grid"
        return
    with pytest.raises(UserError, match=says):
        build.build_model(made, told)
