"""What the rules run: one process per sub-task, test and CCD."""

import atexit
import ctypes
import gc
import os

# Frames are made and given back in large pieces: looking for huge pages costs more time than they save.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h


def _keep_memory() -> None:
    """Let the C library keep what is freed for the next array, instead of giving it back to the kernel.

    A frame's array made anew costs 17,000 page faults, more time than most of what is done with it. The process
    does one sub-task and ends, so nobody waits for that memory. Only glibc has these switches.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 64 << 20)


_keep_memory()
# A process that ends need not look for cycles in all that it has: that takes as long as a fifth of its imports.
atexit.register(gc.freeze)
