"""What is allocated after the holes are filled lies side by side, in Python's pools and in the heap of glibc."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.worker.conftest import printed
from tests.worker.harness import WORKER

PROGRAM = f"""
import ctypes, json, sys
sys.path.insert(0, {str(WORKER.parent)!r})
from worker.guest import holes

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def spread(blocks):
    return max(blocks) - min(blocks)

small = [bytes(60) for _ in range(20000)]
large = [libc.malloc(3000) for _ in range(400)]
del small[::50]
for block in large[::20]:
    libc.free(block)
holes.fill()
new = [bytes(60) for _ in range(50)]
print(json.dumps({{
    "small": spread(list(map(id, new))), "large": spread([libc.malloc(3000) for _ in range(10)]),
    "counted": hasattr(libc, "mallinfo2")
}}))
"""


def test_what_is_new_is_side_by_side(each_python: str) -> None:
    said = printed(each_python, PROGRAM)
    assert said["small"] <= 2 * 16384  # two pools
    assert said["large"] < 10 * 3100 or not said["counted"]


@pytest.mark.parametrize("allocator", ["malloc", "pymalloc_debug"])
def test_little_is_taken_where_there_are_no_pools(allocator: str) -> None:
    program = f"""
import sys
sys.path.append({str(WORKER.parent)!r})
from worker.guest import holes
holes.fill()
print(sum(map(sys.getsizeof, holes._taken)))
"""
    variables = os.environ | {"PYTHONMALLOC": allocator}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 3_000_000
