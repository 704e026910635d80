"""Pure functions of the benchmark: what is in the tables, what is left out, files, the plot."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

from resnorm_jax.bench import report, run, speed_report, tuning
from resnorm_jax.bench.cases import BERT, NormCase, norm_cases, quick_norm_cases
from resnorm_jax.bench.copy_speed import share_of_copy
from resnorm_jax.bench.model import Size
from resnorm_jax.bench.norm_peers import PEERS, Peer, present
from resnorm_jax.bench.norm_table import fastest, reason
from resnorm_jax.bench.peaks import model_flops, peak_flops, utilization
from resnorm_jax.bench.plot import draw_roofline, norm_panels
from resnorm_jax.bench.results import Results, read, slug, upgrade
from resnorm_jax.bench.run import BY_DEFAULT, Task, measure_all
from resnorm_jax.bench.settings import settings_here
from resnorm_jax.bench.step_peers import kernels
from resnorm_jax.cli import bench
from resnorm_jax.errors import UserError

ABOUT_A_FILE = {
    *("format", "date", "backend", "device", "device_count", "cores", "load_average"),
    *("versions", "settings", "runs", "note"),
}
RESULTS = Path(bench.__file__).parents[1] / "bench" / "results"
ABOUT = {
    "date": "2026-01-02T03:04:05Z", "backend": "gpu", "device": "Made-up 1", "load_average": None,
    "versions": {"jax": "0.11.2"}, "settings": {"first": 16},
}  # fmt: skip


def times(**medians):
    return {name: {"median": m, "minimum": m, "q25": m, "q75": m} for name, m in medians.items()}


def norm_row(width=1024, ours=2e-4, flax=3e-4):
    found = {
        "times": times(ours=ours, flax=flax, torch=1e-4),
        "ratios": [
            {"ours": "ours", "peer": "flax", "median": ours / flax},
            {"ours": "ours", "peer": "torch", "median": ours / 1e-4},
        ],
        "rounds": 5, "bytes": 4 * 10**8, "share_of_copy": {"ours": 66.6, "flax": 44.4, "torch": 133},
    }  # fmt: skip
    return {
        "key": f"layer 9x{width} bfloat16", "norm": "layer", "shape": [9, width], "copy": 3e12,
        "dtype": "bfloat16", "passes": {"forward": found, "backward": found},
        "skipped": {"Liger": "pip install 'liger-kernel'"},
    }  # fmt: skip


def step_row(peak=989e12):
    return {
        "key": "bert_base bfloat16", "model": "bert_base", "dtype": "bfloat16",
        "size": dataclasses.asdict(BERT.size), "times": times(ours=0.03, flax=0.0426),
        "ratios": [], "rounds": 5, "flops": 9.2e12, "peak_flops": peak, "skipped": {},
        "utilization": {"ours": peak and 0.31, "flax": None},
        "facts": {"ours": {"compile_seconds": 8.7, "temporary_bytes": 14.6e9,
                           "kernels": {"__cudnn$fmhaSoftmax": 12}}},
        "defaults": {"attention": "cudnn", "unroll": 1},
    }  # fmt: skip


def test_bytes_are_counted_as_the_least_that_must_move():
    case = NormCase("layer", (16384, 4096), "bfloat16")
    array = 2 * 16384 * 4096
    assert [case.moved(way) for way in ("forward", "backward", "both")] == [
        2 * array, 3 * array, 5 * array,
    ]  # fmt: skip
    added = dataclasses.replace(case, norm="add+rms", dtype="float32")
    assert (added.kind, added.added, added.moved("forward")) == ("rms", True, 8 * array)
    # GPU figures of the first format: 121 us on a card that copies 3.01 TB/s were 74 %.
    assert share_of_copy(2 * array, 121e-6, 3.01e12) == pytest.approx(73.7, abs=0.1)


def test_on_an_accelerator_all_norms_are_measured_on_twelve_shapes_in_two_dtypes():
    cases = norm_cases(accelerator=True)
    assert len(cases) == len(set(cases))
    for norm in ("layer", "rms"):
        for dtype in ("bfloat16", "float32"):
            shapes = {c.shape for c in cases if (c.norm, c.dtype) == (norm, dtype)}
            assert len(shapes) == 12
            assert {256, 16384, 1017, 4095} <= {width for _, width in shapes}
    assert {"add+layer", "add+rms"} <= {case.norm for case in cases[: run_first()]}
    for few in (norm_cases(accelerator=False), quick_norm_cases()):
        assert {c.norm for c in few} == {"layer", "rms", "add+layer", "add+rms"}
        assert {c.dtype for c in few} == {"float32", "bfloat16"}


def run_first():
    return settings_here(None, False, False).first


def test_model_flops_and_utilization():
    size = Size(depth=2, width=3, heads=1, mlp_width=5, batch=7, length=11)
    assert model_flops(size, 13) == 6 * 13 * 77 + 12 * 2 * 7 * 121 * 3
    # The BERT-base step of 71.4 ms on an H100 was 13 % of its 989 TFLOP/s.
    flops = model_flops(BERT.size, 85_500_000)
    assert utilization(flops, 71.4e-3, peak_flops("NVIDIA H100 80GB HBM3", "bfloat16")) == (
        pytest.approx(0.13, abs=0.005)
    )
    assert peak_flops("NVIDIA H100 NVL", "bfloat16") is None
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("TPU v5 lite", "float32") is None
    assert peak_flops("cpu", "float32") is None
    assert utilization(1.0, 1.0, None) is None


def test_who_is_not_there_is_skipped_with_the_reason(monkeypatch):
    case = NormCase("rms", (2, 8))
    absent = Peer("absent", lambda case: None, needs=(("no_such_module", "no-such-package"),))
    elsewhere = Peer("elsewhere", lambda case: None, backends=("tpu",))
    slow = Peer("slow", lambda case: None, slow=("cpu",))
    other = Peer("other", lambda case: None, norms=("layer",))
    peers = (PEERS[0], absent, elsewhere, slow, other)
    there, skipped = present(case, peers=peers)
    assert [peer.name for peer in there] == ["ours"]
    assert skipped == {
        "absent": "pip install 'no-such-package'",
        "elsewhere": "there for tpu only",
        "slow": "takes long to compile here; measured with --all",
    }
    assert [p.name for p in present(case, everything=True, peers=peers)[0]] == ["ours", "slow"]
    names = [peer.name for peer in PEERS]
    assert len(names) == len(set(names))
    assert {"flax", "jax.nn", "tokamax xla", "tokamax triton", "torch", "torch compiled", "Liger",
            "QuACK", "TransformerEngine"} <= set(names)  # fmt: skip


def test_the_faster_program_of_a_direction_counts():
    samples = {"a/0": [3.0, 1.0, 3.0], "a/1": [2.0, 2.0, 2.0], "b/0": [5.0]}
    assert fastest(samples) == {"a": [2.0, 2.0, 2.0], "b": [5.0]}
    assert reason(ValueError("one\ntwo")) == "failed: ValueError: one"
    assert reason(ValueError()) == "failed: ValueError: "


def test_calls_of_a_compiled_program_are_counted():
    text = 'x = f32[] custom-call(y), custom_call_target="__gpu$xla.gpu.triton", a={}\n' * 2
    assert kernels(text + 'custom_call_target="__cudnn$fmha"') == {
        "__gpu$xla.gpu.triton": 2,
        "__cudnn$fmha": 1,
    }


def counted(monkeypatch, failing=()):
    """Tasks that only note that they were run."""
    done = []

    def task(section, key):
        def measure():
            if key in failing:
                raise RuntimeError(f"no {key}")
            done.append(key)
            return {"key": key}

        return Task(section, key, f"measuring {key}", measure)

    rows = [task("norm", "a"), task("step", "b"), task("norm", "c")]
    monkeypatch.setattr(run, "tasks", lambda *_: iter(rows))
    return done


def keys(path):
    document = json.loads(path.read_text())
    return {s: [row["key"] for row in document.get(s, ())] for s in ("norm", "step")}


@pytest.mark.table
def test_rows_are_saved_as_they_come_and_a_rerun_goes_on(tmp_path, monkeypatch):
    path, settings = tmp_path / "x.json", settings_here(None, False, True)
    done = counted(monkeypatch, failing=("b",))
    with pytest.raises(RuntimeError, match="no b") as caught:
        measure_all(settings, Results(path, ABOUT), BY_DEFAULT, lambda text: None)
    assert caught.value.__notes__ == ["while measuring b"]
    assert done == ["a", "c"]
    assert keys(path) == {"norm": ["a", "c"], "step": []}
    done = counted(monkeypatch)
    late = measure_all(settings, Results(path, ABOUT), ("norm", "step"), lambda text: None, until=0)
    assert (late, done) == (["measuring b"], [])
    measure_all(settings, Results(path, ABOUT), ("norm", "step"), lambda text: None)
    assert done == ["b"]
    assert keys(path) == {"norm": ["a", "c"], "step": ["b"]}
    assert len(json.loads(path.read_text())["runs"]) == 2  # the one that added nothing left nothing


@pytest.mark.parametrize("name", ["device", "versions", "settings"])
def test_rows_of_another_device_or_version_do_not_stand_in_one_file(tmp_path, name):
    path = tmp_path / "x.json"
    Results(path, ABOUT).add("norm", "a", {"key": "a"})
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"holds other results: {name} is another"):
        Results(path, {**ABOUT, name: {"other": 1}})
    assert path.read_bytes() == before


def test_files_of_the_first_format_are_read():
    old = {
        "settings": {"dtype": "float32"},
        "norm": [{"norm": "layer", "shape": [2, 3, 8], "times": times(ours=1e-3, flax=2e-3),
                  "ratios": [{"ours": "ours", "peer": "flax", "median": 0.5}], "rounds": 3,
                  "skipped": {}}],
        "step": {"size": dataclasses.asdict(Size()), "times": times(**{"ours scanned": 1.0}),
                 "ratios": [], "rounds": 3, "skipped": {"torch": "none"}, "parameters": {}},
    }  # fmt: skip
    document = upgrade(old)
    lines = [
        line
        for section, lines in speed_report.REPORTS.items()
        if section in document
        for line in lines(document[section])
    ]
    text = "\n".join(lines)
    assert "| layer 2x3x8 float32, both | 1000 | 2000 |      0.50 |           0.50 |" in text
    assert "Training step 4x256 float32: 4 layers" in text
    assert "torch: skipped: none" in text


@pytest.mark.table
@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_shown(path, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    assert bench.main(["--show", str(path), "--output", str(plot)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    document = read(path)
    assert first.startswith(f"measured on {document['device']}, {document['date'][:10]}, ")
    assert f"jax {document['versions']['jax']}" in " ".join([first, *lines])
    assert document.get("settings", {}).get("data", "") in first
    sections = [name for name in document if name in {**speed_report.REPORTS, **report.TABLES}]
    assert sections
    assert set(document) - ABOUT_A_FILE == set(sections)  # all that is there is shown
    assert len([line for line in lines if line.strip()]) >= 3 * len(sections)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 3}', '{"settings": {}}', "[" * 10**5])
def test_what_is_no_file_of_results_is_one_line(tmp_path, text, capsys):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match="no results of resnorm bench"):
        read(path)
    assert bench.main(["--show", str(path)]) == 2
    assert bench.main(["--show", str(tmp_path / "none.json")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_show_measures_nothing_prints_the_tables_and_draws_the_plot(tmp_path, capsys):
    path = tmp_path / "made_up.json"
    results = Results(path, ABOUT)
    results.add("norm", None, [norm_row(1024), norm_row(256)])
    results.add("step", None, [step_row(), {**step_row(None), "key": "b"}])
    results.add("copy", None, {"bytes": 2**30, "bytes_per_second": {"jax": 3.01e12}})
    hashes = {"params_sha256": ["ab" * 32, "cd" * 32], "loss": [1.0, 2.0]}
    results.add("determinism", None, [{"key": "k", "steps": 3, "equal": False, **hashes}])
    assert bench.main(["--show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "| layer 9x1024 bfloat16, forward  | 200 (67) | 300 (44) | 100 (133) |" in out
    assert out.index("9x1024 bfloat16, forward") < out.index("9x1024 bfloat16, backward")
    assert "Liger: skipped: pip install 'liger-kernel'" in out
    assert "; ours: attention cudnn, unroll 1" in out
    assert "31.0 | 12 __cudnn$fmhaSoftmax |" in out
    assert "jax 3.010 TB/s" in out
    assert "| k |     3 |         NO | abababababab | cdcdcdcdcdcd |" in out
    plot = path.with_suffix(".png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    # A plot that is there is not drawn over.
    plot.write_bytes(b"mine")
    assert bench.main(["--show", str(path)]) == 0
    assert plot.read_bytes() == b"mine"
    assert bench.main(["--show", str(path), "--output", str(plot)]) == 2
    assert "exists" in capsys.readouterr().err


def test_the_plot_has_a_roof_and_a_line_for_each_peer(tmp_path):
    panels = norm_panels([norm_row(1024), norm_row(256, ours=1e-4)])
    assert list(panels) == ["layer, bfloat16, forward", "layer, bfloat16, backward"]
    lines = panels["layer, bfloat16, forward"]
    assert lines["copy"] == [(256, 3e12), (1024, 3e12)]
    assert lines["ours"] == [(256, pytest.approx(4e12)), (1024, pytest.approx(2e12))]
    assert not draw_roofline({"norm": []}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_options_that_nothing_reads_are_told(capsys):
    for argv, says in {
        ("--show=x.json", "--quick"): "--quick: not read with --show",
        ("--only=depth", "--seconds=3"): "--seconds: not read with --only=depth",
        ("--only=digits", "--all"): "--all: not read with --only=digits",
        ("--seconds=-1",): "--seconds: ",
    }.items():
        assert bench.main(list(argv)) == 2
        error = capsys.readouterr().err.strip()
        assert says in error
        assert "\n" not in error
    assert bench.SECTIONS == run.SECTIONS


def test_names_of_files():
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia_h100_80gb_hbm3"
    assert slug("cpu") == "cpu"


def test_tiles_are_of_this_device_width_and_dtype(monkeypatch, capsys, tmp_path):
    assert bench.main(["--only=tune", f"--output={tmp_path / 'x.json'}"]) == 2
    assert "--only=tune: tiles are measured on a GPU; this is cpu" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
    kind = jax.devices()[0].device_kind
    tile = {"device": kind, "operation": "forward", "width": 8, "dtype": "float32",
            "rows": 1, "warps": 4, "programs": 0}  # fmt: skip
    others = [{**tile, "device": "another"}, {**tile, "width": 9}, {**tile, "dtype": "bfloat16"}]
    monkeypatch.setattr(tuning, "tune", lambda shapes, dtypes, note: [*others, tile])
    monkeypatch.setattr(tuning.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(tuning.triton, "unavailable", lambda: None)
    row = tuning.tuned_row((3, 8), "float32")
    assert row == {"key": "3x8 float32", "tiles": [tile]}
    assert "| 3x8 float32, forward |    1 |     4 |        0 |" in speed_report.tile_lines([row])
