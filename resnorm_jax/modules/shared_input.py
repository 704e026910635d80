"""Dense layers that read the same array: over devices the gradient of that is summed once."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

from resnorm_jax.ops.layout import Inside, inside


def projected(layers: Sequence[Any], x: jax.Array) -> list[jax.Array]:
    """Return what each of some dense layers makes of ``x [..., D]``.

    Where the inside of branches is shared out over devices, each device has some features of a layer,
    and of the gradient of ``x`` what comes of these. XLA sums that over the devices for each layer
    apart. Here the devices add up what comes of all layers first: Megatron's operator f (Shoeybi et al.
    2019, arXiv 1909.08053, section 3), one all-reduce in place of one for each layer.

    Args:
      layers: `flax.linen.Dense` or `DenseGeneral`, inside of the module that calls this; their first
        axis of features is the one that is cut.
      x: what they read.
    """
    over = inside()
    if over is None or any(not _divides(layer, over) for layer in layers):
        return [layer(x) for layer in layers]
    known = [dict(layer.variables["params"]) for layer in layers]
    own = [
        layer.clone(parent=None, name=None, features=_share(layer.features, over.size))
        for layer in layers
    ]

    def on_device(x: jax.Array, known: Sequence[Mapping[str, Any]]) -> list[jax.Array]:
        each = zip(own, known, strict=True)
        return [layer.apply({"params": parameters}, x) for layer, parameters in each]

    cut = {"kernel": PartitionSpec(None, over.axis), "bias": PartitionSpec(over.axis)}
    return jax.shard_map(
        on_device,
        in_specs=(PartitionSpec(), [{name: cut[name] for name in each} for each in known]),
        out_specs=PartitionSpec(*[None] * (x.ndim - 1), over.axis),
        axis_names={over.axis},
        check_vma=False,
    )(x, known)


def _divides(layer: nn.Module, over: Inside) -> bool:
    """Return whether the devices have shares of a layer; while it is made, it has no parameters."""
    if layer.is_initializing():
        return False
    return _first(layer.features) % over.size == 0


def _first(features: Any) -> int:
    return features if isinstance(features, int) else features[0]


def _share(features: Any, size: int) -> Any:
    first = _first(features) // size
    return first if isinstance(features, int) else (first, *features[1:])
