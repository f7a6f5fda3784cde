"""How many files the process may have open: each connection is one."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final

__all__ = ("descriptor_limit", "raise_descriptor_limit")

logger = logging.getLogger("symphony.transport")

# macOS takes no more than this where the limit is "unlimited".
_OPEN_MAX: Final = 10_240


def descriptor_limit() -> int | None:
    """Return the limit of the process, `None` without one."""
    if sys.platform == "win32":
        return None
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """Raise the limit as far as the process may, and log it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        for limit in (hard, _OPEN_MAX):
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                break
    logger.info(
        "This process may have %s files open (before: %d).", descriptor_limit() or "any number of", soft
    )
