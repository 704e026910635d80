"""Who is measured beside our norms: a row each, with what it needs and how it is called."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.bench import torch_norms, torch_peer
from resnorm_jax.bench.cases import ADDED, LAYER, RMS, NormCase
from resnorm_jax.bench.norm_speed import FLAX, FLAX_TWO_PASS, OURS, TORCH, jax_norms
from resnorm_jax.bench.norm_works import Function, Works, jax_works, unfused_works
from resnorm_jax.bench.torch_norms import torch_works
from resnorm_jax.ops.norms import add_layer_norm, add_rms_norm, layer_norm, rms_norm

OURS_BY_NORM: dict[str, Function] = {
    LAYER: layer_norm,
    RMS: rms_norm,
    ADDED + LAYER: add_layer_norm,
    ADDED + RMS: add_rms_norm,
}


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
      name: of the results' column.
      function: returns the norm of a case, a function of arrays or tensors.
      works: returns what is timed of that function.
      norms: which it has.
      needs: module to what is to be installed for it.
      backends: where there is such a thing.
      slow: where it takes so long that it is measured only when asked for.
    """

    name: str
    function: Callable[[NormCase], Function]
    works: Callable[[Function, Sequence[jax.Array], Any], Works] = jax_works
    norms: tuple[str, ...] = tuple(OURS_BY_NORM)
    needs: tuple[tuple[str, str], ...] = ()
    backends: tuple[str, ...] = ("cpu", "gpu", "tpu")
    slow: tuple[str, ...] = ()

    def missing(self, everything: bool = False) -> str | None:
        """Return why it is not measured here, or None; ``everything``: slow ones too."""
        if jax.default_backend() not in self.backends:
            return f"there for {' and '.join(self.backends)} only"
        if jax.default_backend() in self.slow and not everything:
            return "takes long to compile here; measured with --all"
        for module, package in self.needs:
            if importlib.util.find_spec(module) is None:
                return f"pip install '{package}'"
        return torch_peer.unavailable() if self.works is torch_works else None


def _ours(case: NormCase, **options: Any) -> Function:
    return partial(OURS_BY_NORM[case.norm], **options)


def _of_the_sum(norm: Callable[[NormCase], Function]) -> Callable[[NormCase], Function]:
    """Return the norm of a case; where the addition is part of it, in one program with that."""

    def function(case: NormCase) -> Function:
        plain = norm(case)

        def added(x: Any, branch: Any, *weights: Any) -> Any:
            total = x + branch
            return plain(total, *weights), total

        return added if case.added else plain

    return function


def _of_jax(name: str) -> Callable[[NormCase], Function]:
    return _of_the_sum(lambda case: jax_norms(case.kind, jnp.dtype(case.dtype))[name])


def _standardize(case: NormCase) -> Function:
    def norm(x: Any, scale: Any, bias: Any) -> Any:
        out = jax.nn.standardize(x.astype(jnp.float32), epsilon=1e-6)
        return (out * scale + bias).astype(x.dtype)

    return norm


def _tokamax(implementation: str) -> Callable[[NormCase], Function]:
    def function(case: NormCase) -> Function:
        import tokamax

        options = {"subtract_mean": case.kind == LAYER, "implementation": implementation}
        return lambda x, scale, bias=None: tokamax.layer_norm(x, scale, bias, **options)

    return _of_the_sum(function)


def _transformer_engine(case: NormCase) -> Function:
    from transformer_engine.jax.layernorm import layernorm

    kind = {LAYER: "layernorm", RMS: "rmsnorm"}[case.kind]
    return lambda x, scale, bias=None: layernorm(x, scale, bias, kind, epsilon=1e-6)


PLAIN, TORCHES = (LAYER, RMS), (("torch", "resnorm_jax[torch]"),)
TOKAMAX = (("tokamax", "tokamax"),)
PEERS = (
    Peer(OURS, _ours),
    Peer("ours xla", partial(_ours, implementation="xla"), backends=("gpu", "tpu")),
    Peer(
        "ours unfused",
        lambda case: OURS_BY_NORM[case.kind],
        unfused_works,
        (ADDED + LAYER, ADDED + RMS),
    ),
    Peer(FLAX, _of_jax(FLAX)),
    Peer(FLAX_TWO_PASS, _of_jax(FLAX_TWO_PASS), norms=(LAYER, ADDED + LAYER)),
    Peer("jax.nn", _standardize, norms=(LAYER,)),
    Peer("tokamax xla", _tokamax("xla"), needs=TOKAMAX),
    Peer(
        "tokamax triton",
        _tokamax("triton"),
        needs=(*TOKAMAX, ("jax_triton", "jax-triton")),
        backends=("gpu",),
    ),
    Peer(
        "TransformerEngine",
        _transformer_engine,
        norms=PLAIN,
        needs=(("transformer_engine", "transformer_engine[jax]"),),
        backends=("gpu",),
    ),
    Peer(TORCH, torch_norms.eager, torch_works, needs=TORCHES),
    Peer(
        "torch compiled", torch_norms.compiled, torch_works, needs=TORCHES, slow=("cpu",),
    ),
    Peer(
        "Liger", torch_norms.liger, torch_works, (*PLAIN, ADDED + RMS),
        (*TORCHES, ("liger_kernel", "liger-kernel")), ("gpu",),
    ),
    Peer(
        "QuACK", torch_norms.quack, torch_works, (RMS, ADDED + RMS),
        (*TORCHES, ("quack", "quack-kernels")), ("gpu",),
    ),
)  # fmt: skip
VARIANTS = (OURS, "ours xla", "ours unfused")  # of our own: not peers


def present(
    case: NormCase, everything: bool = False, peers: Sequence[Peer] = PEERS
) -> tuple[list[Peer], dict[str, str]]:
    """Return who can be measured in a case, and name to reason of who cannot."""
    having = [peer for peer in peers if case.norm in peer.norms]
    reasons = {peer.name: peer.missing(everything) for peer in having}
    skipped = {name: why for name, why in reasons.items() if why is not None}
    return [peer for peer in having if peer.name not in skipped], skipped
