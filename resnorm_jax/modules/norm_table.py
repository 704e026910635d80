"""The norms by name: one row each, with its parameters as data and its source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.errors import UserError
from resnorm_jax.modules.norms import Dtype, LayerNorm, RMSNorm
from resnorm_jax.ops.norms import (
    POINTWISE,
    ada_norm,
    detach_norm,
    input_scaled_rms_norm,
    l2_norm,
    layer_norm,
    llama_rms_norm,
    outside_rms_norm,
    pointwise_norm,
    rms_norm,
    scale_norm,
    std_layer_norm,
)
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.registry import Registry

Parameters = Mapping[str, jax.Array]


@dataclass(frozen=True)
class NormParameter:
    """A learned parameter of a norm.

    Attributes:
      name: its name in the parameter tree. Weight decay goes by names: see
        `resnorm_jax.training.optimizers.DECAY`.
      init: initial value of every element, or a function of the width that gives it.
      per_feature: whether it has the shape ``[D]``; else it is a scalar.
    """

    name: str
    init: float | Callable[[int], float]
    per_feature: bool = True


@dataclass(frozen=True)
class NormSpec:
    """A norm by name: one row of the norms' table.

    A row has either a ``function`` with its ``parameters``, or a ``module``.

    Attributes:
      name: the name.
      equation: one line, for people.
      source: paper with equation, or the official code.
      function: ``(x [..., D], parameters by name) -> y`` of ``x``'s shape and dtype; keyword
        ``epsilon`` if the norm has one.
      parameters: what the function is given.
      module: makes the Flax module from ``epsilon``, ``dtype``, ``param_dtype``, ``name`` and,
        where a slot fixes it, ``scale_init``.
      epsilon: default epsilon; None for a norm without.
      scale_offset: what is added to ``scale`` to give the factor: 1 for zero-centred norms.
      used_by: models that use it.
    """

    name: str
    equation: str
    source: str
    function: Callable[..., jax.Array] | None = None
    parameters: tuple[NormParameter, ...] = ()
    module: Callable[..., nn.Module] | None = None
    epsilon: float | None = 1e-6
    scale_offset: float = 0.0
    used_by: str = ""
    aliases: tuple[str, ...] = ()

    def build(
        self,
        *,
        name: str,
        epsilon: float | None = None,
        scale_init: float | None = None,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
    ) -> nn.Module:
        """Make the module for one slot; None leaves the norm's own default.

        Raises:
          UserError: if a slot fixes the first factor, or an epsilon is given, and the norm has none.
        """
        if epsilon is not None and self.epsilon is None:
            raise UserError(f"config.model.norm_epsilon: norm {self.name!r} has no epsilon")
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "name": name}
        if self.epsilon is not None:
            options["epsilon"] = self.epsilon if epsilon is None else epsilon
        if scale_init is not None:
            first = scale_init - self.scale_offset
            options["scale_init"] = nn.initializers.constant(first)
            if self.module is None and "scale" not in [p.name for p in self.parameters]:
                raise UserError(
                    f"config.model.norm: {self.name!r} has no scale, which the arrangement sets to "
                    f"{scale_init} at first; choose a norm with a scale"
                )
        if self.module is not None:
            return self.module(**options)
        return FunctionNorm(self, **options)


class FunctionNorm(nn.Module):
    """A norm made of a row's function and parameters.

    Attributes:
      spec: the row.
      epsilon: passed to the function; None if it takes none.
      scale_init: in place of the row's for the parameter ``scale``.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
    """

    spec: NormSpec
    epsilon: float | None = None
    scale_init: Callable[..., jax.Array] | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize ``x [..., D]`` over its last axis."""
        assert self.spec.function is not None
        width = x.shape[-1]
        values = {p.name: self._create(p, width) for p in self.spec.parameters}
        options = {} if self.epsilon is None else {"epsilon": self.epsilon}
        if self.dtype is None or x.dtype == jnp.dtype(self.dtype):
            return self.spec.function(x, values, **options)
        # In float32 up to the one cast at the end.
        return self.spec.function(x.astype(statistics_dtype(x)), values, **options).astype(
            self.dtype
        )

    def _create(self, parameter: NormParameter, width: int) -> jax.Array:
        first = parameter.init(width) if callable(parameter.init) else parameter.init
        init = nn.initializers.constant(first)
        if parameter.name == "scale" and self.scale_init is not None:
            init = self.scale_init
        shape = (width,) if parameter.per_feature else ()
        return self.param(parameter.name, init, shape, self.param_dtype)


