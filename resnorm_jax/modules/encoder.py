"""The Transformer encoder: one compiled layer body, scanned over any depth."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arrangements import DEFAULT, Arrangement, Place
from resnorm_jax.arrangements import get as get_arrangement
from resnorm_jax.errors import check_choice
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.modules.constants import (
    SUBLAYER_ROLES,
    Constants,
    layer_constants,
    varying_constants,
)
from resnorm_jax.modules.feed_forward import FeedForward
from resnorm_jax.modules.initializers import branch_initializers
from resnorm_jax.modules.norm_table import NormSpec
from resnorm_jax.modules.residual_block import Named, ResidualBlock, build_norm, declare
from resnorm_jax.ops.masks import attention_mask as join_masks
from resnorm_jax.ops.masks import zero_padding
from resnorm_jax.ops.streams import STREAMS, Carry

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class TransformerEncoderLayer(nn.Module):
    """Self-attention and feed-forward, each a residual block of one arrangement.

    Attributes:
      heads: attention heads; must divide the width.
      mlp_width: width inside the feed-forward network; None for 4 times the width.
      arrangement: name or row of `resnorm_jax.arrangements`.
      norm: name or row of `resnorm_jax.norms`.
      norm_epsilon: None for the norm's own (torch's layers use 1e-5).
      activation: ``"relu"``, ``"gelu"`` (exact) or ``"swiglu"``.
      dropout: dropout of both branches' outputs and inside the feed-forward network.
      attention_dropout: dropout of the attention weights.
      drop_path: stochastic depth's drop rate at the last layer; ``l / N`` of it at layer l.
      rotary: whether positions enter by rotating queries and keys.
      use_bias: whether projections have a bias.
      place: which layer of how many this is, for constants that depend on depth.
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.

    Equal to `torch.nn.TransformerEncoderLayer` with ``norm_first=False`` for ``post_ln`` and
    ``norm_first=True`` for ``pre_ln``.

    >>> import jax, jax.numpy as jnp
    >>> layer = TransformerEncoderLayer(heads=2)
    >>> x = jnp.ones((1, 5, 8))
    >>> layer.apply(layer.init(jax.random.key(0), x), x).shape
    (1, 5, 8)
    """

    heads: int
    mlp_width: int | None = None
    arrangement: str | Arrangement = DEFAULT
    norm: str | NormSpec = "layer"
    norm_epsilon: float | None = None
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    rotary: bool = False
    use_bias: bool = True
    place: Place = Place()
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        attention_mask: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Run the layer on ``x [B, L, D]``; masks as in `TransformerEncoder`."""
        stream = STREAMS.get(get_arrangement(self.arrangement).stream)
        joined = join_masks(mask, attention_mask)
        carry = stream.open(zero_padding(x, mask))
        carry, _ = self.update(carry, joined, {}, deterministic=deterministic)
        return stream.close(carry)

    @nn.compact
    def update(
        self,
        carry: Carry,
        mask: jax.Array | None,
        varying: Constants,
        *,
        deterministic: bool = True,
    ) -> tuple[Carry, Named]:
        """Read from, and write to, a stream.

        Args:
          carry: the stream's carry.
          mask: attention mask that broadcasts to ``[B, H, L, L]``, or None.
          varying: constants of this place, in place of those that ``place`` gives.
          deterministic: True turns dropout off.

        Returns:
          The new carry, and every intermediate by name.
        """
        arrangement = get_arrangement(self.arrangement)
        stream = STREAMS.get(arrangement.stream)
        constants = {**layer_constants(arrangement, self.place, self.drop_path), **varying}
        width = stream.read(carry, {}).shape[-1]
        shared = {p.name: declare(self, p, width) for p in stream.parameters if p.scope == "layer"}
        named: Named = {}
        for sublayer, branch in self._branches(arrangement, constants, width).items():
            args = (mask,) if sublayer == "attention" else ()
            carry, seen = self._block(sublayer, branch).update(
                carry,
                *args,
                skip_scale=constants[f"{sublayer}/skip_scale"],
                branch_scale=constants[f"{sublayer}/branch_scale"],
                drop_path_rate=constants["drop_path"],
                shared=shared,
                deterministic=deterministic,
            )
            named |= {f"{sublayer}/{key}": value for key, value in seen.items()}
            named[f"{sublayer}/stream"] = stream.close(carry)
        return carry, named

    def _branches(
        self, arrangement: Arrangement, constants: Constants, width: int
    ) -> dict[str, nn.Module]:
        # parent=None: the residual block adopts its branch, so parameters lie under the block.
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype, "parent": None}
        gains = {key.split("/gain/")[1]: g for key, g in constants.items() if "/gain/" in key}
        inits = branch_initializers(arrangement.init, gains)
        return {
            "attention": MultiHeadAttention(
                self.heads, self.attention_dropout, self.rotary, self.use_bias, inits, **dtypes
            ),
            "feed_forward": FeedForward(
                self.mlp_width or 4 * width,
                self.activation,
                self.dropout,
                self.use_bias,
                inits,
                **dtypes,
            ),
        }

    def _block(self, name: str, branch: nn.Module) -> ResidualBlock:
        return ResidualBlock(
            branch,
            self.arrangement,
            self.norm,
            self.norm_epsilon,
            dropout=self.dropout,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )


