"""Train a grid of arrangements, depths, seeds and learning rates."""
