"""What a client offers at each attempt to connect, with its token."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Final

from symphony.client.link import DialError, Offer
from symphony.client.options import Options
from symphony.protocol import subprotocols

__all__ = ("make_offer",)

logger = logging.getLogger("symphony.client")

_LOST: Final = 1006


async def make_offer(options: Options, where: str, stage: Callable[[str], None]) -> Offer:
    """Return the offer of one attempt.

    Raises:
        DialError: There is no token.
    """
    names = [
        f"symphony.v1.{options.protocol}",
        *options.subprotocols,
        subprotocols.RAW,
        subprotocols.REFUSE,
        subprotocols.LIMITS,
    ]
    token = await _token(options, where)
    if token:
        names.append(subprotocols.token_subprotocol(token))
    return Offer(names, options.headers, stage)


async def _token(options: Options, where: str) -> str | None:
    try:
        token = options.token() if callable(options.token) else options.token
        if inspect.isawaitable(token):
            token = await token
        if token is not None and not isinstance(token, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a token must be a string, not {type(token).__name__}")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        # The token service may be down, too, so try again. A CancelledError here is that of a
        # refresh that the function awaited, and that something else has cancelled.
        logger.warning("The token for %s could not be fetched: %r", where, error)
        raise DialError(_LOST, f"token() raised {error!r}", reason="no token", again=True) from error
    return token
