"""Freed memory is reused inside `freed_memory_kept` and returned to the kernel after it; devices by name."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from rae_serve.errors import RaeServeError
from training.machine import torch_device

# A process of its own, because the allocator depends on all that a process has allocated before.
SCRIPT = """
import contextlib, resource
from pathlib import Path
import torch
from training.machine import freed_memory_kept

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(12 * 2**20).add_(1.0)  # 48 MiB; by default glibc keeps blocks up to 32 MiB
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_blocks_are_reused_inside_and_given_back_outside() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    usual, kept, given_back, block = map(int, done.stdout.split())
    assert kept < usual / 5
    assert given_back > block / 2


def test_a_machine_without_cuda_trains_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("cpu") == torch_device("auto") == torch.device("cpu")
    with pytest.raises(RaeServeError, match="cuda was requested, but torch finds no CUDA device"):
        torch_device("cuda")
