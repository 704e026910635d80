"""Multi-head attention."""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_axes, check_fits, check_lengths, check_real
from resnorm_jax.modules.fields import Context, NumericFields, apply_norm
from resnorm_jax.modules.initializers import Initializers, branch_initializers
from resnorm_jax.modules.shared_input import projected
from resnorm_jax.ops.attention import Implementation, attention_weights, masked_attention, rotate
from resnorm_jax.ops.attention.masked import for_each_head
from resnorm_jax.ops.masks import join_lengths, within_window
from resnorm_jax.ops.projection import rows_dot_general
from resnorm_jax.planning import AttentionPlan
from resnorm_jax.planning.form import ATTENTION_ROLES, PLAIN_FORM, AttentionForm


class MultiHeadAttention(NumericFields):
    """Multi-head attention, with flax.linen's parameter names and shapes.

    Attributes:
      heads: number of heads; must divide the width unless the form gives that of a head.
      dropout: dropout of the attention weights.
      rotary: whether positions enter by rotating queries and keys.
      use_bias: whether projections have a bias, or the roles whose projections do.
      kernel_inits: initializer of each role (query, key, value, out); None for Xavier uniform.
      implementation: as in `resnorm_jax.masked_attention`.
      plan: norms and scales that an arrangement puts inside: of queries and keys, values, heads.
      form: heads of keys and values, width of a head, scale, relative positions.
      axis_name: mapped axis over which the batch is spread, for norms across rows.
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.2.
    """

    heads: int
    dropout: float = 0.0
    rotary: bool = False
    use_bias: bool | Collection[str] = True
    kernel_inits: Initializers | None = None
    implementation: Implementation | None = None
    plan: AttentionPlan = AttentionPlan()
    form: AttentionForm = PLAIN_FORM

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        lengths: jax.Array | None = None,
        source: jax.Array | None = None,
        first_values: jax.Array | None = None,
        first: bool | jax.Array = False,
        window: int | jax.Array | None = None,
        rotary_base: float | jax.Array = 10_000.0,
        relative: jax.Array | None = None,
        context: Context | None = None,
        deterministic: bool = True,
        return_weights: bool = False,
    ) -> Any:
        """Attend from ``x [B, T, D]`` to ``source [B, S, D]``, or to ``x`` itself.

        Args:
          x: what asks.
          mask: broadcasts to ``[B, H, T, S]``, True where a query may look at a key.
          lengths: ``[B]``: a row's first so many keys may be looked at; with a mask both hold. Without
            one NVIDIA's kernel can serve; see `resnorm_jax.masked_attention`.
          source: what is looked at; None for ``x``.
          first_values: ``[B, S, G, K]``, G the heads of keys and values, the first layer's values, for
            arrangements that mix them in.
          first: whether this is that layer.
          window: how many positions a query sees to either side; None for all.
          rotary_base: the longest wave of rotary positions is ``2 pi`` times as long.
          relative: ``[T + S - 1, ...]``, the table of relative positions at each distance, or
            ``[T, S, H]`` at each pair, for a form that has them: see
            `resnorm_jax.ops.attention.relative`.
          context: what the norms inside may ask for.
          deterministic: True turns dropout off.
          return_weights: also return the weights ``[B, H, T, S]``, computed again, in float32 at least
            and without dropout: what multiplies the values before heads are scaled or shaped.

        Returns:
          ``[B, T, D]``; with ``first_values`` or weights a tuple of that and them, in this order.

        Raises:
          TypeError: if ``x`` or ``source`` is complex, or the mask one of numbers.
          ValueError: if the heads do not divide the width, or a shape does not fit.
        """
        mask = as_mask("mask", mask)
        self._check(x, mask, lengths, source, first_values)
        width = x.shape[-1]
        if width % self.heads and self.form.head_width is None:
            raise ValueError(f"heads={self.heads} does not divide width={width}")
        looked_at = x if source is None else source
        project = self._projections(width)
        query, *others = (project[role] for role in ("query", "key", "value"))
        q_BxTxHxK, k_BxSxHxK, v_BxSxHxK = (
            projected([query, *others], x)
            if source is None
            else projected([query], x) + projected(others, source)
        )
        told = context or {}
        q_BxTxHxK, k_BxSxHxK = self._query_key(q_BxTxHxK, k_BxSxHxK, told)
        v_BxSxHxK = apply_norm(self.plan.value_norm, v_BxSxHxK, self.numerics, told)
        if self.rotary:
            q_BxTxHxK = rotate(q_BxTxHxK, jnp.arange(x.shape[1]), rotary_base)
            k_BxSxHxK = rotate(k_BxSxHxK, jnp.arange(looked_at.shape[1]), rotary_base)
        if first_values is not None:
            share = self.plan.value_residual or 0.0
            first_values = jnp.where(first, v_BxSxHxK, first_values)
            mixed = (1 - share) * v_BxSxHxK + share * first_values
            v_BxSxHxK = mixed.astype(v_BxSxHxK.dtype)
        mask = within_window(mask, x.shape[1], looked_at.shape[1], window)
        scoring: dict[str, Any] = {
            "scale": self.form.factor(q_BxTxHxK.shape[-1]),
            "bias": self._bias(q_BxTxHxK, k_BxSxHxK, relative, project),
        }
        active = self.dropout > 0 and not deterministic
        y_BxTxHxK = masked_attention(
            q_BxTxHxK, k_BxSxHxK, v_BxSxHxK, mask,
            lengths=lengths,
            dropout_rate=self.dropout,
            dropout_key=self.make_rng("dropout") if active else None,
            implementation=self.implementation,
            **scoring,
        )  # fmt: skip
        if self.plan.shaped and source is None:  # positions of another sequence are not its own
            y_BxTxHxK = self._shaped(y_BxTxHxK, v_BxSxHxK, mask, lengths)
        y_BxTxHxK = self._finished(y_BxTxHxK, told)
        out = project["out"](y_BxTxHxK)
        extra = [] if first_values is None else [first_values]
        if return_weights:
            allowed = join_lengths(mask, lengths, looked_at.shape[1])
            extra.append(attention_weights(q_BxTxHxK, k_BxSxHxK, allowed, **scoring))
        return (out, *extra) if extra else out

    def _projections(self, width: int) -> dict[str, nn.Module]:
        """Return the projection of each role: of queries, keys, values, and of what heads give."""
        inits = self.kernel_inits or branch_initializers(self.plan.distribution, self.plan.roles)
        biased = ATTENTION_ROLES if self.use_bias is True else self.use_bias or ()
        return {
            role: nn.DenseGeneral(
                width if role == "out" else self.form.shape(role, self.heads, width),
                axis=(-2, -1) if role == "out" else -1,
                use_bias=role in biased,
                kernel_init=inits[role],
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                dot_general=rows_dot_general,
                name=role,
            )
            for role in ATTENTION_ROLES
        }

    def _bias(
        self, q: jax.Array, k: jax.Array, table: jax.Array | None, project: Mapping[str, Any]
    ) -> jax.Array | None:
        """Return what relative positions add to the scores, or None."""
        row = self.form.relative
        if row is None:
            return None
        if table is None:
            raise ValueError(
                f"the form has relative positions, {row.name!r}; give relative=, their table"
            )
        scores = row.scores(q, k, table, lambda role, z: project[role](z))
        factor = self.form.factor(q.shape[-1]) if row.terms > 1 else None
        return scores if factor is None else scores * factor

    def _check(self, x: Any, mask: Any, lengths: Any, source: Any, first_values: Any) -> None:
        check_real("x", x)
        check_real("source", source)
        looked_at = x if source is None else source
        check_axes(
            x=(x, "B T D"), source=(source, "B S W"),
            first_values=(first_values, "B S G K" if source is not None else "B T G K"),
        )  # fmt: skip
        scores = (x.shape[0], self.heads, x.shape[1], looked_at.shape[1])
        fix = "a padding mask [B, S] is mask[:, None, None]"
        check_fits("mask", mask, scores, "[B, H, T, S]", fix)
        check_lengths(lengths, x=(x, "B T D"))

    def _query_key(self, q: jax.Array, k: jax.Array, told: Context) -> tuple[jax.Array, jax.Array]:
        row = self.plan.query_key
        parameters = {
            p.name: self.param(
                f"query_key_{p.name}",
                nn.initializers.constant(p.init(q.shape[1])),
                p.shape(self.heads, q.shape[-1]),
                self.param_dtype,
            )
            for p in row.parameters
        }

        norms = {"query_norm": self.plan.query_norm, "key_norm": self.plan.key_norm}

        def norm(name: str, z: jax.Array) -> jax.Array:
            return apply_norm(norms[name], z, self.numerics, told)

        return row.apply(q, k, parameters, norm)

    def _scalars(self, name: str, first: float, y: jax.Array) -> jax.Array:
        init = nn.initializers.constant(first)
        return self.param(name, init, (self.heads, 1), self.param_dtype).astype(y.dtype)

    def _finished(self, y: jax.Array, told: Context) -> jax.Array:
        """Heads scaled, then joined and normalized, where the arrangement says so."""
        if self.plan.head_scale:
            y = y * self._scalars("head_scale", 1.0, y)
        if self.plan.heads_norm is None:
            return y
        joined = y.reshape(*y.shape[:2], -1)
        return apply_norm(self.plan.heads_norm, joined, self.numerics, told).reshape(y.shape)

    def _shaped(self, y: jax.Array, v: jax.Array, mask: Any, lengths: Any) -> jax.Array:
        """``a v + b y - g mean(v)``: the attention matrix ``a I + b A - g C``, C uniform."""
        a, b, g = (self._scalars(f"shaped_{n}_gate", 1.0, y) for n in ("skip", "softmax", "centre"))
        uniform = masked_attention(jnp.zeros_like(y), jnp.zeros_like(v), v, mask, lengths=lengths)
        return a * for_each_head(v, y) + b * y - g * uniform
