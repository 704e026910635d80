import struct
import sys

import pytest

from resnorm_jax.reporting.tensorboard import Scalars


def events(directory):
    """Every event, read from the record format: length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(directory.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def shown(directory):
    """The points that TensorBoard shows: a session start hides what is at or past its step."""
    points = []
    for event in events(directory):
        if event.HasField("session_log"):
            points = [p for p in points if p[1] < event.step]
        points += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return points


def row(step, split="train", **numbers):
    return {"seed": 0, "step": step, "split": split, **numbers}


def test_scalars_by_split(tmp_path):
    pytest.importorskip("tensorboardX")
    with Scalars(tmp_path / "tb") as scalars:
        scalars.write(row(10, loss=0.5, note="text", missing=None))
        scalars.write(row(10, "valid", loss=0.75, accuracy=1))
    assert shown(tmp_path / "tb") == [
        ("loss/train", 10, 0.5),
        ("loss/valid", 10, 0.75),
        ("accuracy/valid", 10, 1.0),
    ]


def test_a_row_waits_for_the_disk_once(tmp_path, monkeypatch):
    writer = pytest.importorskip("tensorboardX.event_file_writer").EventsWriter
    flushes, real = [], writer.flush

    def counted(self):
        flushes.append(1)
        return real(self)

    with Scalars(tmp_path) as scalars:
        monkeypatch.setattr(writer, "flush", counted)
        scalars.write(row(10, loss=0.5, accuracy=1.0, grad_norm=2.0))
        assert len(flushes) == 1
        scalars.write(row(20, note="text"))
        assert len(flushes) == 1
    assert [tag for tag, *_ in shown(tmp_path)] == [
        "loss/train",
        "accuracy/train",
        "grad_norm/train",
    ]


@pytest.mark.parametrize("kept", [0, 20])
def test_resume_leaves_no_duplicates(tmp_path, kept):
    pytest.importorskip("tensorboardX")
    with Scalars(tmp_path) as scalars:
        for step in (10, 20, 30):
            scalars.write(row(step, loss=1.0))
    with Scalars(tmp_path, resumed_step=kept) as scalars:
        for step in range(kept + 10, 50, 10):
            scalars.write(row(step, loss=2.0))
    assert len(list(tmp_path.glob("events*"))) == 2
    assert [(step, value) for _, step, value in shown(tmp_path)] == [
        (step, 1.0 if step <= kept else 2.0) for step in (10, 20, 30, 40)
    ]


def test_does_nothing_without_tensorboardx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with Scalars(tmp_path / "tb", resumed_step=5) as scalars:
        scalars.write(row(1, loss=0.5))
    assert not (tmp_path / "tb").exists()


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path, monkeypatch):
    writer = pytest.importorskip("tensorboardX.event_file_writer")
    lines = []
    with Scalars(tmp_path, warn=lines.append) as scalars:
        scalars.write(row(10, loss=0.5))

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(writer.EventsWriter, "flush", full)
        for step in (20, 30):
            scalars.write(row(step, loss=0.5))
    assert lines == [f"{tmp_path}: no events for TensorBoard (No space left on device)"]
    assert shown(tmp_path)[0] == ("loss/train", 10, 0.5)
