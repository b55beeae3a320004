"""Checkpoints to bundles; nothing else needs onnx."""
