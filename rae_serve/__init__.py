"""Serve regularised auto-encoders from plain ONNX: `Engine(Bundle.load(path)).sample(n=4, seed=7)`."""

from rae_serve.bundle import Bundle, Manifest
from rae_serve.engine import Engine

__all__ = ["Bundle", "Engine", "Manifest"]
