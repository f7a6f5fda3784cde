"""The rooms of a node: who is in which, and how rooms come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from symphony.broker.base import Broker
from symphony.errors import Reject
from symphony.outgoing.batch import Batch, Batches, Recipient
from symphony.outgoing.encoding import Emitted, Sent
from symphony.protocol.envelopes import Join
from symphony.protocol.positions import Position
from symphony.rooms.announcing import LEFT, NOW, REMOVED, Announcing, Start
from symphony.rooms.changes import Change, Changes, refuse_gone, undone
from symphony.rooms.family import Family, Hook
from symphony.rooms.feed import Feed
from symphony.rooms.live import Live
from symphony.rooms.options import Delivery
from symphony.rooms.publishing import Publication, Publishing
from symphony.rooms.room import Room
from symphony.rooms.running import run_all
from symphony.rooms.tasks import RoomTasks
from symphony.socket import recipient_of
from symphony.websocket.backpressure import TURN

if TYPE_CHECKING:
    from symphony.socket import Socket

__all__ = ("Membership",)

logger = logging.getLogger("symphony.app")

EVERYONE = ""

FindFamily = Callable[[str], "tuple[Family, dict[str, Any]]"]


class Membership:
    """The members of all rooms of a node.

    Args:
        find_family: The family and parameters of a room's name.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.
        broker: Keeps the histories; `None`: no family has one.
        patience: How many seconds the tasks of a room have to end.
        max_name: `Limits.max_room_name`.
        max_recovery: `Limits.max_recovery`.
    """

    def __init__(
        self,
        find_family: FindFamily,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
        *,
        broker: Broker | None,
        patience: float,
        max_name: int,
        max_recovery: int,
    ) -> None:
        self.thread = get_ident()
        self._loop = asyncio.get_running_loop()
        self.batches = Batches(self._loop.call_soon, self._not_encoded)
        self.everyone = Batch(EVERYONE)
        self._rooms: dict[str, Live] = {}
        self._find_family = find_family
        self._background = background
        self._report = report
        self._patience = patience
        self._changes = Changes()
        self._max_name = max_name
        self._broker = broker
        self._announcing = Announcing(self.batches, background, max_recovery)
        self._publishing = Publishing(broker, self.batches, lambda name: find_family(name)[0])

    def __len__(self) -> int:
        return len(self._rooms)

    def room(self, name: str) -> Room:
        """Return a handle of a room, whether or not it has members.

        Raises:
            Reject: `invalid`: no room can have this name.
        """
        # Nearly all publications are for a room with members, whose name was checked.
        if not isinstance(name, str) or name not in self._rooms:  # pyright: ignore[reportUnnecessaryIsInstance]
            Room.check_name(name, self._max_name)
            self._find_family(name)
        return Room(self, name)

    def batch(self, name: str) -> Batch | None:
        """Return the members of a room; of all sockets for the empty name."""
        return self._rooms.get(name) if name else self.everyone

    def publish(self, batch: Batch, message: Any, exclude: Iterable[Recipient]) -> Awaitable[None]:
        """Hand *message* to the members of *batch*."""
        return self.batches.publish(batch, message, exclude)

    def announce(
        self, name: str, message: Sent | Emitted, exclude: Sequence[Recipient], delivery: Delivery
    ) -> Awaitable[Position | None]:
        """Publish *message* to a room that clients are told about, or that has no members."""
        return self._publishing.publish(name, self._rooms.get(name), message, exclude, delivery)

    async def history(self, name: str, limit: int, before: Position | None) -> list[Publication]:
        """Return the last publications that a room keeps."""
        return await self._publishing.history(name, limit, before)

    def paced(self) -> Awaitable[None]:
        """Return what a call awaits that may be repeated in a loop."""
        return self.batches.paced()

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

    async def join(
        self,
        socket: Socket[Any],
        name: str,
        *,
        authorize: bool,
        most: int,
        asked: Join | None = None,
    ) -> Room:
        """Make *socket* a member, if the hooks of the room allow it.

        Joins and leaves of one socket and one room run one after the other. A leave during
        a join undoes the join: what `on_join` has begun, `on_leave` then ends.

        Args:
            socket: The socket.
            name: The name of the room.
            authorize: Whether to ask the `authorize` hook.
            most: In how many rooms a socket may be.
            asked: The request of the client, if it has asked for it. Its publications then
                begin anew if it is a member already.
        """
        room, recipient = self.room(name), recipient_of(socket)
        was_undone = await self._changes.settled(recipient, name)
        refuse_gone(recipient, name)
        if was_undone:
            raise undone(name)
        if recipient in self._members(name):
            if asked is not None:
                await self._restart(recipient, name, asked.since)
            await self.batches.paced()
            return room
        family, params = self._find_family(name)
        if asked is not None and not family.opens_to_clients:
            raise Reject("forbidden", f"clients may not ask to join {name!r}")
        asks = authorize and family.authorize is not None
        if not asks and family.on_join is None and family.policy.history is None:
            self._enter(socket, name, family, params, most, NOW)
            await self.batches.paced()
            return room
        with self._changes.changing(recipient, name) as change:
            if authorize and family.authorize is not None:
                if await family.authorize(socket, room) is False:
                    raise Reject("forbidden", f"you may not join {name!r}")
                change.check(recipient, name)
                if recipient in self._members(name):
                    # The hook itself has let it join.
                    return room
            live = self._at_work(name, family, params)
            live.hooks += 1
            # If it is about to end, it goes on: `_end_if_empty` decides anew.
            live.stay()
            try:
                start = await self._announcing.start(live, None if asked is None else asked.since)
                change.check(recipient, name)
                self._enter(socket, name, family, params, most, start)
            finally:
                live.hooks -= 1
                self._end_if_empty(live)
            if family.on_join is not None:
                change.joins = live
                await self._joined(socket, live, family.on_join, change)
        await self.batches.paced()
        return room

    async def _restart(self, recipient: Recipient, name: str, since: Position | str | None) -> None:
        """Let a member begin again, at *since*."""
        live = self._rooms[name]
        with self._changes.changing(recipient, name) as change:
            start = await self._announcing.start(live, since)
            change.check(recipient, name)
            if recipient not in live:
                raise undone(name)
            self._announcing.restart(live, recipient, start)

    async def leave(self, socket: Socket[Any], name: str) -> bool:
        """Take *socket* out of a room; whether it was in it."""
        self.room(name)
        recipient = recipient_of(socket)
        change = self._changes.of(recipient).get(name)
        was_member = recipient in self._members(name)
        self._changes.undo_waiting(recipient, name)
        if change is not None and (change.joins is not None or not was_member):
            # The join that is under way ends it: it knows whether `on_join` has succeeded.
            change.undone = True
            if was_member:
                self._announcing.remove(self._rooms[name], recipient, LEFT)
            await self._changes.settled(recipient, name)
        elif was_member:
            live = self._rooms[name]
            self._announcing.remove(live, recipient, LEFT)
            live.hooks += 1
            try:
                if live.family.on_leave:
                    with self._changes.changing(recipient, name):
                        await self._run_all(live.family.on_leave, socket, live, "on_leave")
            finally:
                live.hooks -= 1
                self._end_if_empty(live)
        await (TURN if recipient.outbox.sealed else self.batches.paced())
        return was_member

    def leave_all(self, socket: Socket[Any]) -> Coroutine[Any, Any, None] | None:
        """Take a socket that has gone out of all of its rooms at once.

        Returns:
            What runs its `on_leave` hooks, if there are any. It returns when all hooks of
            the socket have ended; those that fail are reported.
        """
        recipient = recipient_of(socket)
        changes = self._changes.of(recipient)
        left: list[Live] = []
        for batch in tuple(recipient.batches):
            live = self._rooms.get(batch.name)
            if live is None or batch is self.everyone:
                self.batches.remove(batch, recipient)
                continue
            self._announcing.remove(live, recipient)
            change = changes.get(live.name)
            if change is not None and change.joins is live:
                continue
            if live.family.on_leave:
                live.hooks += 1
                left.append(live)
            else:
                self._end_if_empty(live)
        for change in changes.values():
            change.undone = True
        return self._left(socket, left, tuple(changes.values())) if left or changes else None

    async def _left(self, socket: Socket[Any], left: list[Live], changes: tuple[Change, ...]) -> None:
        for live in left:
            await self._leave_hooks(socket, live)
            live.hooks -= 1
            self._end_if_empty(live)
        for change in changes:
            await change.wait()

    async def _joined(self, socket: Socket[Any], live: Live, on_join: Hook, change: Change) -> None:
        """Run the `on_join` hook of a socket that has just entered."""
        recipient = recipient_of(socket)
        live.hooks += 1
        try:
            await on_join(socket, Room(self, live.name))
        except BaseException:
            if recipient in live:
                self._announcing.remove(live, recipient, REMOVED)
            raise
        finally:
            try:
                if change.undone:
                    # It was a member, and has left: nothing of `on_join` may stay.
                    await self._leave_hooks(socket, live)
            finally:
                live.hooks -= 1
                self._end_if_empty(live)
        change.check(recipient, live.name)

    async def _leave_hooks(self, socket: Socket[Any], live: Live) -> None:
        try:
            await self._run_all(live.family.on_leave, socket, live, "on_leave")
        except BaseException as error:
            self._report(error, socket, f"on_leave of {live.name!r}")

    def _members(self, name: str) -> Batch | tuple[()]:
        return self._rooms.get(name) or ()

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
        if self._broker is not None:
            self._broker.close()

    def _enter(
        self,
        socket: Socket[Any],
        name: str,
        family: Family,
        params: dict[str, Any],
        limit: int,
        start: Start,
    ) -> Live:
        recipient = recipient_of(socket)
        if len(recipient.batches) - (recipient in self.everyone) >= limit:
            raise Reject("too_many", f"the socket is in {limit} rooms already", details={"max_rooms": limit})
        live = self._at_work(name, family, params)
        if (most := family.policy.max_members) is not None and len(live) >= most:
            raise Reject("room_full", f"{name!r} is full", details={"room": name, "max_members": most})
        live.stay()
        live.began = True
        self._announcing.add(live, recipient, socket, start)
        if live.tasks is not None:
            live.tasks.start()
        return live

    def _at_work(self, name: str, family: Family, params: dict[str, Any]) -> Live:
        """Return the room, which is made if this is its first join."""
        live = self._rooms.get(name)
        if live is not None:
            return live
        tasks = (
            RoomTasks(family.tasks, Room(self, name), self._background, self._report, self._patience)
            if family.tasks
            else None
        )
        live = self._rooms[name] = Live(name, family, params, tasks)
        if family.policy.history is not None and self._broker is not None:
            deliver = partial(self.batches.publish, live)
            live.feed = Feed(self._broker, name, deliver, partial(self._not_encoded, batch=live))
        return live

    def _end_if_empty(self, live: Live) -> None:
        over = live.linger is not None or live.ending is not None or self._rooms.get(live.name) is not live
        if over or len(live) or live.hooks:
            return
        linger = live.family.policy.linger
        if not live.began:
            self._remove(live)
        elif linger > 0:
            live.linger = self._loop.call_later(linger, self._end, live)
        else:
            self._end(live)

    def _end(self, live: Live) -> None:
        if live.tasks is not None:
            live.tasks.end()
        if live.family.on_empty or (live.tasks is not None and live.tasks.running):
            # The room is still there for its tasks and its hook, and gone once these have
            # ended, unless a socket joined meanwhile.
            live.ending = self._background(self._run_empty(live))
        else:
            self._remove(live)

    async def _run_empty(self, live: Live) -> None:
        try:
            if tasks := live.tasks.running if live.tasks is not None else ():
                # A task that has emptied its room may run for `patience` seconds and one more turn.
                _, late = await asyncio.wait(tasks, timeout=self._patience + 1)
                if late:
                    logger.error("%d tasks of room %r did not end and are abandoned.", len(late), live.name)
            if live.ending is asyncio.current_task():
                await self._run_all(live.family.on_empty, None, live, "on_empty")
        finally:
            # A socket that joined meanwhile has undone this end, even if it has left again.
            if live.ending is asyncio.current_task():
                self._remove(live)

    def _remove(self, live: Live) -> None:
        self._rooms.pop(live.name, None)
        if live.feed is not None:
            live.feed.close()

    async def _run_all(
        self, hooks: tuple[Hook, ...], socket: Socket[Any] | None, live: Live, kind: str
    ) -> None:
        await run_all(hooks, socket, Room(self, live.name), kind, self._report)