SCALE = NormParameter("scale", 1.0)
BIAS = NormParameter("bias", 0.0)
ALPHA = NormParameter("alpha", 0.5, per_feature=False)
SHIFT = NormParameter("shift", 0.0, per_feature=False)
LAYER = "Ba et al. 2016 (arXiv 1607.06450), eq. 3-4"
RMS = "Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4"
DERF = "2512.10938; zlab-princeton/Derf"


def _point(x: jax.Array, p: Parameters, *, function: str) -> jax.Array:
    return pointwise_norm(x, p["alpha"], p.get("shift"), p["scale"], p["bias"], function=function)


def _pointwise(name: str, function: str) -> NormSpec:
    return NormSpec(
        name,
        f"g {function}(a x + s) + b; a 0.5, s 0 at first",
        f"function of the comparison in arXiv {DERF} (ViT/other_functions)",
        partial(_point, function=function),
        (ALPHA, SHIFT, SCALE, BIAS),
        epsilon=None,
    )


_ZERO_CENTRED: dict[str, Any] = {"scale_init": nn.initializers.zeros, "scale_offset": 1.0}
ROWS: tuple[NormSpec, ...] = (
    NormSpec(
        "layer",
        "(x - mean(x)) / sqrt(var(x) + eps) * g + b",
        LAYER,
        module=LayerNorm,
        used_by="BERT, GPT-2, ViT, Whisper",
    ),
    NormSpec(
        "layer_no_bias",
        "(x - mean(x)) / sqrt(var(x) + eps) * g",
        LAYER,
        module=partial(LayerNorm, use_bias=False),
        used_by="Cohere Command",
    ),
    NormSpec(
        "layer_plain",
        "(x - mean(x)) / sqrt(var(x) + eps)",
        "Xu et al. 2019 (arXiv 1911.07013), LayerNorm-simple",
        lambda x, p, *, epsilon: layer_norm(x, epsilon=epsilon),
        used_by="OLMo 1, DiT",
    ),
    NormSpec(
        "layer_zero_centred",
        "(x - mean(x)) / sqrt(var(x) + eps) * (1 + g) + b; g 0 at first",
        f"{LAYER}; LayerNorm1P of NVIDIA/NeMo",
        module=lambda **options: LayerNorm(**{**_ZERO_CENTRED, **options}),
        scale_offset=1.0,
        used_by="Nemotron",
    ),
    NormSpec(
        "layer_std",
        "(x - mean(x)) / (std(x) + eps) * g + b, unbiased std",
        "common tutorial code; see resnorm_jax.std_layer_norm",
        lambda x, p, *, epsilon: std_layer_norm(x, p["scale"], p["bias"], epsilon=epsilon),
        (SCALE, BIAS),
    ),
    NormSpec(
        "rms",
        "x / sqrt(mean(x^2) + eps) * g",
        RMS,
        module=RMSNorm,
        used_by="Llama, Mistral, Qwen, T5",
    ),
    NormSpec(
        "rms_plain",
        "x / sqrt(mean(x^2) + eps)",
        "Qin et al. 2023 (arXiv 2307.14995), SimpleRMSNorm",
        lambda x, p, *, epsilon: rms_norm(x, epsilon=epsilon),
        used_by="TransNormerLLM, Llama 4 (queries and keys)",
    ),
    NormSpec(
        "rms_zero_centred",
        "x / sqrt(mean(x^2) + eps) * (1 + g); g 0 at first",
        f"{RMS}; GemmaRMSNorm of huggingface/transformers",
        module=lambda **options: RMSNorm(**{**_ZERO_CENTRED, **options}),
        scale_offset=1.0,
        used_by="Gemma 1-3, Qwen3-Next",
    ),
    NormSpec(
        "rms_outside",
        "x / (rms(x) + eps) * g",
        f"{RMS}; bzhangGo/rmsnorm",
        lambda x, p, *, epsilon: outside_rms_norm(x, p["scale"], epsilon=epsilon),
        (SCALE,),
        epsilon=1e-8,
    ),
    NormSpec(
        "rms_cast_first",
        "cast(x / sqrt(mean(x^2) + eps)) * g",
        "LlamaRMSNorm of huggingface/transformers",
        lambda x, p, *, epsilon: llama_rms_norm(x, p["scale"], epsilon=epsilon),
        (SCALE,),
        used_by="Llama (huggingface/transformers)",
    ),
    NormSpec(
        "rms_partial",
        "x / (rms(first 6.25 % of x) + eps) * g",
        "Zhang and Sennrich 2019 (arXiv 1910.07467); bzhangGo/rmsnorm",
        lambda x, p, *, epsilon: outside_rms_norm(x, p["scale"], epsilon=epsilon, fraction=0.0625),
        (SCALE,),
        epsilon=1e-8,
    ),
    NormSpec(
        "rms_input_scaled",
        "z / sqrt(mean(z^2) + eps), z = (1 + g) x; g 0 at first",
        "Muse Spark of huggingface/transformers",
        lambda x, p, *, epsilon: input_scaled_rms_norm(x, p["scale"], epsilon=epsilon),
        (NormParameter("scale", 0.0),),
        scale_offset=1.0,
        used_by="Muse Spark",
    ),
    NormSpec(
        "scale",
        "g x / max(|x|, eps), scalar g, sqrt(D) at first",
        "Nguyen and Salazar 2019 (arXiv 1910.05895); tnq177/transformers_without_tears",
        lambda x, p, *, epsilon: scale_norm(x, p["scale"], epsilon=epsilon),
        (NormParameter("scale", lambda width: width**0.5, per_feature=False),),
        epsilon=1e-5,
    ),
    NormSpec(
        "l2",
        "x / sqrt(sum(x^2) + eps)",
        "Loshchilov et al. 2024 (arXiv 2410.01131), there without eps",
        lambda x, p, *, epsilon: l2_norm(x, epsilon=epsilon),
        epsilon=1e-12,
        used_by="nGPT",
    ),
    NormSpec(
        "ada",
        "(1 - sg(0.1 z)) z, z = (x - mean(x)) / (std(x) + eps)",
        "Xu et al. 2019 (arXiv 1911.07013); lancopku/AdaNorm",
        lambda x, p, *, epsilon: ada_norm(x, epsilon=epsilon),
        epsilon=1e-5,
    ),
    NormSpec(
        "detach",
        "(x - sg(mean(x))) / (sg(std(x)) + eps)",
        "Xu et al. 2019 (arXiv 1911.07013); lancopku/AdaNorm",
        lambda x, p, *, epsilon: detach_norm(x, epsilon=epsilon),
        epsilon=1e-5,
    ),
    NormSpec(
        "dyt",
        "g tanh(a x) + b; a 0.5 at first",
        "Zhu et al. 2025 (arXiv 2503.10622); jiachenzhu/DyT",
        partial(_point, function="tanh"),
        (ALPHA, SCALE, BIAS),
        epsilon=None,
    ),
    NormSpec(
        "derf",
        "g erf(a x + s) + b; a 0.5, s 0 at first",
        f"arXiv {DERF} (ViT/dynamic_erf.py)",
        partial(_point, function="erf"),
        (ALPHA, SHIFT, SCALE, BIAS),
        epsilon=None,
    ),
    *(_pointwise(name, name) for name in POINTWISE if name not in ("tanh", "erf")),
)
NORMS: Registry[NormSpec] = Registry("norm", ROWS)
