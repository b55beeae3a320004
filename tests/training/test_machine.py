"""Freed memory kept while training: fewer fresh pages, and given back afterwards, also after an error."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# In a process of its own: what the allocator does depends on all that a process has allocated before.
SCRIPT = """
import contextlib, resource
from pathlib import Path
import torch
from training.machine import freed_memory_kept

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(12 * 2**20).add_(1.0)  # 48 MiB, over the 32 that glibc keeps of its own accord
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

usual = fresh_pages()
with contextlib.suppress(RuntimeError), freed_memory_kept():
    fresh_pages()
    kept, holding = fresh_pages(), resident()
    raise RuntimeError
print(usual, kept, holding - resident(), 48 * 2**20 // resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_blocks_are_reused_inside_and_given_back_outside() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    usual, kept, given_back, block = map(int, done.stdout.split())
    assert kept < usual / 5
    assert given_back > block / 2
