"""Freed memory stays with the process while it trains."""

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import ctypes, resource, torch
from contextlib import nullcontext
from segdeploy.train.memory import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        blocks = [torch.empty(40 << 20, dtype=torch.uint8).fill_(1) for _ in range(5)]  # as of a forward pass
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages would be counted as one fault
torch.set_num_threads(1)
faults(1)
with keep_freed_memory():
    faults(5)  # small blocks come to lie between the large ones, until the holes are large enough
    inside = faults(4)
    held = resident()
print(inside, faults(4), (held - resident()) >> 20)
"""


def counted(**environment):
    """Page faults of large blocks inside and after, and how many MiB went back to the system at the end."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"} | environment
    done = subprocess.run([sys.executable, "-c", COUNT], env=env, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told so")


@needs_glibc
def test_blocks_are_had_again_without_page_faults_and_given_back_at_the_end():
    inside, after, returned = counted()
    # Without huge pages 200 MiB cost 51,200 faults each time; a small block that lies badly costs one of 40 MiB.
    assert inside <= 10_240 + 100
    assert after > 20_000
    assert returned >= 90


@needs_glibc
@pytest.mark.parametrize("name", ["MALLOC_TOP_PAD_", "GLIBC_TUNABLES"])
def test_what_the_environment_says_of_malloc_stands(name):
    inside, after, _ = counted(**{name: "glibc.malloc.top_pad=131072" if name == "GLIBC_TUNABLES" else "131072"})
    assert min(inside, after) > 20_000
