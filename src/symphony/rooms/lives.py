"""The life of the rooms of a node: how a room is made, lingers and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from symphony.outgoing.terms import Terms
from symphony.rooms.feed import Feed
from symphony.rooms.live import Live
from symphony.rooms.making import Making
from symphony.rooms.relaying import Topic
from symphony.rooms.running import run_all
from symphony.rooms.sharedfeed import SharedFeed
from symphony.rooms.tasks import RoomTasks

if TYPE_CHECKING:
    from symphony.broker.base import Broker
    from symphony.outgoing.batch import Batch, Batches, Recipient
    from symphony.outgoing.encoding import Announced, Emitted, Sent
    from symphony.protocol.positions import Position
    from symphony.rooms.family import Family, Hook
    from symphony.rooms.options import Delivery
    from symphony.rooms.relaying import Relaying
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("Lives",)

logger = logging.getLogger("symphony.app")


class Lives:
    """Makes the rooms of a node, and ends them.

    Args:
        handle: Returns the handle of a room.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.
        not_encoded: Called with the error of an encoding that cannot encode a publication,
            and the room.
        batches: The batches of the node.
        broker: Keeps the histories; `None`: no family has one.
        follow: Lets a member get what follows a position from the history.
        relaying: Passes on what is not kept; `None`: there are no other nodes.
        heard: Called with a room and what another node has passed on to it.
        patience: How many seconds the tasks of a room have to end.

    Attributes:
        rooms: The rooms that exist on this node, by name.
        removed: Called with a room that does not exist any more.
    """

    def __init__(
        self,
        handle: Callable[[str], Room],
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
        not_encoded: Callable[[Exception, Batch], None],
        *,
        batches: Batches,
        broker: Broker | None,
        follow: Callable[[Live, Recipient, Position], None],
        relaying: Relaying | None,
        heard: Callable[[Live, Sent | Emitted, Delivery], object],
        patience: float,
    ) -> None:
        self.rooms: dict[str, Live] = {}
        self.removed: Callable[[Live], object] = _nothing
        self._handle = handle
        self._background = background
        self._report = report
        self._not_encoded = not_encoded
        self._batches = batches
        self._broker = broker
        self._follow = follow
        self._relaying = relaying
        self._heard = heard
        self._patience = patience
        self._loop = asyncio.get_running_loop()

    def at_work(self, name: str, family: Family, params: dict[str, Any]) -> Live:
        """Return a room, which is made if it does not exist."""
        live = self.rooms.get(name)
        if live is not None:
            return live
        tasks = (
            RoomTasks(family.tasks, self._handle(name), self._background, self._report, self._patience)
            if family.tasks
            else None
        )
        live = self.rooms[name] = Live(name, family, params, tasks)
        if family.policy.history is not None and self._broker is not None:
            live.follow = self._follow
            deliver = partial(_deliver, self._batches, live)
            live.feed = self._feed(self._broker, live, deliver)
        if self._relaying is not None:
            live.topic = Topic(self._relaying, live.name, partial(self._heard, live))
        return live

    def _feed(self, broker: Broker, live: Live, deliver: Callable[..., object]) -> Feed:
        def not_encoded(error: Exception) -> None:
            self._not_encoded(error, live)

        if not broker.shared:
            return Feed(broker, live.name, deliver, not_encoded)
        return SharedFeed(broker, live.name, deliver, not_encoded, jumped=partial(self._jumped, live))

    def _jumped(self, live: Live, before: Position) -> None:
        """Let the members of a room get what follows a position from its history."""
        # What they have not got of this turn is before it.
        self._batches.flush()
        for recipients in tuple(live.recipients.values()):
            for recipient in tuple(recipients):
                self._follow(live, recipient, before)

    def is_made(self, name: str) -> bool:
        """Return whether a room exists and has its state."""
        live = self.rooms.get(name)
        return live is not None and live.is_made

    async def make_state(self, live: Live) -> None:
        """Create the state of a room that is held, unless it has one. Calls meanwhile share it.

        Raises:
            Exception: What the factory raised. The next call tries again.
        """
        if live.is_made:
            return
        making = live.making
        if making is None:
            assert live.family.state is not None
            making = live.making = Making()
            live.hooks += 1
            task = self._background(making.run(live, live.family.state, self._handle(live.name)))
            # A callback, because a task that is cancelled before its first step runs no code.
            task.add_done_callback(lambda _: self._made(live, making))
        await making.wait(live)

    def _made(self, live: Live, making: Making) -> None:
        live.making = None
        if making.error is not None and not making.waiting:
            # The joins that it was called for are gone.
            self._report(making.error, None, f"state= of room {live.name!r}")
        making.end()
        self.let_go(live)

    @contextmanager
    def held(self, live: Live) -> Generator[None]:
        """Keep a room from ending while a join or a hook of it is under way."""
        live.hooks += 1
        try:
            yield
        finally:
            self.let_go(live)

    def let_go(self, live: Live) -> None:
        """Note that a join or a hook has ended, for which `live.hooks` was raised."""
        live.hooks -= 1
        self.end_if_empty(live)

    def end_if_empty(self, live: Live) -> None:
        """Let a room linger, or end it, if nothing keeps it."""
        over = live.linger is not None or live.ending is not None or self.rooms.get(live.name) is not live
        if over or len(live) or live.hooks or (live.attendance is not None and live.attendance.by_id):
            return
        linger = live.family.policy.linger
        if not live.began:
            self._remove(live)
        elif linger > 0:
            live.linger = self._loop.call_later(linger, self._end, live)
        else:
            self._end(live)

    async def run_all(
        self, hooks: tuple[Hook, ...], socket: Socket[Any] | None, live: Live, kind: str
    ) -> None:
        """Run each of some hooks of a room; raise the first error, and report the others."""
        await run_all(hooks, socket, self._handle(live.name), kind, self._report)

    async def close(self, *, timeout: float) -> None:
        """End all rooms at once, their tasks and their lingers.

        Args:
            timeout: How long the `on_empty` hooks may take.
        """
        rooms = tuple(self.rooms.values())
        for live in rooms:
            if live.linger is not None:
                live.linger.cancel()
            if not live.began:
                self._remove(live)
            elif live.ending is None:
                self._end(live)
        endings = [live.ending for live in rooms if live.ending is not None]
        if endings:
            await asyncio.wait(endings, timeout=timeout)

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
                await self.run_all(live.family.on_empty, None, live, "on_empty")
        finally:
            # A socket that joined meanwhile has undone this end, even if it has left again.
            if live.ending is asyncio.current_task():
                self._remove(live)

    def _remove(self, live: Live) -> None:
        self.rooms.pop(live.name, None)
        if live.feed is not None:
            live.feed.close()
        if live.topic is not None:
            live.topic.close()
        self.removed(live)


def _deliver(batches: Batches, live: Live, publication: Announced, position: Position) -> None:
    """Hand a publication that is kept to the members that are not behind."""
    batches.publish(live, publication, terms=Terms(live, position=position))


def _nothing(live: Live) -> None:
    """Stand where no part of the node has to know that a room has ended."""