class TransformerEncoder(nn.Module):
    """A stack of `TransformerEncoderLayer`, then the arrangement's final norm if it has one.

    Parameters of all layers are stacked along a first axis of size ``depth`` under ``layers``,
    whether the loop is scanned or unrolled, so that one checkpoint serves both.

    Attributes:
      depth: N, number of layers.
      heads: attention heads; must divide the width of ``x``.
      mlp_width: see `TransformerEncoderLayer`, as all fields down to ``use_bias``.
      unroll: layers unrolled in each step of the scan; ``depth`` unrolls the loop altogether.
      remat: what the backward pass computes again: ``"none"``, ``"full"`` (all of a layer) or
        ``"dots"`` (all but the matrix products).
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.

    >>> import jax, jax.numpy as jnp
    >>> encoder = TransformerEncoder(depth=3, heads=2, arrangement="deepnorm")
    >>> x = jnp.ones((1, 5, 8))
    >>> variables = encoder.init(jax.random.key(0), x)
    >>> variables["params"]["layers"]["feed_forward"]["branch"]["fc1"]["kernel"].shape
    (3, 8, 32)
    """

    depth: int
    heads: int
    mlp_width: int | None = None
    arrangement: str | Arrangement = DEFAULT
    norm: str | NormSpec = "layer"
    norm_epsilon: float | None = None
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    rotary: bool = False
    use_bias: bool = True
    unroll: int = 1
    remat: str = "none"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        attention_mask: jax.Array | None = None,
        deterministic: bool = True,
        return_intermediates: bool = False,
    ) -> Any:
        """Encode a batch of sequences.

        Args:
          x: ``[B, L, D]``.
          mask: ``[B, L]``, True where a position is valid. What stands elsewhere changes nothing.
          attention_mask: ``[L, L]``, ``[B, L, L]`` or ``[B, H, L, L]``, True where a query (second
            last axis) may look at a key.
          deterministic: True turns dropout off; False needs an rng named ``dropout``.
          return_intermediates: also return every named intermediate.

        Returns:
          ``[B, L, D]``; with ``return_intermediates`` the pair of that and a dictionary of
          ``[N, B, L, D]`` arrays: ``stream_in`` and, for attention and feed_forward, ``branch_in``,
          ``branch_out`` and ``stream`` (after the addition).
        """
        arrangement = get_arrangement(self.arrangement)
        stream = STREAMS.get(arrangement.stream)
        joined = join_masks(mask, attention_mask)
        layer = self._layer()
        step = _layer_step(joined, deterministic, return_intermediates, stream.close)
        policy = REMAT[check_choice("remat", self.remat, REMAT)]
        if policy is not None:
            step = nn.remat(step, policy=policy, prevent_cse=False)
        scan = nn.scan(
            step,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.depth,
            unroll=min(self.unroll, self.depth),
        )
        varying = varying_constants(arrangement, self.depth, self.drop_path)
        carry, named = scan(layer, stream.open(zero_padding(x, mask)), varying)
        out = stream.close(carry)
        if arrangement.final_norm is not None:
            out = build_norm(self, "final_norm", arrangement.final_norm)(out)
        return (out, named) if return_intermediates else out

    def _layer(self) -> TransformerEncoderLayer:
        shared = [f for f in TransformerEncoderLayer.__dataclass_fields__ if f in _SHARED]
        return TransformerEncoderLayer(
            **{f: getattr(self, f) for f in shared},
            place=Place(self.depth, 1, 1, len(SUBLAYER_ROLES) * self.depth),
            name="layers",
        )


def layer_parameters(params: Any, layer: int) -> Any:
    """Return one layer's parameters from an encoder's: index ``layer`` (from 0) of the stack."""
    return jax.tree.map(lambda p: p[layer], params["layers"])


def _layer_step(mask, deterministic, keep, close):
    def step(layer, carry, varying):
        new, named = layer.update(carry, mask, varying, deterministic=deterministic)
        return new, ({"stream_in": close(carry), **named} if keep else None)

    return step


_SHARED = set(TransformerEncoder.__dataclass_fields__) - {"parent", "name"}
