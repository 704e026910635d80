"""Norm surgery: another model made of a trained one, and what it takes to bring it back."""
