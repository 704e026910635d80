"""Why a model predicts what it predicts for one input."""
