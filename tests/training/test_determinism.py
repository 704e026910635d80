"""The same bits each time: what a run says of it, and that the compiler is told."""

from collections import Counter

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny

from resnorm_jax.training import determinism as module
from resnorm_jax.training.determinism import OPTIONS, determinism
from resnorm_jax.training.initial import init_variables


def test_a_processor_and_a_tpu_need_no_options():
    for platform in ("cpu", "tpu"):
        for wanted in (True, False):
            found = determinism(wanted, platform)
            assert (found.told, dict(found.options)) == ("yes", {})


def test_a_gpu_is_told_and_this_xla_knows_the_options():
    found = determinism(True, "gpu")
    assert found.told == "yes"
    assert found.options == OPTIONS["gpu"]
    assert set(found.options) == {
        "xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops"
    }  # fmt: skip


@pytest.mark.parametrize("value", ["false", "0", "False"])
@pytest.mark.parametrize("name", OPTIONS["gpu"])
def test_a_flag_of_the_user_against_it_stands_and_is_told(name, value, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=b --{name}={value}")
    found = determinism(True, "gpu")
    assert found.told == f"no: XLA_FLAGS has --{name}={value}"
    assert not found.options


def test_what_cannot_be_is_told():
    assert determinism(False, "gpu").told == "no: train.deterministic is False"
    assert not determinism(False, "gpu").options


def test_an_xla_without_the_options_ends_no_run(monkeypatch):
    monkeypatch.setitem(module.OPTIONS, "gpu", {"xla_gpu_of_another_version": True})
    found = determinism(True, "gpu")
    assert found.told.startswith("no: XLA refuses it: ")
    assert "xla_gpu_of_another_version" in found.told
    assert not found.options


def test_options_reach_the_program_that_is_called():
    # One that XLA has for every platform: without the pass fewer operations are joined.
    plain = tiny.compiled(*tiny.linear()[:3]).count(" fusion(")
    parallel, state, batch, _ = tiny.linear(compiler_options={"xla_disable_hlo_passes": "fusion"})
    before = fusions(parallel)
    parallel.train(state, batch)
    [told] = (fusions(parallel) - before).elements()
    assert told > plain > 0


def fusions(parallel) -> Counter:
    """Joined operations of each compiled step that there is: how often which number."""
    programs = parallel.devices[0].client.live_executables()
    modules = [program.hlo_modules()[0] for program in programs]
    steps = [module.to_string() for module in modules if "over_devices" in module.name]
    return Counter(text.count(" fusion(") for text in steps)


class Line(nn.Module):
    """The smallest model."""

    @nn.compact
    def __call__(self, x, mask=None, deterministic=True):
        return x.sum() * self.param("scale", nn.initializers.normal(), ())


def test_options_are_no_hindrance_where_shapes_are_asked_for(monkeypatch):
    monkeypatch.setitem(module.OPTIONS, "cpu", {"xla_disable_hlo_passes": "fusion"})
    data = tiny.dataset()
    shapes = jax.eval_shape(lambda: init_variables(Line(), data, (5, 8), 0))
    found = init_variables(Line(), data, (5, 8), 0)
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, shapes)
