import dataclasses
import json
import math
from itertools import product

import jax
import numpy as np
import pytest

from resnorm_jax import norms
from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.accuracy import DTYPES, MEANS, accuracy
from resnorm_jax.bench.cases import NormCase
from resnorm_jax.bench.flax_peer import from_ours
from resnorm_jax.bench.model import (
    Size,
    flax_model,
    initial_parameters,
    our_model,
    parameter_count,
    random_batch,
)
from resnorm_jax.bench.norm_peers import PEERS, Peer, present
from resnorm_jax.bench.norm_table import norm_row
from resnorm_jax.bench.norm_works import random_arrays
from resnorm_jax.bench.step_speed import FLAX, SCANNED, jax_steps
from resnorm_jax.bench.timing import Budget, interleave, ratios
from resnorm_jax.bench.training_table import RECIPES, recipe
from resnorm_jax.cli.bench import main
from resnorm_jax.norms.rows import NORMS

SIZE = Size(depth=2, width=32, heads=4, mlp_width=48, batch=5, length=11, channels=7, classes=3)


@pytest.fixture(scope="module")
def params():
    """Parameters without a special value: every one of them counts."""
    leaves, tree = jax.tree.flatten(initial_parameters(SIZE))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


@pytest.fixture(scope="module")
def logits(params):
    batch = random_batch(SIZE)
    return np.asarray(our_model(SIZE).apply({"params": params}, batch["x"], batch["mask"]))


def numbers(document):
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from numbers(item)
    elif isinstance(document, int | float):
        yield document


def check_comparison(case):
    for times in case["times"].values():
        assert 0 < times["minimum"] <= times["q25"] <= times["median"] <= times["q75"]
    assert case["ratios"]
    for ratio in case["ratios"]:
        ours, peer = case["times"][ratio["ours"]], case["times"][ratio["peer"]]
        assert ratio["median"] == pytest.approx(ours["median"] / peer["median"])
        assert ratio["minimum"] == pytest.approx(ours["minimum"] / peer["minimum"])


