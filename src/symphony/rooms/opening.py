"""What an app does with a room as a whole: it opens a room before anybody joins, and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from symphony.rooms.announcing import End
from symphony.rooms.leave import Leave

if TYPE_CHECKING:
    from symphony.outgoing.batch import Recipient
    from symphony.rooms.joining import FindFamily
    from symphony.rooms.leaving import Leaving
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.seating import Seating

__all__ = ("Opening",)


class Opening:
    """Opens and closes the rooms of a node.

    Args:
        find_family: The family and parameters of a room's name.
        lives: The rooms.
        leaving: Takes members out.
        end_listeners: Ends the listeners of a room.
        seating: The members, and the homes of rooms.
        background: Starts a task of the app's whose exception is reported.
        patience: How many seconds a member that is behind has to catch up, when its room
            is closed.
    """

    def __init__(
        self,
        find_family: FindFamily,
        lives: Lives,
        leaving: Leaving,
        end_listeners: Callable[[Live], object],
        seating: Seating,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        patience: float,
    ) -> None:
        self._find_family = find_family
        self._lives = lives
        self._leaving = leaving
        self._end_listeners = end_listeners
        self._seating = seating
        self._background = background
        self._patience = patience

    async def open(self, name: str, state: Any | EllipsisType, ttl: float) -> bool:
        """Make a room, and start its tasks; return whether this call has made it.

        Args:
            name: The name of the room, which is valid.
            state: Its state; `...`: its factory creates it.
            ttl: How many seconds it waits for the first member.

        Raises:
            Exception: What the factory raised.
        """
        family, params = self._find_family(name)
        if state is not ... and family.state is None:
            raise ValueError(f"The rooms {family.policy.pattern!r} have no state. Give them state=.")
        while True:
            live = self._lives.at_work(name, family, params)
            if live.over is not None or live.ending is not None:
                await self._lives.gone(live)
                continue
            if live.began:
                return False
            with self._lives.held(live):
                if live.making is not None:
                    # Another call creates the state, so this one does not make the room.
                    await self._lives.make_state(live)
                    return False
                await self._seating.settle(live)
                if live.began or live.making is not None:
                    continue
                if state is ...:
                    await self._lives.make_state(live)
                else:
                    live.has_state(state)
                if live.over is None:
                    self._lives.opened(live, ttl)
                    return True

    async def close(self, name: str, code: int, reason: str) -> None:
        """End a room and all memberships in it; return when their `on_leave` hooks have ended.

        Members get the publications up to now, also those that are behind.
        """
        live = self._lives.rooms.get(name)
        if live is None:
            return
        live.is_closed = True
        self._end_listeners(live)
        if live.over is not None:
            return
        leave = Leave("closed", code)
        closing = _Closing(live, self._leaving, leave, End("closed", reason or "the room was closed"))
        live.hooks += 1
        live.closed = leave
        self._lives.doom(live)
        if live.attendance is not None:
            self._seating.departing.dismiss_all(live, leave)
        first = closing.put_out(tuple(recipient for recipient in live if recipient not in live.catching))
        # In another task: each hook runs, also if the caller is cancelled.
        task = self._background(closing.run(first, self._patience))
        task.add_done_callback(lambda _: self._lives.let_go(live))
        await asyncio.wait((task,))


class _Closing:
    """The end of the memberships of one room."""

    def __init__(self, live: Live, leaving: Leaving, leave: Leave, end: End) -> None:
        self._live = live
        self._leaving = leaving
        self._leave = leave
        self._end = end

    async def run(self, first: Coroutine[Any, Any, None], patience: float) -> None:
        """Run the hooks of the members that are out, and take the others out."""
        await first
        if self._live.late:
            await self._put_out_late(patience)

    def put_out(self, recipients: tuple[Recipient, ...]) -> Coroutine[Any, Any, None]:
        """Take members out at once; what is returned runs their hooks."""
        return self._leaving.put_out_all(self._live, recipients, self._leave, self._end)

    async def _put_out_late(self, patience: float) -> None:
        """Take those out that are behind, each when it has caught up."""
        live = self._live
        left: list[Coroutine[Any, Any, None]] = []
        last = asyncio.get_running_loop().create_future()

        def caught_up(recipient: Recipient) -> None:
            left.append(self.put_out((recipient,)))
            if not live.late and not last.done():
                last.set_result(None)

        live.caught_up = caught_up
        await asyncio.wait((last,), timeout=patience)
        for recipient in live.late:
            # It reads too slowly for what it should have got. It comes back for the rest.
            live.behind[recipient].close(1013, "slow consumer")
        for hooks in left:
            await hooks
