"""The machine that trains: its devices, and how its C library deals with the memory of a training step."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from rae_serve.errors import RaeServeError

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_KEEPING: Final = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
# Where glibc's own adaptive thresholds end up in a process that frees large blocks; setting one stops them adapting.
_USUAL: Final = {_M_MMAP_MAX: 65_536, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have glibc keep freed memory for the next allocation, and give it back at the end; elsewhere do nothing.

    Usually it gives large blocks back at once, and the kernel zeroes new pages for every step's activations: a
    sixth of the time of FlexAE's autoencoder update on two quiet CPU cores.
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
    if name == "cuda" and not torch.cuda.is_available():
        raise RaeServeError("device: cuda was asked for, and torch sees no CUDA device")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
