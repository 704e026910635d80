"""Rows of arrays as a Triton program sees them: blocks of columns, read, written and summed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from resnorm_jax.ops.norms.kernels.form import Operands

F32 = jnp.float32


@dataclass(frozen=True)
class Rows:
    """Some rows of references, block of columns by block of columns.

    Attributes:
      refs: references by name.
      shape: of the arrays of rows.
      rows: indices, one dimension.
      block: columns in a block, a power of two.
      kept: whether registers hold all blocks of the rows; their number is then small.
      full: whether all these rows are of the array.
      first: column of the first block.
      ahead: lists of blocks that have been read before, by name, if they are kept.
    """

    refs: Operands
    shape: tuple[int, ...]
    rows: jax.Array
    block: int
    kept: bool = True
    full: bool = False
    first: Any = 0
    ahead: Operands = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        """Return how many blocks a row has."""
        return -(-self.shape[1] // self.block)

    def columns(self, j: Any) -> jax.Array:
        """Return the indices of a block's columns."""
        start = j * self.block if isinstance(j, int) else jnp.asarray(j, jnp.int32) * self.block
        return self.first + start + indices(self.block)

    def ragged(self, j: Any) -> bool:
        """Return whether a block may reach beyond the array."""
        width, known = self.shape[1], isinstance(j, int) and isinstance(self.first, int)
        return bool(width % self.block) and not (known and j < width // self.block)

    def valid(self, j: Any, t: jax.Array) -> jax.Array:
        """Return ``t``, a block's numbers, with 0 for the columns that are not of the array."""
        if not self.ragged(j):
            return t
        return jnp.where((self.columns(j) < self.shape[1])[None, :], t, 0)

    def inside(self, j: Any) -> jax.Array | None:
        """Which elements of a block are of the array; None for all."""
        rows = None if self.full else (self.rows < self.shape[0])[:, None]
        columns = (self.columns(j) < self.shape[1])[None, :] if self.ragged(j) else None
        return rows if columns is None else columns if rows is None else rows & columns

    def load(self, name: str, j: Any) -> jax.Array:
        """Return a block in float32, 0 outside of the array."""
        block = self.ahead[name][j] if name in self.ahead else self.read(name, j)
        return block.astype(F32)

    def read(self, name: str, j: Any) -> jax.Array:
        """Return a block as it is stored."""
        return self._load(name, (self.rows[:, None], self.columns(j)[None, :]), self.inside(j))

    def parameter(self, name: str, j: Any) -> jax.Array:
        """Return a parameter's block, to be broadcast over rows."""
        inside = self.columns(j) < self.shape[1] if self.ragged(j) else None
        return self._load(name, (self.columns(j),), inside).astype(F32)[None, :]

    def number(self, name: str) -> jax.Array:
        """Return one number of each row, to be broadcast over columns."""
        return self._load(name, (self.rows,), self._rows_inside())[:, None]

    def leading(self, name: str) -> jax.Array:
        """Return the first element of each row in float32, to be broadcast over columns."""
        at = (self.rows[:, None], indices(1)[None, :])
        rows = None if self.full else (self.rows < self.shape[0])[:, None]
        return self._load(name, at, rows).astype(F32)

    def _rows_inside(self) -> jax.Array | None:
        return None if self.full else self.rows < self.shape[0]

    def _load(self, name: str, at: tuple, mask: jax.Array | None) -> jax.Array:
        from jax.experimental.pallas import triton

        options: dict[str, Any] = {} if mask is None else {"mask": mask, "other": 0}
        return triton.load(self.refs[name].at[at], **options)

    def store(self, name: str, j: Any, value: jax.Array) -> None:
        """Write a block, in the dtype of the array."""
        at = (self.rows[:, None], self.columns(j)[None, :])
        self._store(name, at, value, self.inside(j))

    def store_number(self, name: str, value: jax.Array) -> None:
        """Write one number of each row."""
        self._store(name, (self.rows,), lax.squeeze(value, (1,)), self._rows_inside())

    def _store(self, name: str, at: tuple, value: jax.Array, mask: jax.Array | None) -> None:
        from jax.experimental.pallas import triton

        ref = self.refs[name]
        triton.store(ref.at[at], value.astype(ref.dtype), mask=mask)

    def sums(self, *terms: Callable[[Any], jax.Array]) -> list[jax.Array]:
        """Return the sum of each term over all columns, kept as size 1."""

        def add(j: Any, before: tuple) -> tuple:
            return tuple(a + term(j) for a, term in zip(before, terms, strict=True))

        if self.kept:
            totals = tuple(term(0) for term in terms)
            for j in range(1, self.blocks):
                totals = add(j, totals)
        else:
            zeros = tuple(jnp.zeros((self.rows.shape[0], self.block), F32) for _ in terms)
            totals = loop(self.blocks, add, zeros)
        return [across(t) for t in totals]

    def each(self, action: Callable[[Any], None]) -> None:
        """Do something with each block of columns."""
        if self.kept:
            for j in range(self.blocks):
                action(j)
        else:

            def step(j: Any, nothing: Any) -> Any:
                action(j)
                return nothing

            loop(self.blocks, step, jnp.int32(0))

    def keep(self, load: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return ``load``, which reads but once what registers hold."""
        if not self.kept:
            return load
        found = [load(j) for j in range(self.blocks)]
        return lambda j: found[j]


def across(t: jax.Array) -> jax.Array:
    """Sum over columns; a GPU takes the sum of a thread's few elements, then a tree of these."""
    return jnp.sum(t, 1, keepdims=True)


def indices(count: int) -> jax.Array:
    """Return the first so many indices, of 32 bits also in x64 mode."""
    return jnp.arange(count, dtype=jnp.int32)


def loop(count: int, step: Callable, start: Any) -> Any:
    """Return what ``step(i, carried)`` makes of ``start``; indices of 32 bits also in x64 mode."""
    return lax.fori_loop(np.int32(0), np.int32(count), step, start)
