"""Every kind of data goes through a whole run: images, text, tokens; and half precision."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console
from tiers import every

from resnorm_jax.config import experiment, from_dict
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.saved_run import load_trained

SMALL = {"width": 8, "depth": 1, "heads": 2}
LISTOPS = {"source": "listops", "min_length": 5, "max_length": 30, "max_depth": 3, "max_args": 3,
           "train": 60, "valid": 16, "test": 20}  # fmt: skip
CASES = {
    "images": ({"source": "digits", "view": "image"}, {"pooling": "cls", "patch": 4}, {}),
    "patches": ({"source": "digits"}, {"stride": 2, "kernel": 3, "pooling": "statistics"}, {}),
    "text": ({"source": "sample_text"}, {"activation": "swiglu", "norm": "rms"}, {}),
    "tokens": (LISTOPS, {"positions": "rotary", "arrangement": "rezero"}, {"select": "best"}),
    "bfloat16": ({"source": "digits"}, {"positions": "sinusoidal"}, {"precision": "bfloat16"}),
}


@pytest.mark.parametrize("case", every(CASES))
def test_a_whole_run(case, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, model, train = CASES[case]
    config = from_dict(
        experiment(
            data=data,
            model={**SMALL, **model},
            train={"batch_size": 8, "steps": 4, "log_every": 2, **train},
            devices=2,
        ).to_dict()
    )
    report = run_experiment(config, tmp_path / "run", Console(quiet=True))
    assert 0 <= report["accuracy"] <= 1
    assert report["rows"] == sum(map(sum, report["seeds"][0]["confusion"]))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert all(np.isfinite(r["loss"]) for r in rows)
    assert ("root operator" in report["baselines"]) == (case == "tokens")
    trained = load_trained(tmp_path / "run")
    assert {p.dtype for p in jax.tree.leaves(trained.params)} == {np.dtype("float32")}
    assert trained.kind == train.get("select", "last")


def test_half_precision_computes_in_half_precision():
    from resnorm_jax.build import build_model

    config = from_dict(
        experiment(
            data={"source": "digits"}, model=SMALL, train={"precision": "bfloat16"}
        ).to_dict()
    )
    meta = {
        "kind": "features",
        "classes": ["a", "b"],
        "vocabulary": [],
        "max_length": 8,
        "shape": [8],
    }
    model = build_model(config, meta)
    x = np.ones((2, 8, 8), np.float32)
    run = partial(model.init_with_output, return_intermediates=True)
    (logits, named), _ = jax.eval_shape(run, jax.random.key(0), x)
    assert logits.dtype == np.float32
    assert {str(v.dtype) for k, v in named.items() if k != "pooled"} == {"bfloat16"}
