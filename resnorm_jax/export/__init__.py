"""A trained model for use elsewhere: StableHLO, safetensors, ONNX."""
