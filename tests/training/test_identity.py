"""A run directory: whose it is, what of a run may change, and what is damaged is found."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from resnorm_jax.config import Config, from_dict
from resnorm_jax.data.buckets import quantile_buckets
from resnorm_jax.data.preprocess import scale_channels
from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import write_sealed
from resnorm_jax.training import identity as identities
from resnorm_jax.training.identity import MAY_CHANGE, change_line, going_on, identify
from resnorm_jax.training.run_data import data_line, padded_lengths, padding
from resnorm_jax.training.run_directory import (
    UNSEALED,
    check_steps,
    claimed,
    open_run,
    read_run,
    stored_run,
)


class Device:
    platform, device_kind = "cpu", "fake"


def identity(data=None, devices=1, **train):
    raw = data or tiny.dataset()
    return identify(tiny.config(**train), raw, scale_channels(raw), [Device()] * devices)


def test_the_same_run_is_the_same(tmp_path):
    first = open_run(tmp_path, identity())
    before = (tmp_path / "config.json").read_bytes()
    assert open_run(tmp_path, identity()) == first
    assert (tmp_path / "config.json").read_bytes() == before
    assert read_run(tmp_path) == (tiny.config(), first)


def reordered(data):
    return data.replace(classes=data.classes[::-1])


def relabelled(data):
    return data.replace(test=replace(data.test, y=data.test.y[::-1].copy()))


def longer(data):
    return data.replace(train=data.train.take(np.arange(40)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (reordered, r"classes was \['a', 'b', 'c'\], and is \['c', 'b', 'a'\]"),
        (relabelled, r"splits\.test\.sha256 was '\w+"),
        (longer, r"splits\.train\.sh"),
    ],
)
def test_other_data_are_refused_with_what_differs(tmp_path, change, what):
    open_run(tmp_path, identity())
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=f"the data are not those of this run: {what}"):
        open_run(tmp_path, identity(change(tiny.dataset())))
    assert (tmp_path / "config.json").read_bytes() == before


def test_that_the_bits_may_differ_from_now_on_is_recorded(tmp_path):
    now = identity()
    told = replace(now, runtime=now.runtime | {"deterministic": "no: train.deterministic is False"})
    [change] = going_on(now, told, {}, tmp_path).changes
    assert change["what"] == "runtime.deterministic"
    unknown = {k: v for k, v in now.runtime.items() if k != "deterministic"}  # of version 0.2
    assert going_on(replace(now, runtime=unknown), now, {}, tmp_path).changes == ()


def test_a_field_that_may_not_change_is_named(tmp_path):
    open_run(tmp_path, identity(batch_size=16))
    with pytest.raises(UserError, match=r"config\.train\.batch_size is 16, this one's 32"):
        open_run(tmp_path, identity(batch_size=32))


def test_what_may_change_is_recorded_and_said(tmp_path, monkeypatch):
    open_run(tmp_path, identity(steps=10))
    (tmp_path / "checkpoints" / "seed_0" / "last" / "step_000000010").mkdir(parents=True)
    monkeypatch.setattr(identities.metadata, "version", lambda name: "9")
    found = open_run(tmp_path, identity(steps=20, devices=2))
    told = {c["what"]: (c["before"], c["after"]) for c in found.changes}
    assert told["train.steps"] == ("10", "20")
    assert told["runtime.devices"] == ("1", "2")
    assert told["runtime.versions.jax"][1] == "'9'"
    assert all(c["steps"] == {"seed_0": 10} for c in found.changes)
    steps = next(c for c in found.changes if c["what"] == "train.steps")
    assert change_line(steps).startswith(
        "note: train.steps was 10 and is 20 since seed_0 at step 10"
    )
    assert open_run(tmp_path, identity(steps=20, devices=2)) == found
    assert read_run(tmp_path)[1] == found


def test_fewer_steps_than_were_done_are_refused(tmp_path):
    (tmp_path / "checkpoints" / "seed_0" / "last" / "step_000000010").mkdir(parents=True)
    check_steps(tmp_path, 10)
    with pytest.raises(UserError, match=r"9 steps in all, but seed_0 in .* has done 10"):
        check_steps(tmp_path, 9)


def test_fields_that_may_change_are_fields():
    sections = {f.name: getattr(tiny.config(), f.name) for f in fields(Config)}
    for path in MAY_CHANGE:
        section, _, name = path.rpartition(".")
        assert hasattr(sections[section] if section else tiny.config(), name), path


def test_a_run_of_a_version_without_digests_goes_on(tmp_path):
    now = identity()
    old = {key: value for key, value in asdict(now).items() if key in UNSEALED}
    del old["config"]["train"]["keep"]  # a field that there was not
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert read_run(tmp_path)[1].content is None
    assert open_run(tmp_path, now) == now
    assert read_run(tmp_path)[1].content == now.content


def test_every_flipped_bit_of_the_config_is_found_or_changes_nothing(tmp_path):
    want = open_run(tmp_path, identity())
    path = tmp_path / "config.json"
    data = path.read_bytes()
    for bit in range(3, 8 * len(data), 61):  # all of them are in the reliability table
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with suppress(UserError):
            assert read_run(tmp_path)[1] == want, bit


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"config": {}}', '{"config": [], "data": 1}']
)
def test_what_is_no_config_of_a_run_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: (damaged|not a run's config)"):
        read_run(tmp_path)


def test_a_pipe_in_the_place_of_the_config_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match=r"config\.json: damaged .*no regular file"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "checkpoints/seed_0",
        "checkpoints/seed_0/last",
    ],
)
def test_links_out_of_a_run_are_refused(tmp_path, name):
    workdir = tmp_path / "run"
    open_run(workdir, identity())
    (workdir / name).unlink(missing_ok=True)
    (workdir / name).parent.mkdir(parents=True, exist_ok=True)
    (workdir / name).symlink_to(tmp_path / "outside")
    for use in (lambda: claimed(workdir).__enter__(), lambda: read_run(workdir)):
        with pytest.raises(UserError, match="a link, which a run does not make"):
            use()


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "\ud800", "/dev/null"])
def test_what_can_hold_no_run_is_one_line(name):
    with pytest.raises(UserError) as error:
        read_run(Path(name))
    assert "\n" not in str(error.value)
    str(error.value).encode()


# --- The directory ---


def test_a_directory_made_in_vain_goes_again(tmp_path):
    workdir, seen = tmp_path / "a" / "b", []

    def fail():
        with claimed(workdir):
            seen.extend(os.listdir(workdir))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == ["run.lock"]
    assert not (tmp_path / "a").exists()


def test_what_a_kill_left_half_written_is_no_other_file(tmp_path):
    left = tmp_path / ".config.json.123.tmp"
    left.write_text("{")
    with claimed(tmp_path):
        assert not left.exists()
        open_run(tmp_path, identity())
    with claimed(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["config.json", "run.lock"]


def file(path: Path):
    path.write_text("")
    return path


def under_a_file(path: Path):
    return file(path) / "run"


def link_to_nowhere(path: Path):
    path.symlink_to(path.with_name("nowhere"))
    return path


def holds_others(path: Path):
    path.mkdir()
    (path / "thesis.tex").write_text("")
    return path


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (file, "is a file"),
        (under_a_file, "cannot be used"),
        (link_to_nowhere, "is a link to nowhere"),
        (holds_others, r"holds other files, such as thesis\.tex"),
        (lambda path: path.with_name("n" * 300), "File name too long"),
        (lambda path: path.with_name("a\0b"), "null byte"),
    ],
)
def test_a_directory_that_cannot_be_used_is_one_line(tmp_path, make, what):
    workdir = make(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"^--workdir: .*{what}.*name "), claimed(workdir):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_data_of_before_are_not_looked_at_when_nobody_did():
    now = identity()
    stored = replace(now, content=None)
    assert going_on(stored, now, {}, Path("run")) == now
    assert from_dict(now.config) == tiny.config()


def test_a_run_keeps_its_padded_lengths(tmp_path):
    """Those of the file; of a file without, those of the rule that there was, with its default."""
    data, made = tiny.dataset(), tiny.config(buckets=8)
    assert stored_run(tmp_path) is None
    now = identify(made, data, scale_channels(data), [Device()], (4, 6, 8))
    open_run(tmp_path, now)
    assert stored_run(tmp_path) == now
    assert padded_lengths(made, data, stored_run(tmp_path)) == (4, 6, 8)
    old = asdict(identity(buckets=3))
    for wrong in ([], [4, 0], [4, "8"], 8):
        write_sealed(tmp_path / "config.json", old | {"edges": wrong})
        with pytest.raises(UserError, match=r"config\.json: edges: .*; restore"):
            stored_run(tmp_path)
    del old["edges"]
    (tmp_path / "config.json").unlink()
    write_sealed(tmp_path / "config.json", old)
    edges = padded_lengths(made, data, stored_run(tmp_path))
    assert edges == quantile_buckets(data.train.lengths, 3)
    going = identify(made, data, scale_channels(data), [Device()], edges)
    assert open_run(tmp_path, going) == going
    assert padded_lengths(made, data, stored_run(tmp_path)) == edges
    with pytest.raises(UserError, match=r"config\.train\.buckets is 8, this one's 3"):
        open_run(tmp_path, identity(buckets=3))


def test_padded_lengths_are_as_many_as_pay(tmp_path):
    """A short run has one program, a long one several; the line on the data tells what they cost."""
    data = tiny.dataset(rows=440)
    short, long = (tiny.config(buckets=8, epochs=n) for n in (1, 10**6))
    assert padded_lengths(short, data) == (8,)
    assert padded_lengths(long, data) == (4, 8)
    assert padded_lengths(tiny.config(buckets=1, epochs=10**6), data) == (8,)
    told = padding(data, (4, 8), 16)
    share = 1 - data.train.lengths.sum() / (448 * 8 - 4 * 16 * (sum(data.train.lengths < 5) // 16))
    assert told == {"lengths": [4, 8], "share": pytest.approx(share, abs=5e-5)}
    assert data_line(data, told).endswith(
        f"3 classes; {100 * share:.1f} % of positions are padding, to 4, 8"
    )
