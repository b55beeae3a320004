"""Regularised auto-encoders as plain ONNX: `Engine(Bundle.load(path)).sample(n=4, seed=7)` generates images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rae_serve.bundle import Bundle
    from rae_serve.engine import Engine
    from rae_serve.manifest import Manifest

__all__ = ["Bundle", "Engine", "Manifest"]

_MODULES: Final = {"Bundle": "rae_serve.bundle", "Engine": "rae_serve.engine", "Manifest": "rae_serve.manifest"}


def __getattr__(name: str) -> Any:
    """Import a class when it is first used, so that the command line starts, and can be interrupted, at once."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
