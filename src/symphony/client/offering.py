"""What a client offers at each attempt, and what the server's choice says about the server."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from symphony.client.link import DialError, Offer
from symphony.client.opening import check_headers
from symphony.client.options import Options, bearer
from symphony.protocol import subprotocols

__all__ = ("foreign", "make_offer")

logger = logging.getLogger("symphony.client")

_LOST: Final = 1006


async def make_offer(options: Options, where: str, stage: Callable[[str], None]) -> Offer:
    """Return the offer of one attempt.

    Raises:
        DialError: There is no token.
    """
    try:
        token = options.token() if callable(options.token) else options.token
        if inspect.isawaitable(token):
            token = await token
        if token is not None and not isinstance(token, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a token must be a string, not {type(token).__name__}")
        return Offer(_names(options, token), _headers(options, token), stage)
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


def foreign(chosen: str | None) -> bool:
    """Return whether the choice proves that the server is not Symphony."""
    return chosen is not None and (
        chosen == subprotocols.LIMITS or chosen.startswith(subprotocols.TOKEN_PREFIX)
    )


def _names(options: Options, token: str | None) -> Sequence[str]:
    """Return the subprotocols to offer.

    Some servers choose the first subprotocol, or the last, without knowing it
    (Node's `ws`, Bun). So the program's own come first. The next one is never
    chosen by Symphony, and the last one means a raw connection.
    """
    if options.raw:
        return options.subprotocols
    names = [*options.subprotocols, subprotocols.LIMITS, f"symphony.v1.{options.protocol}"]
    if token:
        names.append(subprotocols.token_subprotocol(token))
    return (*names, subprotocols.REFUSE, subprotocols.RAW)


def _headers(options: Options, token: str | None) -> Mapping[str, str]:
    """Return the headers to send. With `raw=True`, they carry the token.

    Raises:
        ValueError: The token has a character that a header cannot carry.
    """
    if not (options.raw and token):
        return options.headers
    carried = bearer(token)
    check_headers(carried)
    return {**carried, **options.headers}
