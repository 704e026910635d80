"""What a model sets of all its attentions: heads of keys, width, scale, relative positions; biases."""

from dataclasses import dataclass

from resnorm_jax.errors import ChoiceError, UserError, nearest
from resnorm_jax.ops.attention.relative import RELATIVE, Relative
from resnorm_jax.sizes import check_sizes

ALL, NONE = "all", "none"
ATTENTION_ROLES, FEED_FORWARD_ROLES = ("query", "key", "value", "out"), ("fc1", "fc2")


@dataclass(frozen=True)
class AttentionForm:
    """How the heads of all self-attentions of a stack are made.

    Attributes:
      kv_heads: heads of keys and values, each of which serves as many heads of queries; None for one
        for each.
      head_width: features of a head; None for width / heads.
      scale: factor on the products of queries and keys; None for one over the root of ``head_width``.
      relative: how relative positions enter, or None.
      buckets: of the relative positions' table.
      positions: distance from which relative positions are alike.
      by_layer: whether each layer has a table of its own.
    """

    kv_heads: int | None = None
    head_width: int | None = None
    scale: float | None = None
    relative: Relative | None = None
    buckets: int = 0
    positions: int = 0
    by_layer: bool = False

    def shape(self, role: str, heads: int, width: int) -> tuple[int, int]:
        """Return heads and features of queries, keys, values or (``out``) of what they give."""
        own = self.kv_heads if role in ("key", "value") else None
        return own or heads, self.head_width or width // heads

    def table(self, heads: int, width: int) -> tuple[int, int]:
        """Return the shape of the table of relative positions."""
        assert self.relative is not None
        return self.relative.rows(self.buckets), heads if self.relative.by_head else width

    def factor(self, features: int) -> float | None:
        """Return the factor on products of queries and keys, or None for attention's own."""
        if self.scale is None and self.relative is not None and self.relative.terms > 1:
            return float((self.relative.terms * features) ** -0.5)
        return self.scale


PLAIN_FORM = AttentionForm()


def attention_form(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_width: int | None = None,
    scale: float | None = None,
    relative: str | None = None,
    relative_buckets: int | None = None,
    relative_positions: int | None = None,
    relative_by_layer: bool = False,
) -> AttentionForm:
    """Return the form of the attentions of a model; fields as in `TransformerEncoderLayer`.

    Raises:
      ChoiceError: naming the field that does not fit.
    """
    check_sizes(
        kv_heads=kv_heads,
        head_width=head_width,
        attention_scale=scale,
        relative_buckets=relative_buckets,
        relative_positions=relative_positions,
    )
    if kv_heads is not None and heads % kv_heads:
        near = min(
            (h for h in range(1, heads + 1) if heads % h == 0), key=lambda h: abs(h - kv_heads)
        )
        raise ChoiceError(
            f"kv_heads: {kv_heads} does not divide heads={heads}; try kv_heads={near}"
        )
    if relative in (None, NONE):
        given = {
            "relative_buckets": relative_buckets,
            "relative_positions": relative_positions,
            "relative_by_layer": relative_by_layer or None,
        }
        for field, value in given.items():
            if value is not None:
                raise ChoiceError(f"{field}: {value} is not read without relative; leave it out")
        return AttentionForm(kv_heads, head_width, scale)
    try:
        row = RELATIVE.get(relative)
    except UserError as error:
        raise ChoiceError(str(error)) from None
    if kv_heads not in (None, heads) and not row.by_head:
        raise ChoiceError(
            f"relative: {row.name!r} needs as many heads of keys as of queries; leave kv_heads out"
        )
    if relative_by_layer and row.norm is not None:
        raise ChoiceError(
            f"relative_by_layer: layers share the table of {row.name!r}, which has a norm; leave it out"
        )
    buckets, positions = relative_buckets or row.buckets, relative_positions or row.positions
    if row.pairs:
        _check_pairs(row, relative_buckets, relative_positions)
    elif buckets < 4 or positions <= buckets // 2 + 1:
        raise ChoiceError(
            f"relative_positions: {positions} with relative_buckets={buckets}; give 4 buckets at "
            "least, and positions past half of them"
        )
    return AttentionForm(kv_heads, head_width, scale, row, buckets, positions, relative_by_layer)


def _check_pairs(row: Relative, side: int | None, positions: int | None) -> None:
    if side is None:
        raise ChoiceError(
            f"relative_buckets: not given; with relative={row.name!r} it is the number of patches "
            "along a side of the images"
        )
    if positions is not None:
        raise ChoiceError(
            f"relative_positions: {positions} is not read with relative={row.name!r}; leave it out"
        )


def biased_roles(use_bias: bool | str) -> frozenset[str]:
    """Return the roles whose projections have a bias; ``fc1`` stands for the gate too.

    Args:
      use_bias: true or ``"all"``, false or ``"none"``, or roles: ``"query+key+value"``.

    >>> sorted(biased_roles("fc1+out"))
    ['fc1', 'out']
    """
    roles = (*ATTENTION_ROLES, *FEED_FORWARD_ROLES)
    if use_bias is True or use_bias == ALL:
        return frozenset(roles)
    if use_bias is False or use_bias == NONE:
        return frozenset()
    named = [role.strip() for role in str(use_bias).replace(",", "+").split("+")]
    for role in named:
        if role not in roles:
            raise ChoiceError(f"use_bias: unknown role {role!r}; {nearest(role, roles)}")
    return frozenset(named)
