"""Decides whether a client reconnects, and says what to do if it does not."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from symphony.client.backoff import UNAUTHORIZED, comes_back
from symphony.client.link import Close, DialError
from symphony.client.loss import how
from symphony.client.options import Options
from symphony.errors import RemoteError

__all__ = ("MAX_TOO_LARGE", "Returning", "advice", "is_too_large")

logger = logging.getLogger("symphony.client")

MAX_TOO_LARGE: Final = 3
"""After so many messages that are too large for the client, within 10 minutes, it ends for good."""

_TOO_LARGE: Final = 1009
_TOO_LARGE_WINDOW: Final = 600.0
_ADVICE: Final = {
    1000: "The server has ended it normally. Connect again if the program needs it.",
    1002: "Is that a Symphony server? Its log says what the client did wrong.",
    1008: "The server's log says which rule the client broke.",
    1009: "A message was larger than the server accepts: send less at once, or raise its max_message_bytes.",
    1015: "Check the certificate, and the ssl= option.",
    4400: "The server's log says what is invalid.",
    4401: "Pass a valid token. With a function as token=, the client gets a new one itself.",
    4403: "May this client connect? Check its token and its origin.",
    4404: "Check the path of the URL.",
    4410: "Another connection of the same user has replaced this one.",
}


def advice(close: Close) -> str:
    """Return what to do about the end of a connection, after a space."""
    if is_too_large(close):
        return " Raise max_message_bytes of symphony.connect() if the server may send messages of this size."
    words = _ADVICE.get(close.code, "The app says what this code means." if close.code >= 3000 else "")
    return words and f" {words}"


def is_too_large(close: Close) -> bool:
    """Return whether the client has closed because a message of the server was too large for it."""
    return not close.clean and close.code == _TOO_LARGE


class Returning:
    """Decides whether a client reconnects after an end or a failed attempt.

    Args:
        options: The options of the client.
        where: The address of the server, for the log.
        time: Returns the time in seconds.
    """

    __slots__ = ("_connected", "_odd_since", "_options", "_renewed", "_said", "_time", "_too_large", "_where")

    def __init__(self, options: Options, where: str, time: Callable[[], float]) -> None:
        self._options = options
        self._where = where
        self._time = time
        self._connected = False
        # Whether a new token was requested since a connection has lasted.
        self._renewed = False
        self._odd_since: float | None = None
        self._said = ""
        # When messages came that were too large.
        self._too_large: deque[float] = deque(maxlen=MAX_TOO_LARGE)

    def opened(self) -> None:
        """Note that a connection has opened."""
        self._connected = True

    def lasted(self) -> None:
        """Note that a connection has lasted."""
        self._renewed = False
        self._odd_since = None
        self._said = ""

    def after_close(self, close: Close, refusal: RemoteError | None) -> bool:
        """Return whether to reconnect after the end of a connection."""
        if not self._options.reconnect:
            return False
        if refusal is None and is_too_large(close) and self._comes_again():
            return False
        if refusal is None and not close.clean and not comes_back(close.code):
            # The server, or a proxy, has sent something that is not a WebSocket message.
            return self._odd(f"the connection was lost ({how(close)}).{advice(close)}")
        again = comes_back(close.code) if refusal is None else refusal.retryable
        return self._decided(close.code, again, refusal)

    def after_failure(self, failure: DialError) -> bool:
        """Return whether to try again after a failed attempt."""
        if not self._options.reconnect:
            return False
        if self._connected and not failure.decided and not failure.again:
            return self._odd(failure.message)
        self._odd_since = None
        return self._decided(failure.code, failure.again, failure.refusal)

    def _decided(self, code: int, again: bool, refusal: RemoteError | None) -> bool:
        unauthorized = code == UNAUTHORIZED if refusal is None else refusal.code == "unauthorized"
        if unauthorized and callable(self._options.token) and not self._renewed:
            self._renewed = again = True
        return again

    def _comes_again(self) -> bool:
        """Return whether the server sends it again and again, such as a snapshot at each join."""
        # Not in a row: some time may pass on each connection before it comes.
        now = self._time()
        self._too_large.append(now)
        return len(self._too_large) == MAX_TOO_LARGE and now - self._too_large[0] < _TOO_LARGE_WINDOW

    def _odd(self, seen: str) -> bool:
        """Return whether to try again after an answer that Symphony does not give."""
        now, most = self._time(), self._options.give_up_after
        if self._odd_since is None:
            self._odd_since = now
        if most is not None and now - self._odd_since >= most:
            return False
        # Warn only once: it tries again every few seconds.
        if seen != self._said:
            self._said = seen
            limit = "until it works" if most is None else f"for up to {most - now + self._odd_since:.0f} s"
            logger.warning(
                "%s: %s The client was connected before, so it tries again %s.", self._where, seen, limit
            )
        return True
