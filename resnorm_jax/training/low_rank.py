"""Low-rank matrices beside the kernels of a frozen model, trained in their place: LoRA.

They stand in the parameters under ``lora``, each at its kernel's own path, and are added to the kernels
inside the step: ``W + (alpha / r) A B``. The modules know nothing of them.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnorm_jax.config_fields import OptimizerConfig
from resnorm_jax.errors import UserError, check_choice
from resnorm_jax.ops.keys import implementation
from resnorm_jax.training.parts import LOW_RANK

LOW_RANK_KEY = 2**31 - 2  # folded into the root key, beside that of the model's own init
# Names of kernels that may have one, and how many of their axes are the input's.
KERNELS = {"query": 1, "key": 1, "value": 1, "out": 2, "fc1": 1, "gate": 1, "fc2": 1}
_STACK = re.compile(r"(^|/)layers(_\d+)?/")


@dataclass(frozen=True)
class LowRank:
    """What is added to the kernels of a model.

    Attributes:
      rank: r, columns of A and rows of B.
      factor: of the product, ``alpha / r``.
      kernels: names of `KERNELS`.

    Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1: A is Gaussian, here of variance 1 over the
    number of inputs, and B is 0, so that the first step computes what the base model does.
    """

    rank: int
    factor: float
    kernels: tuple[str, ...]

    def added(self, variables: Mapping[str, Any], seed: int | jax.Array) -> dict[str, Any]:
        """Return variables with the matrices of a seed in them.

        Raises:
          UserError: if the model has no kernel of one of the names, or none so large as the rank.
        """
        key = jax.random.fold_in(jax.random.key(seed, impl=implementation()), LOW_RANK_KEY)
        base, new = flatten_dict(variables["params"], sep="/"), {}
        for name in self.kernels:
            found = [p for p in base if re.search(rf"(^|/){name}/kernel$", p) and _STACK.search(p)]
            if not found:
                raise UserError(f"config.optimizer.lora_on: {name!r}: no layer has such a kernel")
            for path in found:
                layers, inputs, outputs = _sizes(base[path], name)
                self._check(path, min(inputs, outputs))
                key, own = jax.random.split(key)
                shape, dtype = (layers, inputs, self.rank), base[path].dtype
                new[f"{path}/lora_a"] = jax.random.normal(own, shape, dtype) / math.sqrt(inputs)
                new[f"{path}/lora_b"] = jnp.zeros((layers, self.rank, outputs), dtype)
        params = {**variables["params"], LOW_RANK: unflatten_dict(new, sep="/")}
        return {**variables, "params": params}

    def merged(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's own variables, with what was learned added to the kernels."""
        params = dict(variables["params"])
        if LOW_RANK not in params:
            return dict(variables)
        pairs = flatten_dict(params.pop(LOW_RANK), sep="/")
        base = flatten_dict(params, sep="/")
        for path in {p.rpartition("/")[0] for p in pairs}:
            a, b = pairs[f"{path}/lora_a"], pairs[f"{path}/lora_b"]
            more = self.factor * jnp.einsum("nir,nro->nio", a, b, precision="highest")
            base[path] = base[path] + more.reshape(base[path].shape).astype(base[path].dtype)
        return {**variables, "params": unflatten_dict(base, sep="/")}

    def applied(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """Return a model's ``apply`` that merges first."""

        def merging(variables: Mapping[str, Any], *args: Any, **how: Any) -> Any:
            return apply(self.merged(variables), *args, **how)

        return merging

    def _check(self, path: str, most: int) -> None:
        if self.rank > most:
            raise UserError(
                f"config.optimizer.lora_rank: {self.rank}: {path} has at most rank {most}; "
                f"give {most} or less"
            )


def low_rank_of(config: OptimizerConfig) -> LowRank | None:
    """Return what an optimizer's config adds to the kernels, or None.

    Raises:
      UserError: for a kernel that is not known, or a field that is not read.
    """
    default = OptimizerConfig.lora_on
    if config.lora_rank is None:
        for name, unset in (("lora_alpha", None), ("lora_on", default)):
            if getattr(config, name) != unset:
                raise UserError(
                    f"config.optimizer.{name}: not read without low-rank matrices; "
                    "set optimizer.lora_rank=8"
                )
        return None
    alpha = config.lora_rank if config.lora_alpha is None else config.lora_alpha
    names = [n.strip() for n in re.split("[,+]", config.lora_on)]
    for name in names:
        check_choice("config.optimizer.lora_on", name, KERNELS)
    return LowRank(config.lora_rank, alpha / config.lora_rank, tuple(dict.fromkeys(names)))


def _sizes(kernel: Any, name: str) -> tuple[int, int, int]:
    """Return how many layers, inputs and outputs a stack's kernel has."""
    inner = 1 + KERNELS[name]
    return (
        kernel.shape[0],
        int(np.prod(kernel.shape[1:inner])),
        int(np.prod(kernel.shape[inner:])),
    )
