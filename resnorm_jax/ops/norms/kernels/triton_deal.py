"""Which rows a program of a kernel works on, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from resnorm_jax.ops.norms.kernels.form import Names, Operands
from resnorm_jax.ops.norms.kernels.triton_rows import Rows, indices, loop


@dataclass(frozen=True)
class Deal:
    """How rows are dealt out to programs.

    Attributes:
      shape: of the arrays of rows.
      rows: that a program takes at a time.
      each: how often it does.
      programs: their number.
      ahead: whether the next rows are read while some are worked on.
      block: columns that are worked on at a time.
      kept: whether registers hold all blocks of a row.
    """

    shape: tuple[int, ...]
    rows: int
    each: int
    programs: int
    ahead: bool
    block: int
    kept: bool

    @property
    def full(self) -> bool:
        """Return whether all rows of all programs are of the array."""
        return self.shape[0] == self.programs * self.each * self.rows

    def parameters(self, refs: Operands) -> Rows:
        """Return one row, to read parameters by."""
        return Rows(refs, self.shape, indices(1), self.block, self.kept, full=True)

    def own_row(self, refs: Operands, name: str) -> Rows:
        """Return the row of this program in an array that has one for each."""
        from jax.experimental import pallas as pl

        row = pl.program_id(0) + indices(1)
        return Rows(refs, refs[name].shape, row, self.block, self.kept, full=True)

    def walk(
        self, refs: Operands, names: Names, step: Callable[[Rows, Any], Any], start: Any
    ) -> Any:
        """Return what ``step(rows, carried)`` makes of ``start`` over all rows of this program.

        Args:
          refs: references by name.
          names: which of them are read ahead, if any are.
          step: works on some rows.
          start: the first ``carried``.
        """
        from jax.experimental import pallas as pl

        begin = pl.program_id(0) * self.each
        if self.each == 1:
            return step(self._rows(refs, begin), start)
        names = tuple(n for n in names if n in refs) if self.ahead and self.kept else ()

        def read(i: Any) -> tuple:
            # Nothing follows the last rows: those are read again where no mask keeps from beyond.
            rows = self._rows(refs, begin + (jnp.minimum(i, self.each - 1) if self.full else i))
            return tuple([rows.read(name, j) for j in range(rows.blocks)] for name in names)

        def one(i: Any, carried: tuple) -> tuple:
            value, blocks, _ = carried
            following = read(i + 1)  # on its way while these rows are worked on
            ahead = dict(zip(names, blocks, strict=True))
            return step(self._rows(refs, begin + i, ahead), value), following, jnp.int32(0)

        value, *_ = loop(self.each, one, (start, read(0), jnp.int32(0)))  # carried is never nothing
        return value

    def _rows(self, refs: Operands, place: Any, ahead: Operands | None = None) -> Rows:
        rows = place * self.rows + indices(self.rows)
        return Rows(refs, self.shape, rows, self.block, self.kept, self.full, ahead=ahead or {})
