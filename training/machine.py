"""The machine that trains: its device, its packages, and how glibc manages its memory."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from rae_serve.errors import RaeServeError

# Options of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_KEEPING: Final = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
# glibc adapts its thresholds until they are set once. These are the values that it reaches by adapting.
_USUAL: Final = {_M_MMAP_MAX: 65_536, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26}

_PACKAGES: Final = ("rae-serve", "numpy", "scipy", "scikit-learn", "torch", "onnxruntime-gpu", "onnxruntime")


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Make glibc keep freed memory for later allocations, until the context ends. Do nothing without glibc.

    By default, glibc returns large freed blocks to the kernel at once, and the kernel zeroes new pages for the
    activations of every training step. That slows training on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    for option, value in _KEEPING.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _USUAL.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)


def torch_device(name: str) -> torch.device:
    """Return the device for "cpu", "cuda" or "auto", which is CUDA if torch finds it.

    Raises:
        RaeServeError: if the name is "cuda" and torch finds no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RaeServeError("device: cuda was requested, but torch finds no CUDA device")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # only one of the two ONNX Runtimes is installed
            found[name] = version(name)
    return found
