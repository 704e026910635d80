"""Parameters of one model turned into those of another that computes the same."""
