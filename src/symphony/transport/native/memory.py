"""Gives freed memory back to the operating system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ("trim_memory",)


def trim_memory() -> None:
    """Return free pages inside the heap, where the C library can (glibc).

    Connections are allocated across the whole heap, and glibc returns only
    what is free at its top: after 9,000 connections had gone, most of their
    memory stayed with the process. This takes a few milliseconds.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
