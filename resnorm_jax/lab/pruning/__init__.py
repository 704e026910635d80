"""Compression of a trained model, measured: layers removed, weights zeroed, weights rounded."""
