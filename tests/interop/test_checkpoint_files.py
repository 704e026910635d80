"""Damaged and foreign checkpoints: one line that names the file, what is wrong and the fix."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hugging_face import tiny
from safetensors.numpy import load_file, save_file

import resnorm_jax as rn
from resnorm_jax.cli.main import main
from resnorm_jax.errors import UserError
from resnorm_jax.interop.config_json import describe_checkpoint
from resnorm_jax.interop.files import INDEX, WEIGHTS, Tensors, check_new, write_tensors
from resnorm_jax.interop.init_from import from_checkpoint
from resnorm_jax.lab.surgery.checkpoint import is_checkpoint


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "bert"
    tiny("bert", num_hidden_layers=1).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "bert")


def config(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def truncated(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:500])


def half(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-500])


def oversized(folder):
    (folder / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + b"{}")


def index(file):
    def damage(folder):
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))

    return damage


def pickled(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


DAMAGE = {
    "no folder": (shutil.rmtree, r"config\.json: No such file or directory; name a folder of a"),
    "no JSON": (lambda f: (f / "config.json").write_text("{\n nope"), r"config\.json:2: no JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), r"config\.json: \[\] is no object"),
    "no model_type": (lambda f: config(f, model_type=3), r"config\.json: no model_type"),
    "unknown": (lambda f: config(f, model_type="berd"), r"'berd' is not read; did you mean 'bert'"),
    "relative": (
        lambda f: config(f, position_embedding_type="relative_key"),
        r"position_embedding_type is 'relative_key'; .* 'absolute'",
    ),
    "activation": (lambda f: config(f, hidden_act="gulu"), r"hidden_act is 'gulu'; did you mean"),
    "width": (lambda f: config(f, hidden_size="16"), r"config\.json: width: '16' is not a whole"),
    "another width": (
        lambda f: config(f, hidden_size=32),
        r"shape \(16,\); config\.json makes .*\(32,\): .* do not belong together",
    ),
    "another depth": (
        lambda f: config(f, num_hidden_layers=2),
        r"the model needs encoder/layers/.*bert\.encoder\.layer\.1\..*the file has nothing",
    ),
    "fewer layers": (
        lambda f: config(f, num_hidden_layers=0),
        r"config\.json: depth: 0",
    ),
    "heads": (
        lambda f: config(f, num_attention_heads=3),
        r"config\.json: 3 heads do not divide a width of 16",
    ),
    "names": (
        lambda f: weights(f, lambda t: t.update({"bert.wheel": t.pop("bert.pooler.dense.bias")})),
        r"the file has bert\.wheel, which the model does not know",
    ),
    "no head": (
        lambda f: weights(f, lambda t: t.pop("classifier.weight")),
        r"no head/.*, though config\.json says there is a head",
    ),
    "labels": (lambda f: config(f, id2label={"0": "a", "2": "b"}), r"id2label .* from 0 on"),
    "truncated": (truncated, r"model\.safetensors: no sound safetensors file"),
    "half": (half, r"model\.safetensors: no sound safetensors file"),
    "oversized": (oversized, r"model\.safetensors: no sound safetensors file"),
    "pickle": (pickled, r"pytorch_model\.bin is a pickle, which is code and is not read"),
    "outside": (index("../../etc/passwd"), r"is said to stand in '\.\./\.\./etc/passwd', which is"),
    "absolute": (index("/etc/passwd"), r"'/etc/passwd', which is not inside the folder"),
    "backslash": (index("..\\x"), r"which is not inside the folder"),
    "no file": (index("model-2.safetensors"), r"model-2\.safetensors: no sound safetensors file"),
    "no map": (lambda f: (f / INDEX).write_text("{}"), r"index\.json: no weight_map"),
    "not in it": (index(WEIGHTS), r"model\.safetensors: no array 'a', which the index says"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_one_line(name, folder):
    damage, said = DAMAGE[name]
    damage(folder)
    with pytest.raises(UserError, match=said) as error:
        rn.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert str(folder.name) in str(error.value) or "weights" in str(error.value)


def test_a_sound_checkpoint_is_read(folder):
    rn.from_pretrained(folder)
    assert describe_checkpoint(folder).classes == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_several_files_are_one_checkpoint(tmp_path):
    tensors = {f"t{n}": np.full((10, 10), n, np.float32) for n in range(5)}
    write_tensors(tmp_path, tensors, shard=900)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 3
    found = Tensors(tmp_path)
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)


def test_old_names_of_norms_and_other_heads_are_read(folder):
    def rename(tensors):
        for name in list(tensors):
            if "LayerNorm" in name:
                old = name.replace("weight", "gamma").replace("bias", "beta")
                tensors[old] = tensors.pop(name)
        tensors["cls.predictions.bias"] = np.zeros(3, np.float32)

    before = rn.from_pretrained(folder)[1]
    weights(folder, rename)
    after = rn.from_pretrained(folder)[1]
    ones = before["params"]["encoder"]["embedding_norm"]["scale"]
    np.testing.assert_array_equal(after["params"]["encoder"]["embedding_norm"]["scale"], ones)


LONG = "x" * 300  # no file system of Linux takes such a name: Path.exists raises
DOORS = {
    "from_pretrained": (rn.from_pretrained, f"^{LONG}/.*: File name too long; name a folder"),
    "described": (describe_checkpoint, f"^{LONG}/.*: File name too long; name a folder"),
    "tensors": (Tensors, f"^{LONG}: no model.safetensors"),
    "init_from": (
        lambda name: from_checkpoint(replace(rn.load_config("digits"), init_from=str(name))),
        f"^config.init_from: {LONG}/.*: File name too long; name a folder",
    ),
    "init_from of a run": (
        lambda name: from_checkpoint(
            *[replace(rn.load_config("digits"), init_from=str(n)) for n in (name, "other")]
        ),
        f"^config.init_from: {LONG}/.*: File name too long; name a folder",
    ),
    "surgery": (is_checkpoint, None),
    "written": (
        check_new,
        f"^--output: {LONG}: File name too long; name another folder",
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_name_that_no_file_can_have(door):
    call, says = DOORS[door]
    if says is None:
        assert not call(Path(LONG))
        return
    with pytest.raises(UserError, match=says):
        call(Path(LONG))


@pytest.mark.parametrize("source", [LONG, "."])
def test_convert_looks_before_it_works(source, capsys):
    assert main(["convert", source, f"--output={LONG}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --output: {LONG}: File name too long")
    assert main(["convert", LONG, "--output=new"]) == 2
    assert re.match(f"error: .*{LONG}/.*: File name too long; ", capsys.readouterr().err)
