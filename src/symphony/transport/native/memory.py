"""What a server does about the memory of its process."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

__all__ = ("collect_less_often", "freed", "trim_memory")

# What Python begins with: before and from version 3.13.
_DEFAULTS: Final = ((700, 10, 10), (2000, 10, 10), (2000, 10, 0))
_THRESHOLDS: Final = (10_000, 2, 10)


class _Freed:
    """How many bytes of large buffers were freed since the last trim. The heap is that of the process."""

    size = 0


freed = _Freed()


def trim_memory() -> None:
    """Return free pages inside the heap to the system, if the C library can (glibc).

    Connections are allocated across the whole heap, and glibc returns only the
    free memory at its top. After 9,000 connections had closed, most of their
    memory stayed with the process. This takes a few milliseconds.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def collect_less_often() -> None:
    """Let the garbage collector look for cycles less often, unless the app has set how often.

    An open connection is some 70 objects that the collector passes over, and none of
    them is garbage. With Python's thresholds it took a fifth of the time in which a
    server accepts connections. Now at most 10,000 new objects wait for it, and 30,000
    that it has passed over once.
    """
    if gc.get_threshold() in _DEFAULTS:
        gc.set_threshold(*_THRESHOLDS)
