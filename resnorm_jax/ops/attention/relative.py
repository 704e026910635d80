"""Relative positions in the scores of attention: from a table, one row a way.

Where a query stands ``d = i - j`` positions after a key, ``index(d)`` says which row of the table is
read. A score is added for each pair; it depends on the place of the pair only through ``d``, of which
there are ``T + S - 1``, so the table is read once for all layers, and no score is gathered. In images
places have two coordinates: there the table is read once for each pair.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.registry import Registry

Project = Callable[[str, jax.Array], jax.Array]


@dataclass(frozen=True)
class Relative:
    """A row.

    Attributes:
      name: name of the row.
      equation: of the logits, from which they can be written.
      source: paper or code.
      index: ``(length, buckets, positions)`` to the rows of the table that are read, NumPy's where the
        length is no symbol: one for each of the `distances`, or, with ``pairs``, ``[L, L]``.
      rows: ``buckets`` to the number of rows of the table.
      scores: ``(q, k, table, project) -> [1 or B, H, T, S]`` from queries and keys ``[B, L, H, K]``,
        the table's rows that are read, and the layer's own projections of ``[R, D]`` by role.
      buckets: as many if the model gives none.
      positions: distance from which all are alike, if the model gives none.
      pairs: whether the table is read for each pair of positions of an image. Buckets are then the
        patches along a side of it, which the model must give.
      by_head: whether the table has a number for each head, else a vector of the stream's width.
      terms: parts of which a logit is the sum; they are divided by ``sqrt(terms K)`` together. With 1
        the scores are added as they are.
      norm: norm of the table, by name, or None.
    """

    name: str
    equation: str
    source: str
    index: Callable[[int, int, int], np.ndarray | jax.Array]
    rows: Callable[[int], int]
    scores: Callable[[jax.Array, jax.Array, jax.Array, Project], jax.Array]
    buckets: int
    positions: int
    pairs: bool = False
    by_head: bool = False
    terms: int = 1
    norm: str | None = None


def distances(queries: int, keys: int) -> np.ndarray:
    """``[T + S - 1]``: what ``i - j`` can be, from the largest to the least."""
    return np.arange(queries - 1, -keys, -1)


def along_diagonals(x: jax.Array, keys: int) -> jax.Array:
    """Turn scores by distance into scores by key.

    Args:
      x: ``[..., T, T + S - 1]``, the last axis in the order of `distances`.
      keys: ``S``.

    Returns:
      ``[..., T, S]``: at (i, j) what ``x`` has in row i for the distance ``i - j``.

    >>> along_diagonals(jnp.array([[1, 0, -1], [1, 0, -1]]), 2).tolist()
    [[0, -1], [1, 0]]
    """
    lead, (queries, count) = x.shape[:-2], x.shape[-2:]
    if jax.export.is_symbolic_dim(queries):  # JAX cannot tell that T (T + S - 1) is over 0
        at = queries - 1 - jnp.arange(queries)[:, None] + jnp.arange(keys)
        at = jnp.broadcast_to(at, (*lead, queries, keys))
        return jnp.take_along_axis(x, at, axis=-1, mode="clip")
    if queries == 1:  # its row, which the cut below would leave one number short
        return x
    flat = x.reshape(*lead, queries * count)
    # Row i begins count - 1 numbers after row i - 1, one less than a row is long.
    flat = flat[..., queries - 1 : queries - 1 + queries * (count - 1)]
    return flat.reshape(*lead, queries, count - 1)[..., :keys]


def log_buckets(distance: np.ndarray, buckets: int, positions: int) -> np.ndarray:
    """Row of a distance: one each up to half the buckets, then logarithmic up to ``positions``.

    Args:
      distance: integers.
      buckets: B, to either side.
      positions: P, the distance from which all are alike.

    Returns:
      Integers from 0 to ``2 B - 1``; B for distance 0.

    Source: He et al. 2021 (arXiv 2111.09543); make_log_bucket_position of the DeBERTa-v2 model of
    huggingface/transformers, whose arithmetic is float32 too.
    """
    middle, far = buckets // 2, np.abs(distance).astype(np.float32)
    # The logarithm counts beyond the middle only; a number under 1 has none.
    with np.errstate(divide="ignore"):
        share = np.log(np.maximum(far / np.float32(middle), 1)) / np.log(
            np.float32((positions - 1) / middle)
        )
    beyond = np.ceil(share * np.float32(middle - 1)) + middle
    bucket = np.where(far <= middle, distance, np.sign(distance) * beyond)
    return np.clip(bucket.astype(np.int64) + buckets, 0, 2 * buckets - 1)


def two_sided_buckets(distance: np.ndarray, buckets: int, positions: int) -> np.ndarray:
    """Row of a distance: half of the buckets for keys before the query, half for those after it.

    Of each half one half has a distance each, the others grow logarithmically up to ``positions``.

    Args:
      distance: integers, of the query after the key.
      buckets: B, of both sides.
      positions: the distance from which all are alike.

    Returns:
      Integers from 0 to ``B - 1``.

    Source: Raffel et al. 2019 (arXiv 1910.10683); relative_position_bucket of the T5 and MPNet models
    of huggingface/transformers, whose arithmetic is float32 too.
    """
    side = buckets // 2
    exact, far = side // 2, np.abs(distance)
    share = np.log(np.maximum(far, exact).astype(np.float32) / exact) / math.log(positions / exact)
    beyond = exact + (share * (side - exact)).astype(np.int64)
    return (distance < 0) * side + np.where(far < exact, far, np.minimum(beyond, side - 1))


def grid_rows(length: int, side: int) -> np.ndarray:
    """Row of each pair of patches of a square image, which are counted in reading order.

    For a query at ``(y, x)`` and a key at ``(v, u)`` it is ``(y - v + S - 1) (2 S - 1) + x - u + S
    - 1``.
    The three last rows are for a class token, if one stands first: of its score with a patch, of a
    patch's with it, and of its own.

    Args:
      length: L, ``side**2`` patches, or with a class token one more.
      side: S, patches along a side.

    Returns:
      ``[L, L]`` integers from 0 to ``(2 S - 1)**2 + 2``.

    Raises:
      ValueError: for another length.

    Source: Bao et al. 2021 (arXiv 2106.08254), section 2.1; generate_relative_position_index of the
    BEiT model of huggingface/transformers.

    >>> grid_rows(5, 2)[:2].tolist()
    [[11, 9, 9, 9, 9], [10, 4, 3, 1, 0]]
    """
    first = length - side**2
    if first not in (0, 1):
        raise ValueError(
            f"relative: a grid of {side} x {side} has {side**2} positions, or with a class token "
            f"{side**2 + 1}, and x has {length}; give relative_buckets, the patches along a side"
        )
    wide = 2 * side - 1
    y, x = np.divmod(np.arange(side**2), side)
    far = (y[:, None] - y + side - 1) * wide + x[:, None] - x + side - 1
    rows = np.full((length, length), wide**2 + 2)
    rows[first:, first:] = far
    rows[:first, first:] = wide**2
    rows[first:, :first] = wide**2 + 1
    return rows


Bucket = Callable[[np.ndarray, int, int], np.ndarray]


def _at_distances(bucket: Bucket) -> Callable[..., np.ndarray | jax.Array]:
    def index(length: int, buckets: int, positions: int) -> np.ndarray | jax.Array:
        if not jax.export.is_symbolic_dim(length):
            return bucket(distances(length, length), buckets, positions)
        # A length that is a symbol is known when the program runs, which reads the rows from a table.
        far = _far(bucket, buckets, positions)
        rows = bucket(np.arange(-far, far + 1), buckets, positions)
        distance = length - 1 - jnp.arange(2 * length - 1)
        return jnp.asarray(rows, jnp.int32)[jnp.clip(distance, -far, far) + far]

    return index


def _far(bucket: Bucket, buckets: int, positions: int) -> int:
    """Return a distance from which all are alike; an odd number of buckets has some after the last."""
    ends, far = bucket(np.array([-(2**40), 2**40]), buckets, positions), positions
    while (bucket(np.array([-far, far]), buckets, positions) != ends).any():
        far *= 2
    return far


def _disentangled(q: jax.Array, k: jax.Array, table: jax.Array, project: Project) -> jax.Array:
    wide = jnp.promote_types(q.dtype, jnp.float32)

    def product(x: jax.Array, positions: jax.Array) -> jax.Array:
        return jnp.einsum("bthk,rhk->bhtr", x, positions, preferred_element_type=wide)

    to_position = along_diagonals(product(q, project("key", table)), k.shape[1])
    # Of a key the distances of all queries, hence in the reverse order.
    to_content = along_diagonals(product(k, project("query", table)[::-1]), q.shape[1])
    return to_position + jnp.swapaxes(to_content, 2, 3)


def _bias(q: jax.Array, k: jax.Array, table: jax.Array, project: Project) -> jax.Array:
    rows = jnp.broadcast_to(table.T[:, None], (table.shape[1], q.shape[1], table.shape[0]))
    return along_diagonals(rows, k.shape[1])[None]


def _pair_bias(q: jax.Array, k: jax.Array, table: jax.Array, project: Project) -> jax.Array:
    return jnp.moveaxis(table, 2, 0)[None]


RELATIVE: Registry[Relative] = Registry(
    "relative",
    (
        Relative(
            "disentangled",
            "(q_i . k_j + q_i . Wk r + Wq r . k_j) / sqrt(3 K), r = norm(table)[index(i - j)], Wq and "
            "Wk the layer's own projections of queries and keys, with their biases",
            "He et al. 2020 (arXiv 2006.03654), eq. 4, with the shared projections, the norm and the "
            "logarithmic buckets of He et al. 2021 (arXiv 2111.09543)",
            _at_distances(log_buckets),
            lambda buckets: 2 * buckets,
            _disentangled,
            buckets=256,
            positions=512,
            terms=3,
            norm="layer",
        ),
        Relative(
            "bias",
            "q_i . k_j / sqrt(K) + table[index(i - j)], a number for each head",
            "Raffel et al. 2019 (arXiv 1910.10683), section 2.1, here divided by sqrt(K) as in MPNet "
            "(arXiv 2004.09297)",
            _at_distances(two_sided_buckets),
            lambda buckets: buckets,
            _bias,
            buckets=32,
            positions=128,
            by_head=True,
        ),
        Relative(
            "grid",
            "q_i . k_j / sqrt(K) + table[index(i, j)], a number for each head, by how many patches of "
            "an image j lies above and left of i",
            "Bao et al. 2021 (arXiv 2106.08254), section 2.1; BEiT of huggingface/transformers",
            lambda length, side, _: grid_rows(length, side),
            lambda side: (2 * side - 1) ** 2 + 3,
            _pair_bias,
            buckets=0,
            positions=0,
            pairs=True,
            by_head=True,
        ),
    ),
)
