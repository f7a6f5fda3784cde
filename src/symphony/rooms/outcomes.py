"""What a publisher awaits if the broker lives in another process, or stores what it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.rooms.feed import Feed

__all__ = ("Outcome", "Passed", "heard")

T = TypeVar("T")

Report = Callable[[BaseException], object]


class Outcome(Generic[T]):
    """The result of a publication, which may fail.

    If it is not awaited, its failure is reported.

    Args:
        result: What the broker has returned.
        report: Called with the exception of a publication that is not awaited.
        then: Returns what is awaited after the result.
    """

    __slots__ = ("_is_awaited", "_report", "_result", "_then")

    def __init__(
        self, result: Awaitable[T], report: Report, then: Callable[[T], Awaitable[object]] | None = None
    ) -> None:
        self._result = result
        self._report = report
        self._then = then
        self._is_awaited = False

    def __await__(self) -> Generator[Any, Any, T]:
        self._is_awaited = True
        result = self._result
        if isinstance(result, asyncio.Future):
            # Who gives up waiting does not take the publication back.
            value = yield from asyncio.shield(result).__await__()
        else:
            value = yield from result.__await__()
        if self._then is not None:
            yield from self._then(value).__await__()
        return value

    def __del__(self) -> None:
        result = self._result
        if not self._is_awaited and isinstance(result, asyncio.Future):
            result.add_done_callback(partial(_report_failure, self._report))


class Passed(Outcome[Any]):
    """The outcome of a call without a result."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        yield from super().__await__()


def _report_failure(report: Report, result: asyncio.Future[Any]) -> None:
    error = None if result.cancelled() else result.exception()
    if error is not None:
        report(error)


async def heard(feed: Feed, timeout: float, position: Position) -> None:
    """Wait until the members of this node have got a publication, or *timeout* is over."""
    try:
        async with asyncio.timeout(timeout):
            await feed.reached(position)
    except TimeoutError:
        # It is published, and they get it as soon as the history can be read.
        return
