"""The C library's allocator, told to keep large blocks.

By default glibc maps each large tensor anew and gives it back when it is freed, so that every step
of a training pays for fresh pages: a quarter of the time of a small model on a processor.
"""

from __future__ import annotations

import ctypes

# Numbers of mallopt's parameters, and what they are set to (malloc.h of glibc).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT = 2**31 - 1  # bytes at the top of the heap that are not given back


def keep_large_blocks() -> bool:
    """Whether the allocator could be told; it cannot where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT))
