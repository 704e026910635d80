"""Pretrained models of `transformers`: the same logits here, and the same files back."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from hugging_face import TINY, tiny, token_batch
from oracles import worst
from safetensors.numpy import load_file

import resnorm_jax as rn
from resnorm_jax.cli.tables import markdown_table
from resnorm_jax.interop.config_json import describe_checkpoint
from resnorm_jax.interop.families import FAMILIES
from resnorm_jax.interop.pretrained import save_pretrained

TEXTS = [name for name in TINY if FAMILIES.get(name).kind == "tokens"]
DEFAULT = ("bert", "electra")  # the others are of the table


def every(names):
    return [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.table, id=n) for n in names]


def their_logits(model, ids, mask, **more):
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(ids, dtype=torch.long), attention_mask=torch.tensor(mask), **more
        ).logits.numpy()


def test_the_readme_lists_every_family():
    text = (Path(rn.__file__).parent / "interop" / "README.md").read_text()
    table = text.partition("<!-- families -->\n")[2].partition("<!-- end families -->")[0]
    assert table == markdown_table("families")


def test_every_family_is_tested():
    assert set(TINY) == set(FAMILIES.names())


@pytest.mark.parametrize("name", every(TEXTS))
def test_a_classifier_has_their_logits_and_goes_back(name, tmp_path):
    theirs = tiny(name)
    theirs.save_pretrained(tmp_path / "theirs")
    model, variables = rn.from_pretrained(tmp_path / "theirs")
    ids, mask = token_batch()
    described = describe_checkpoint(tmp_path / "theirs")
    types, more = {}, {}
    if (described.fields.get("token_types") or 0) > 1:  # of which two follow no separator
        types = {"token_types": np.random.default_rng(1).integers(0, 2, ids.shape)}
        more = {"token_type_ids": torch.tensor(types["token_types"])}
    ours = jax.jit(model.apply)(variables, ids, mask, **types)
    assert worst(ours, their_logits(theirs, ids, mask, **more)) < 1e-5

    save_pretrained(tmp_path / "back", described.model(), variables, described.classes, family=name)
    back = type(theirs).from_pretrained(tmp_path / "back").eval()
    assert worst(their_logits(back, ids, mask), their_logits(theirs, ids, mask)) < 1e-6
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert set(after) == set(before)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


IMAGES = {
    **{name: (name, {}) for name in TINY if FAMILIES.get(name).kind == "images"},
    "beit-shared": (
        "beit",
        {"use_relative_position_bias": False, "use_shared_relative_position_bias": True,
         "use_absolute_position_embeddings": True, "use_mean_pooling": False},
    ),
    "beit-plain": ("beit", {"use_relative_position_bias": False}),
}  # fmt: skip
# What a file may have that no classifier needs, and the biases of two heads that are one here.
NOT_BACK = ("beit.embeddings.mask_token", "cls_classifier.bias", "distillation_classifier.bias")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "vit" else pytest.mark.table) for n in IMAGES]
)
def test_an_image_classifier_has_their_logits_and_goes_back(name, tmp_path):
    family, changed = IMAGES[name]
    theirs = tiny(family, **changed)
    theirs.save_pretrained(tmp_path / "theirs")
    model, variables = rn.from_pretrained(tmp_path / "theirs")
    side = theirs.config.image_size
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).logits.numpy()
    assert worst(jax.jit(model.apply)(variables, images), expected) < 1e-5
    described = describe_checkpoint(tmp_path / "theirs")
    save_pretrained(
        tmp_path / "back", described.model(), variables, described.classes, family=family
    )
    assert describe_checkpoint(tmp_path / "back").fields == described.fields
    back = type(theirs).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        again = back(torch.tensor(images.transpose(0, 3, 1, 2))).logits.numpy()
    assert worst(again, expected) < 1e-6
    before, after = (
        load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back")
    )
    assert set(before) - set(NOT_BACK) == set(after) - set(NOT_BACK)
    for key in set(after) - set(NOT_BACK):
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)
