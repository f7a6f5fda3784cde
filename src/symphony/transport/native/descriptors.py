"""How many files the process may have open: each connection is one."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final

from symphony.transport.native.crowd import capacity

__all__ = ("descriptor_limit", "raise_descriptor_limit")

logger = logging.getLogger("symphony.transport")

# macOS takes no more than this where the limit is "unlimited".
_OPEN_MAX: Final = 10_240
# With fewer, files of the app leave few for connections.
_FEW: Final = 256


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
    limit = descriptor_limit()
    logger.info("This process may have %s files open (before: %d).", limit or "any number of", soft)
    if limit is not None and limit < _FEW:
        logger.warning(
            "This process may have only %d files open, and each connection is one: about %d clients can "
            "connect. Raise the limit of open files, as with `ulimit -n` or LimitNOFILE= of systemd.",
            limit,
            capacity(limit),
        )
