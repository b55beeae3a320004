"""Freed memory kept while training: fewer fresh pages, and all of it given back."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from training.memory import freed_memory_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
BLOCK = 48 * 2**20  # bytes, over the 32 MiB that glibc keeps of its own accord


def fresh_pages() -> int:
    """Pages that the kernel zeroes for ten blocks allocated, filled and freed in turn."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(BLOCK // 4).add_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_blocks_are_reused_inside_and_given_back_outside() -> None:
    usual = fresh_pages()
    with freed_memory_kept():
        fresh_pages()
        kept, holding = fresh_pages(), resident()
    assert kept < usual / 5
    assert holding - resident() > BLOCK / 2
    assert fresh_pages() > usual / 2


def test_what_an_error_leaves_is_given_back() -> None:
    with pytest.raises(RuntimeError), freed_memory_kept():
        raise RuntimeError
    assert fresh_pages() > BLOCK // resource.getpagesize()
