"""Regularised auto-encoders as plain ONNX: `Engine(Bundle.load(path)).sample(n=4, seed=7)` generates images."""

from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.manifest import Manifest

__all__ = ["Bundle", "Engine", "Manifest"]
