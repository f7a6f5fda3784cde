"""How the sockets of a node end, when it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress

from symphony.limits import Limits
from symphony.session.session import Session

__all__ = ("drain",)

logger = logging.getLogger("symphony.app")

# Sockets closed a second by a stopping server, however few there are.
_DRAIN_AT_LEAST = 500


async def drain(
    sessions: Collection[Session], empty: asyncio.Event, limits: Limits, force: asyncio.Event
) -> None:
    """Close every socket with 1012 once its handlers have finished.

    Many sockets are closed over `drain_time`, so that their clients do not all come back in
    the same moment.

    Args:
        sessions: The sockets, which leave it when they have ended.
        empty: Set while there are none.
        limits: The limits of the app.
        force: Set to end what is left at once.
    """
    loop = asyncio.get_running_loop()
    rate = max(len(sessions) / limits.drain_time, _DRAIN_AT_LEAST)
    for index, session in enumerate(tuple(sessions)):
        loop.call_later(index / rate, session.drain)
    patience = limits.drain_time + limits.finish_timeout * 2 + limits.close_timeout
    forced = asyncio.ensure_future(force.wait())
    ended = asyncio.ensure_future(empty.wait())
    await asyncio.wait((forced, ended), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    forced.cancel()
    ended.cancel()
    if sessions:
        logger.warning("%d sockets did not close in time and are cut off.", len(sessions))
        for session in tuple(sessions):
            session.abort()
        # A disconnect handler may take its own `finish_timeout`, no more.
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.finish_timeout + 1):
                await empty.wait()
    if sessions:
        logger.error("%d handlers ignored their cancellation and were abandoned.", len(sessions))