@pytest.mark.table
def test_quick_run_writes_every_number_and_ratios_of_medians(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["--quick", "--output", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(jax.default_backend())
    assert "Norm, forward and backward" in out
    assert path.name in out
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    document = json.loads(path.read_text())
    assert set(document) == {
        "date", "backend", "device", "device_count", "cores", "load_average", "versions", "settings",
        "format", "runs", "copy", "norm", "step", "determinism", "accuracy", "curves", "memory",
    }  # fmt: skip
    assert set(document["versions"]) == {"jax", "jaxlib", "flax", "torch"}
    assert all(math.isfinite(number) for number in numbers(document))
    assert {row["norm"] for row in document["norm"]} == {"layer", "rms", "add+layer", "add+rms"}
    for row in document["norm"]:
        for found in row["passes"].values():
            check_comparison(found)
            assert {"ours", "flax"} <= set(found["times"])
            assert ("torch" in found["times"]) != ("torch" in row["skipped"])
            assert ("ours unfused" in found["times"]) == row["norm"].startswith("add+")
            for name, share in found["share_of_copy"].items():
                expected = 100 * found["bytes"] / found["times"][name]["median"] / row["copy"]
                assert share == pytest.approx(expected)
        assert "failed" not in "".join(row["skipped"].values())
    assert {row["model"] for row in document["step"]} == {"bert_base", "4x256"}
    for row in document["step"]:
        check_comparison(row)
        assert {"ours", "flax"} <= set(row["times"])
        assert len(set(row["parameters"].values())) == 1
        assert row["facts"]["ours"]["compile_seconds"] > 0
        assert row["facts"]["ours"]["temporary_bytes"] > 0
        assert row["defaults"]["attention"] == "xla"
        assert "failed" not in "".join(row["skipped"].values())
    (runs,) = document["determinism"]
    assert runs["equal"]
    assert len(set(runs["params_sha256"])) == 1
    (curves,) = document["curves"]
    assert {len(losses) for losses in curves["losses"].values()} == {curves["steps"]}
    assert all(0 < distance < 0.1 for distance in curves["distance"].values())
    memory = document["memory"]
    for case in [*memory["norms"], memory["step"]]:
        for ratio in case["ratios"]:
            ours, peer = case["programs"][ratio["ours"]], case["programs"][ratio["peer"]]
            assert peer["temporary_bytes"] > 0
            expected = ours["temporary_bytes"] / peer["temporary_bytes"]
            assert ratio["temporary_bytes"] == pytest.approx(expected)
    rows = memory["compile"]["rows"]
    assert memory["compile"]["ratio"] == pytest.approx(rows[-1]["total"] / rows[0]["total"])

    # A second time there is nothing left to measure.
    assert main(["--quick", "--output", str(path)]) == 0
    again = json.loads(path.read_text())
    assert {**again, "runs": None} == {**document, "runs": None}


@pytest.mark.table
def test_bfloat16_norms_alone_in_the_default_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--quick", "--only", "norm", "--dtype", "bfloat16"]) == 0
    document = json.loads((tmp_path / f"resnorm-bench-{jax.default_backend()}.json").read_text())
    assert {row["dtype"] for row in document["norm"]} == {"bfloat16"}
    assert not {"step", "accuracy", "memory"} & set(document)


@pytest.mark.table
@pytest.mark.parametrize("norm", ["layer", "rms", "add+layer", "add+rms"])
def test_all_peers_here_give_the_same_values_and_gradients(norm):
    case = NormCase(norm, (6, 40))
    inputs, cotangent = random_arrays(case)
    wanted = None
    for peer in present(case, everything=True)[0]:
        works = peer.works(peer.function(case), inputs, cotangent)
        found = [np.asarray(a) for a in jax.tree.leaves(works["forward"][0]())]
        for backward in works["backward"]:
            gradients = [np.asarray(a) for a in jax.tree.leaves(backward())]
            wanted = wanted or (found, gradients)
            assert len(gradients) == len(inputs) - case.added
            for got, expected in zip([*found, *gradients], [*wanted[0], *wanted[1]], strict=True):
                np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=peer.name)


def test_unknown_section_is_a_usage_error(capsys):
    assert main(["--only", "nothing"]) == 2
    error = capsys.readouterr().err.strip()
    assert "accuracy" in error
    assert "\n" not in error


@pytest.mark.table
def test_flax_peer_is_the_same_function_with_the_same_parameters(params, logits):
    batch, model = random_batch(SIZE), flax_model(SIZE)
    mapped = from_ours(params, SIZE.depth)
    own = jax.eval_shape(model.init, jax.random.key(0), batch["x"], batch["mask"])["params"]
    assert jax.tree.map(np.shape, mapped) == jax.tree.map(np.shape, own)
    assert parameter_count(mapped) == parameter_count(params)
    theirs = model.apply({"params": mapped}, batch["x"], batch["mask"])
    np.testing.assert_allclose(theirs, logits, atol=1e-5)


@pytest.mark.table
def test_torch_peer_is_the_same_function_with_the_same_parameters(params, logits):
    torch = pytest.importorskip("torch")
    batch, model = random_batch(SIZE), torch_peer.classifier(SIZE, params).train()
    assert sum(p.numel() for p in model.parameters()) == parameter_count(params)
    theirs = model(torch.tensor(batch["x"]), torch.tensor(batch["mask"])).detach().numpy()
    np.testing.assert_allclose(theirs, logits, atol=1e-5)


@pytest.mark.table
def test_jax_peers_have_the_same_gradient(params):
    batch = random_batch(SIZE)
    steps = jax_steps(SIZE, np.float32, params)
    ours, theirs = (jax.jit(steps[name][0])(steps[name][1], batch)[0] for name in (SCANNED, FLAX))
    # Adam's first moment: after one update it is the gradient, but for a factor.
    found, expected = from_ours(ours.opt_state[0].mu, SIZE.depth), theirs[1][0].mu
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_who_fails_or_is_not_there_is_named_and_the_others_are_measured(monkeypatch):
    monkeypatch.setattr(torch_peer, "unavailable", lambda: "pip install 'resnorm_jax[torch]'")

    def broken(case):
        def norm(x, scale):
            raise ValueError("no such norm")

        return norm

    peers = [peer for peer in PEERS if peer.name in ("ours", "torch")] + [Peer("broken", broken)]
    row = norm_row(NormCase("rms", (2, 8)), Budget(0.0, at_least=2, warmup=1), 1e9, peers=peers)
    assert row["skipped"] == {
        "torch": "pip install 'resnorm_jax[torch]'",
        "broken": "failed: ValueError: no such norm",
    }
    assert {name for found in row["passes"].values() for name in found["times"]} == {"ours"}


@pytest.mark.table
def test_our_layer_norm_is_nowhere_less_accurate():
    rows = accuracy()
    assert {(r["dtype"], r["mean"]) for r in rows} == set(product(DTYPES, MEANS))
    for row in rows:
        assert {"ours", "flax", "flax two-pass", "jax.nn"} <= set(row["errors"])
        # On CPU the least, or equal to the least: no leave for the last rounding.
        assert row["least"] or jax.default_backend() != "cpu", row
        assert "ours" in row["best"], row
        if row["dtype"] == "float32":
            # Half a spacing is the last rounding; the sum of squares takes most of the rest.
            assert row["errors"]["ours"] <= 1.1 * row["resolution"], row


def test_rounds_visit_everyone_once_and_ratios_pair_ours_with_peers():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in ("a", "b", "c")}
    samples = interleave(functions, Budget(0.0, at_least=4, warmup=1, primers=1, calls=2))
    assert {name: len(values) for name, values in samples.items()} == {"a": 4, "b": 4, "c": 4}
    assert [calls.count(name) for name in "abc"] == [1 + 4 * 3] * 3
    for start in range(3, len(calls), 9):
        assert sorted(calls[start : start + 9]) == sorted("abc" * 3)
    rows = ratios({"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0, 2.0]}, ["a"])
    assert rows == [
        {"ours": "a", "peer": "b", "median": 1.0, "minimum": 0.5, "q25": 0.75, "q75": 1.25}
    ]


@pytest.mark.table
def test_digits_trains_each_norm_and_says_who_failed(tmp_path, capsys, monkeypatch):
    broken = dataclasses.replace(
        norms.get("rms"), name="broken", module=lambda **options: 1 / 0, aliases=()
    )
    explosive = dataclasses.replace(
        norms.get("rms"), name="explosive", module=None, parameters=(),
        function=lambda x, p, *, epsilon: x * np.nan, aliases=(),
    )  # fmt: skip
    for row in (broken, explosive):
        monkeypatch.setitem(NORMS._rows, row.name, row)
    path = tmp_path / "digits.json"
    command = ["--only=digits", "--quick", f"--output={path}"]
    assert main([*command, "--names=layer,dyt,broken,explosive"]) == 0
    out = capsys.readouterr().out
    assert "majority class" in out
    assert "ZeroDivisionError" in out
    document = json.loads(path.read_text())
    assert {"date", "backend", "device", "versions"} <= set(document)
    found = document["digits"]
    assert found["recipe"]["model"]["arrangement"] == "pre_ln"
    assert found["majority"] == pytest.approx(0.1, abs=0.01)
    rows = {row["name"]: row for row in found["rows"]}
    status = {name: row["status"] for name, row in rows.items()}
    assert status == {"layer": "ok", "dyt": "ok", "broken": "failed", "explosive": "diverged"}
    for name in ("layer", "dyt"):
        assert 0 <= rows[name]["accuracy"] <= 1
        assert rows[name]["step_ms"] > 0
        assert rows[name]["steps"] == 23
    assert rows["broken"]["accuracy"] is None


def test_digits_recipe_is_one_for_all_and_never_sees_test_rows_while_choosing():
    one, other = recipe("digits", norm="layer"), recipe("digits", norm="dyt")
    assert dataclasses.replace(other, model=one.model) == one
    assert recipe("digits", "validate", norm="layer").train.score == "validation"
    assert one.train.score == "test"


@pytest.mark.table
def test_vowels_trains_arrangements_at_each_depth_over_seeds(tmp_path, capsys, monkeypatch):
    shallow = dataclasses.replace(RECIPES["vowels"], depths=(1, 2))
    monkeypatch.setitem(RECIPES, "vowels", shallow)
    path = tmp_path / "vowels.json"
    quick = ["--only=vowels", "--quick", "--names=pre_ln,deepnorm"]
    assert main([*quick, f"--output={path}"]) == 0
    assert "vowels, one recipe for all" in capsys.readouterr().out
    found = json.loads(path.read_text())["vowels"]
    assert found["menu"] == "arrangement"
    expected = [(name, depth) for depth in (1, 2) for name in ("pre_ln", "deepnorm")]
    assert [(row["name"], row["depth"]) for row in found["rows"]] == expected
    assert all(row["status"] == "ok" and row["sd"] == 0 for row in found["rows"])
    assert recipe("vowels", depth=24, arrangement="keel").seeds == 3


def test_a_name_of_another_menu_is_told(capsys):
    assert main(["--only=digits", "--over=stream", "--names=adds"]) == 2
    assert "--names: unknown value 'adds'; did you mean 'add'" in capsys.readouterr().err


@pytest.mark.table
def test_depth_measures_every_policy(tmp_path, capsys):
    path = tmp_path / "depth.json"
    assert main(["--only=depth", "--quick", f"--output={path}"]) == 0
    assert "Training step by depth" in capsys.readouterr().out
    rows = json.loads(path.read_text())["depth"]
    found = {(row["depth"], row["remat"].partition(",")[0]) for row in rows}
    assert found == {(d, policy) for d in (2, 4) for policy in ("none", "dots", "full")}
    assert all(row["finite"] and row["compile"] > 0 and row["ratio"] > 0 for row in rows)
    by_policy = {row["remat"]: row["activation_bytes"] for row in rows if row["depth"] == 4}
    assert by_policy["none"] > by_policy["full"] > 0


def test_names_without_a_table_is_a_usage_error(capsys):
    assert main(["--names=layer"]) == 2
    error = capsys.readouterr().err.strip()
    assert "digits" in error
    assert "\n" not in error


@pytest.mark.table
def test_an_interrupted_table_goes_on_and_other_results_are_kept(tmp_path, capsys, monkeypatch):
    path = tmp_path / "digits.json"
    command = ["--only=digits", "--quick", f"--output={path}"]
    assert main([*command, "--names=layer"]) == 0
    first = json.loads(path.read_text())["digits"]["rows"][0]
    trained = []
    monkeypatch.setattr(
        "resnorm_jax.bench.training_table.train_row",
        lambda *a: trained.append(a) or {**first, "steps": 7},
    )
    assert main([*command, "--names=layer,rms"]) == 0
    assert "1 rows are in" in capsys.readouterr().out.replace("\n", " ")
    rows = json.loads(path.read_text())["digits"]["rows"]
    assert len(trained) == 1
    assert rows[0] == first
    assert rows[1]["steps"] == 7
    before = path.read_bytes()
    assert main([*command, "--over=arrangement", "--names=pre_ln"]) == 2
    assert "holds other results" in capsys.readouterr().err
    assert path.read_bytes() == before
