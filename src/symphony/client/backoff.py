"""Whether and when a client reconnects (`docs/protocol.md`, "Closing"). Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Final

from symphony.websocket.close import COMES_BACK

__all__ = ("ELSEWHERE", "UNAUTHORIZED", "Backoff", "answer_comes_back", "comes_back")

UNAUTHORIZED: Final = 4401
ELSEWHERE: Final = 4421
LASTED: Final = 5.0
"""A connection that was open for this many seconds resets the backoff."""

_STAY_AWAY: Final = frozenset((4400, 4401, 4403, 4404, 4409, 4410))
_MAX_HINT: Final = 24 * 3600.0
# With 8 workers, 16 attempts reach the right one in 88 of 100 cases. The others need more
# of them: with one attempt a delay, clients of 8 workers were not there after 30 s (Nov 2026).
_MAX_AT_ONCE: Final = 16
# Measured with 500 clients and a server that was away for 8 s, Nov 2026, see
# tests/faults/test_storm.py.
_GROWTH: Final = 1.5
# 1.5 ** 2048 overflows a float.
_MAX_GROWTHS: Final = 100


def comes_back(code: int) -> bool:
    """Return whether a client reconnects after a close code."""
    return code in COMES_BACK


def answer_comes_back(status: int) -> bool:
    """Return whether a client reconnects after an HTTP response to its handshake."""
    code = 4000 + status
    if code in COMES_BACK or code in _STAY_AWAY:
        return code in COMES_BACK
    return status == 425 or 500 <= status <= 599


class Backoff:
    """The delays of one client before its attempts.

    The first one is between 0 and *base*, so that clients which lost their
    connections together do not return together. Each failed attempt makes the
    limit half as large again, and then the delay is in the upper half of it. So
    when the server is back, the clients follow within two thirds of the time
    that it was away.

    A client that was sent elsewhere tries again without a delay.

    Args:
        base: Upper limit of the first delay, in seconds.
        longest: Upper limit of every delay.
        uniform: Returns a random number between two others, like
            `random.uniform`.
    """

    __slots__ = (
        *("_at_once", "_attempts", "_base", "_elsewhere"),
        *("_hint", "_later", "_longest", "_uniform"),
    )

    def __init__(self, base: float, longest: float, uniform: Callable[[float, float], float]) -> None:
        self._base = base
        self._longest = longest
        self._uniform = uniform
        self._attempts = 0
        self._hint = 0.0
        self._later = False
        # How often in a row it was sent elsewhere, and whether the next attempt is made at once.
        self._elsewhere = 0
        self._at_once = False

    def hint(self, seconds: float) -> None:
        """Add *seconds* to the next delay, as the server asked."""
        # At most a day: a wrong value must not keep a client away forever. NaN counts as
        # no delay.
        self._hint = min(max(seconds, 0.0), _MAX_HINT) if not isnan(seconds) else 0.0
        # A server that answers is back. Only the first such answer resets the delays, or
        # clients of a full server would never slow down.
        if not self._later:
            self._later = True
            self._attempts = 0

    def elsewhere(self) -> None:
        """Make the next attempt at once, since it may reach another node; wait after some of them."""
        self._at_once = self._elsewhere < _MAX_AT_ONCE
        self._elsewhere = self._elsewhere + 1 if self._at_once else 0

    def unanswered(self) -> None:
        """Note that an attempt has failed without such an answer."""
        self._later = False

    def lasted(self, seconds: float) -> bool:
        """Reset the backoff if a connection was open long enough; return whether it was."""
        if seconds < LASTED:
            return False
        self._attempts = self._elsewhere = 0
        self._later = False
        return True

    def next(self) -> float:
        """Return the next delay, and raise the limit for the one after it."""
        if self._at_once:
            self._at_once = False
            return 0.0
        attempts, hint, self._hint = self._attempts, self._hint, 0.0
        # Clients that a server sends away together spread their returns over the time that
        # it asked for.
        first = max(self._base, hint)
        bound = min(self._longest, first * _GROWTH ** min(attempts, _MAX_GROWTHS))
        self._attempts += 1
        return hint + self._uniform(bound / 2 if attempts else 0.0, bound)
