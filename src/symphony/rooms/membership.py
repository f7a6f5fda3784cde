"""The rooms of a node: who is in which, and how rooms come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any

from symphony.errors import Reject
from symphony.outgoing.batch import Batch, Batches, Recipient
from symphony.rooms.family import Family, Hook
from symphony.rooms.room import Room
from symphony.socket import recipient_of

if TYPE_CHECKING:
    from symphony.socket import Socket

__all__ = ("Membership",)

EVERYONE = ""

FindFamily = Callable[[str], "tuple[Family, dict[str, Any]]"]


class _Live(Batch):
    """A room that has members, or had them less than its linger ago."""

    __slots__ = ("ending", "family", "leaving", "linger", "params", "state", "tasks")

    def __init__(self, name: str, family: Family, params: dict[str, Any]) -> None:
        super().__init__(name)
        self.family = family
        self.params = params
        make = family.policy.state
        self.state = make() if make is not None else None
        self.linger: asyncio.TimerHandle | None = None
        self.ending: asyncio.Task[Any] | None = None
        # Sockets whose `on_leave` hooks run: the room does not end before these are done.
        self.leaving = 0
        self.tasks: list[asyncio.Task[Any]] = []


class Membership:
    """The members of all rooms of a node.

    Args:
        find_family: The family and parameters of a room's name.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.
        max_name: `Limits.max_room_name`.
    """

    def __init__(
        self,
        find_family: FindFamily,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
        *,
        max_name: int,
    ) -> None:
        self.thread = get_ident()
        self._loop = asyncio.get_running_loop()
        self.batches = Batches(self._loop.call_soon, self._not_encoded)
        self.everyone = Batch(EVERYONE)
        self._rooms: dict[str, _Live] = {}
        self._find_family = find_family
        self._background = background
        self._report = report
        self._max_name = max_name

    def __len__(self) -> int:
        return len(self._rooms)

    def batch(self, name: str) -> Batch | None:
        """Return the members of a room; of all sockets for the empty name."""
        return self._rooms.get(name) if name else self.everyone

    def publish(self, batch: Batch, message: Any, exclude: Iterable[Recipient]) -> None:
        """Hand *message* to the members of *batch*."""
        self.batches.publish(batch, message, exclude)

    def _not_encoded(self, error: Exception, batch: Batch) -> None:
        where = f"room {batch.name!r}" if batch.name else "everyone"
        self._report(error, None, f"publication to {where}, for members with another protocol,")

    def state(self, name: str) -> Any:
        """Return the state of a room, `None` while it is gone."""
        room = self._rooms.get(name)
        return None if room is None else room.state

    def params(self, name: str) -> Mapping[str, Any]:
        """Return the parameters in a room's name."""
        room = self._rooms.get(name)
        return self._find_family(name)[1] if room is None else room.params

    async def join(self, socket: Socket[Any], name: str, *, authorize: bool) -> Room:
        """Make *socket* a member, if the hooks of the room allow it."""
        if not name or len(name) > self._max_name:
            raise ValueError(f"A room's name has 1 to {self._max_name} characters, not {len(name)}.")
        room = Room(self, name)
        if socket in room:
            return room
        family, params = self._find_family(name)
        if authorize and family.authorize is not None and await family.authorize(socket, room) is False:
            raise Reject("forbidden", f"you may not join {name!r}")
        if socket in room:
            return room
        if recipient_of(socket).outbox.sealed:
            raise Reject("unavailable", f"the socket went before it had joined {name!r}")
        live = self._enter(socket, name, family, params)
        if family.on_join is not None:
            try:
                await family.on_join(socket, room)
            except BaseException:
                # The hook itself may have let it leave.
                if socket in room:
                    self.batches.remove(live, recipient_of(socket))
                    self._end_if_empty(live)
                raise
        return room

    async def leave(self, socket: Socket[Any], name: str) -> bool:
        """Take *socket* out of a room; whether it was in it."""
        live = self._rooms.get(name)
        if live is None or recipient_of(socket) not in live:
            return False
        self.batches.remove(live, recipient_of(socket))
        live.leaving += 1
        try:
            await self._run_all(live.family.on_leave, socket, name, "on_leave")
        finally:
            live.leaving -= 1
            self._end_if_empty(live)
        return True

    async def leave_all(self, socket: Socket[Any]) -> None:
        """Take *socket* out of all of its rooms; hooks that fail are reported."""
        recipient = recipient_of(socket)
        for batch in tuple(recipient.batches):
            if batch is self.everyone:
                self.batches.remove(batch, recipient)
                continue
            try:
                await self.leave(socket, batch.name)
            except BaseException as error:
                self._report(error, socket, f"on_leave of {batch.name!r}")

    async def close(self, *, timeout: float) -> None:
        """End all rooms at once, their tasks and their lingers.

        Args:
            timeout: How long the `on_empty` hooks may take.
        """
        rooms = tuple(self._rooms.values())
        for live in rooms:
            if live.linger is not None:
                live.linger.cancel()
            if live.ending is None:
                self._end(live)
        endings = [live.ending for live in rooms if live.ending is not None]
        if endings:
            await asyncio.wait(endings, timeout=timeout)

    def _enter(self, socket: Socket[Any], name: str, family: Family, params: dict[str, Any]) -> _Live:
        live = self._rooms.get(name)
        if live is None:
            live = _Live(name, family, params)
            self._rooms[name] = live
        elif (most := family.policy.max_members) is not None and len(live) >= most:
            raise Reject("room_full", f"{name!r} is full", details={"room": name, "max_members": most})
        if live.linger is not None:
            live.linger.cancel()
            live.linger = None
        live.ending = None
        self.batches.add(live, recipient_of(socket), socket)
        if not live.tasks:
            live.tasks = [self._background(task(None, Room(self, name))) for task in family.tasks]
        return live

    def _end_if_empty(self, live: _Live) -> None:
        over = live.linger is not None or live.ending is not None or self._rooms.get(live.name) is not live
        if over or live.recipients or live.leaving:
            return
        linger = live.family.policy.linger
        if linger > 0:
            live.linger = self._loop.call_later(linger, self._end, live)
        else:
            self._end(live)

    def _end(self, live: _Live) -> None:
        for task in live.tasks:
            task.cancel()
        live.tasks = []
        if live.family.on_empty:
            # The room is still there for its hook, and gone once it returns,
            # unless somebody joined meanwhile.
            live.ending = self._background(self._run_empty(live))
        else:
            self._rooms.pop(live.name, None)

    async def _run_empty(self, live: _Live) -> None:
        try:
            await self._run_all(live.family.on_empty, None, live.name, "on_empty")
        finally:
            # Who has joined meanwhile undid this end, even if he has left again.
            if live.ending is asyncio.current_task():
                del self._rooms[live.name]

    async def _run_all(
        self, hooks: tuple[Hook, ...], socket: Socket[Any] | None, name: str, kind: str
    ) -> None:
        """Run each hook, whatever those before it raise.

        Raises:
            BaseException: What the first of them raised; the rest is reported.
        """
        raised: BaseException | None = None
        for hook in hooks:
            try:
                await hook(socket, Room(self, name))
            except BaseException as error:
                if raised is not None and isinstance(raised, Exception) and not isinstance(error, Exception):
                    # A cancellation must reach the code that cancelled.
                    raised, error = error, raised
                if raised is None:
                    raised = error
                else:
                    self._report(error, socket, f"{kind} of {name!r}")
        if raised is not None:
            raise raised
