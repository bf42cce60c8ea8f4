from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from rtseg.training.memory import freed_memory_kept

PAGES = 16384  # of 4 KiB in 64 MiB; the library treats tensors up to 32 MiB otherwise
ROUNDS = 4


def faults_of_rounds() -> int:
    for _ in range(3 * ROUNDS):  # first touches are needed in any case, until the heap has grown
        torch.ones(PAGES * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        torch.ones(PAGES * 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_kept_memory_is_not_asked_for_again() -> None:
    with freed_memory_kept("cuda"):  # which changes nothing
        mapped = faults_of_rounds()
    with freed_memory_kept("cpu"):
        kept = faults_of_rounds()
    assert kept < PAGES / 8
    assert mapped > 4 * kept or mapped < PAGES / 8  # huge pages need few faults anyway


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_memory_is_given_back_at_the_end() -> None:
    with freed_memory_kept("cpu"):
        torch.ones(8 * PAGES * 1024)
        kept = resident_pages()
    assert resident_pages() < kept - 7 * PAGES


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
