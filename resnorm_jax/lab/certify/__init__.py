"""Tell, before training, which arrangements will train."""
