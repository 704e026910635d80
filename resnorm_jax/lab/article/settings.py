"""Sizes of the experiments: all, and those of a quick look."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How large everything is.

    Attributes:
      seeds: runs of L6; what else is random has fewer, below.
      width: of the small networks of C1 to C5.
      depths: blocks of the networks of C1, ascending.
      rates: learning rates that are tried.
      few_rates: a shorter list, for C5 to C7.
      gradient_seeds: of C1's gradients.
      grid_seeds: of C1's and C4's trainings.
      grid_steps: of them.
      train_depths: their depths.
      speed_depth: blocks in C2 and C3.
      speed_seeds: of C2 and C3, and as many others to tune on.
      speed_steps: the most steps of C2.
      speed_every: steps between looks.
      kind_depth: blocks in C5.
      kind_steps: of a training in C5.
      task_depth: layers in C6 and C7.
      task_steps: of a training in C6.
      pair_steps: of one in C7.
      task_seeds: in C5 to C7.
      listing_width: d_model of L4 (the article's is 512).
      listing_epochs: of L4.
      listing_seeds: of L4.
      hidden: hidden_dim of L6.
    """

    seeds: int = 100
    width: int = 32
    depths: tuple[int, ...] = (8, 32, 128)
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    few_rates: tuple[float, ...] = (1e-3, 3e-3)
    gradient_seeds: int = 16
    grid_seeds: int = 3
    grid_steps: int = 100
    train_depths: tuple[int, ...] = (8, 32, 128)
    speed_depth: int = 8
    speed_seeds: int = 6
    speed_steps: int = 300
    speed_every: int = 6
    kind_depth: int = 12
    kind_steps: int = 200
    task_depth: int = 6
    task_steps: int = 300
    pair_steps: int = 400
    task_seeds: int = 3
    listing_width: int = 64
    listing_epochs: int = 10
    listing_seeds: int = 5
    hidden: int = 512


QUICK = Settings(
    seeds=4, width=8, depths=(4,), rates=(1e-3, 1e-2), few_rates=(3e-3,), gradient_seeds=2,
    grid_seeds=2, grid_steps=4, train_depths=(4,), speed_depth=2, speed_seeds=2, speed_steps=8,
    speed_every=4, kind_depth=2, kind_steps=4, task_depth=1, task_steps=4, pair_steps=4,
    task_seeds=2, listing_width=8, listing_epochs=1, listing_seeds=2, hidden=16,
)  # fmt: skip
