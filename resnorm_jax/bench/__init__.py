"""``resnorm bench``: speed, memory, compile time and accuracy, beside named peers."""
