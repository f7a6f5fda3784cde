"""When a client comes back, and whether (`docs/protocol.md`, "Closing"). Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ("UNAUTHORIZED", "Backoff", "answer_comes_back", "comes_back")

UNAUTHORIZED: Final = 4401
LASTED: Final = 5.0
"""A connection that was open for so many seconds makes the bound begin anew."""

_COME_BACK: Final = frozenset((1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4429, 4503))
_STAY_AWAY: Final = frozenset((4400, 4401, 4403, 4404, 4409))
_LONGEST_HINT: Final = 24 * 3600.0
# 2.0 ** 1024 is no float any more.
_MAX_DOUBLINGS: Final = 64


def comes_back(code: int) -> bool:
    """Return whether a client comes back after a close code."""
    return code in _COME_BACK


def answer_comes_back(status: int) -> bool:
    """Return whether a client comes back after an HTTP answer to its handshake."""
    code = 4000 + status
    if code in _COME_BACK or code in _STAY_AWAY:
        return code in _COME_BACK
    return status == 425 or 500 <= status <= 599


class Backoff:
    """How long one client waits before its next attempt: full jitter.

    Args:
        base: The bound of the first wait, in seconds.
        longest: The largest bound.
        uniform: A random number between two others, as `random.uniform`.
    """

    __slots__ = ("_attempts", "_base", "_hint", "_longest", "_uniform")

    def __init__(self, base: float, longest: float, uniform: Callable[[float, float], float]) -> None:
        self._base = base
        self._longest = longest
        self._uniform = uniform
        self._attempts = 0
        self._hint = 0.0

    def hint(self, seconds: float) -> None:
        """Put so many seconds before the next wait: the server wants to be left alone."""
        # Not above a day: a wrong one must not keep a client away for ever.
        self._hint = min(max(seconds, 0.0), _LONGEST_HINT)

    def lasted(self, seconds: float) -> bool:
        """Begin anew if a connection was open for long enough; return whether it was."""
        if seconds < LASTED:
            return False
        self._attempts = 0
        return True

    def next(self) -> float:
        """Return how long to wait now; the bound of the wait after it is twice as large."""
        bound = min(self._longest, self._base * 2.0 ** min(self._attempts, _MAX_DOUBLINGS))
        self._attempts += 1
        hint, self._hint = self._hint, 0.0
        return hint + self._uniform(0.0, bound)
