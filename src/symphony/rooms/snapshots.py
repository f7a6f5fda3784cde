"""The snapshot of a room: what a member gets before the publications."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from symphony.outgoing.encoding import RAW, Content, Sent
from symphony.protocol.envelopes import SNAPSHOT
from symphony.rooms.lives import inside
from symphony.rooms.starts import NOW, Start

if TYPE_CHECKING:
    from symphony.outgoing.encoding import Dialect, Message
    from symphony.rooms.family import Hook
    from symphony.rooms.live import Live
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("Plainly", "Snapshot", "Snapshots")

# Before a snapshot that has failed is taken again, after a loss.
_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0


class Snapshot(NamedTuple):
    """The compiled hook of a family: one of the two.

    Attributes:
        later: An `async def`.
        now: A plain function, which runs in one step of the loop.
    """

    later: Hook | None
    now: Callable[[Any, Any], Any] | None


class Plainly:
    """A snapshot for a protocol that does not know rooms.

    Args:
        content: The snapshot.
    """

    __slots__ = ("_content",)

    def __init__(self, content: Content) -> None:
        self._content = content

    def encode(self, dialect: Dialect) -> Message:
        """Return its message: on a raw route the snapshot itself, otherwise an event."""
        if dialect is RAW:
            return dialect.message(self._content.plain)
        return dialect.event(SNAPSHOT, self._content.data(dialect))


class Snapshots:
    """Takes the snapshots of the rooms of a node.

    Args:
        handle: Returns the handle of a room.
        report: Called with the exception of a hook that no caller awaits.
    """

    def __init__(
        self, handle: Callable[[str], Room], report: Callable[[BaseException, Any, str], None]
    ) -> None:
        self._handle = handle
        self._report = report

    async def before(self, socket: Socket[Any], live: Live, start: Start) -> Start:
        """Add the snapshot of an `async def`, which is taken before the member is attached.

        It may have later publications already. These follow all the same.
        """
        snapshot = live.family.snapshot
        if snapshot is None or snapshot.later is None or start.recovered:
            return start
        assert live.feed is not None
        after = live.feed.last
        with inside(live):
            data = await snapshot.later(socket, self._handle(live.name))
        return Start(after, start.recovered, _content(data))

    def attached(self, socket: Socket[Any], live: Live, start: Start) -> Start:
        """Add the snapshot of a `def`, which is taken in the step in which the member is attached."""
        snapshot = live.family.snapshot
        if snapshot is None or snapshot.now is None or start.recovered:
            return start
        with inside(live):
            data = snapshot.now(socket, self._handle(live.name))
        after = None if live.feed is None else live.feed.last
        return Start(after, start.recovered, _content(data))

    async def again(self, socket: Socket[Any], live: Live, goes_on: Callable[[], bool]) -> Start | None:
        """Take the snapshot again, after a loss. If it fails, that is reported, and tried again.

        Args:
            socket: The socket of the member.
            live: The room, which has a history.
            goes_on: Whether the member still waits for it.

        Returns:
            Where it goes on; `None`: it waits no more. A plain hook was called in this step.
        """
        pause = _PAUSE
        while goes_on():
            try:
                start = self.attached(socket, live, await self.before(socket, live, NOW))
            except Exception as error:
                self._report(error, socket, f"snapshot of room {live.name!r}")
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                return start if goes_on() else None
        return None


def _content(data: Any) -> Content | None:
    return None if data is None else Content.of(Sent(data))
