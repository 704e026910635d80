"""The committed figures of both doors, and the reader of compiled programs behind them."""

from pathlib import Path

import pytest

from resnorm_jax.bench import sharding
from resnorm_jax.bench.results import read
from resnorm_jax.bench.speed_report import REPORTS
from resnorm_jax.cli import bench
from resnorm_jax.errors import UserError

RESULTS = Path(bench.__file__).parents[1] / "bench" / "results" / "sharding_cpu.json"
README = Path(bench.__file__).parents[1] / "training" / "README.md"


@pytest.fixture(scope="module")
def rows():
    return {row["key"]: row for row in read(RESULTS)["sharding"]}


def test_what_a_device_holds_falls_as_one_over_the_devices(rows):
    whole = rows["pmap 8"]["parameter_bytes"] + rows["pmap 8"]["optimizer_bytes"]
    for devices in (2, 4, 8):
        row = rows[f"sharded 1 x {devices} x 1"]
        held = row["parameter_bytes"] + row["optimizer_bytes"]
        assert held == pytest.approx(whole / devices, rel=1e-3)
        assert row["argument_bytes"] == pytest.approx(
            rows["pmap 1"]["argument_bytes"] / devices, 1e-2
        )


def test_a_model_too_large_for_the_stated_device_trains_on_eight(rows):
    assert not rows["pmap 1"]["fits"]
    assert not rows["pmap 8"]["fits"]
    assert rows["sharded 1 x 8 x 1"]["fits"]
    for row in rows.values():
        assert row["losses"] == pytest.approx(rows["pmap 1"]["losses"], rel=1e-5)


def test_collectives_are_those_of_theory(rows):
    assert {key: row["as_expected"] for key, row in rows.items()} == dict.fromkeys(rows, True)


def test_the_readme_has_the_table_of_the_file(rows):
    lines = REPORTS["sharding"](list(rows.values()))
    assert "\n".join(lines[2:]) in README.read_text(encoding="utf-8")


def test_collectives_of_a_program_are_read():
    text = """ENTRY %main (p: f32[3,1]) -> f32[] {
      %a = f32[3,8]{1,0} all-gather(f32[3,1]{1,0} %p), channel_id=1
      ROOT %b = (f32[], bf16[10]{0}) all-reduce-start(%c, %d), to_apply=%sum
      %e = (f32[2]) all-reduce-done(%b)
      %f = pred[] reduce-scatter(%g)
    }"""
    assert sharding.collectives(text) == [
        ("all-gather", 96), ("all-reduce", 24), ("reduce-scatter", 1),
    ]  # fmt: skip


def test_too_few_devices_are_one_line(monkeypatch):
    monkeypatch.setattr(sharding.jax, "local_devices", lambda: [None])
    with pytest.raises(UserError, match=r"^--only=sharding: 1 devices found, 8 needed; "):
        sharding.check_devices()
