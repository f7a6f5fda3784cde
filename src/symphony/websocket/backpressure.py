"""Awaitables for senders: they wait while the peer reads more slowly than is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

__all__ = ("READY", "TURN", "Drained")


class _Ready:
    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class _Turn:
    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield


class Drained:
    """An awaitable that starts to wait only when it is awaited.

    Most sends are not awaited. If each created a future, the futures would stay
    until the peer reads again.

    Args:
        wait: Called when it is awaited; returns the generator that waits.
    """

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Generator[Any, None, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait()


READY: Final[Awaitable[None]] = _Ready()
"""An awaitable that is done: awaiting it does not suspend."""
TURN: Final[Awaitable[None]] = _Turn()
"""An awaitable that suspends for one turn of the event loop."""
