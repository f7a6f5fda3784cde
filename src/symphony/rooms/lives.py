"""The life of the rooms of a node: how a room is made, lingers and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import Reject
from symphony.outgoing.terms import Terms
from symphony.rooms.feed import Feed
from symphony.rooms.leave import Leave, Parting
from symphony.rooms.live import Live, Outlet
from symphony.rooms.making import Making
from symphony.rooms.relaying import Topic
from symphony.rooms.running import run_all
from symphony.rooms.saving import Saving
from symphony.rooms.sharedfeed import SharedFeed
from symphony.rooms.tasks import RoomTasks
from symphony.rooms.ticking import Ticking

if TYPE_CHECKING:
    from symphony.broker.base import Broker
    from symphony.outgoing.announced import Announced
    from symphony.outgoing.batch import Batch, Batches, Recipient
    from symphony.outgoing.encoding import Emitted, Sent
    from symphony.protocol.positions import Position
    from symphony.rooms.excluding import LeftOut
    from symphony.rooms.family import Family, Hook
    from symphony.rooms.options import Delivery
    from symphony.rooms.relaying import Relaying
    from symphony.rooms.room import Room
    from symphony.socket import Socket
    from symphony.stats import Stats

__all__ = ("Lives", "inside")

_INSIDE: Final[ContextVar[tuple[Live, ...]]] = ContextVar("_INSIDE", default=())
"""The rooms whose hooks the running code belongs to. It must not wait for their end."""

logger = logging.getLogger("symphony.app")


@contextmanager
def inside(live: Live) -> Generator[None]:
    """Note that the code in the block is a hook of a room."""
    token = _INSIDE.set((*_INSIDE.get(), live))
    try:
        yield
    finally:
        _INSIDE.reset(token)


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
        stats: Counts what happens.
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
        stats: Stats,
        follow: Callable[[Live, Recipient, Position], None],
        relaying: Relaying | None,
        heard: Callable[[Live, Sent | Emitted, Delivery, Sequence[Recipient]], object],
        patience: float,
    ) -> None:
        self.rooms: dict[str, Live] = {}
        self.removed: Callable[[Live], object] = _nothing
        self._hurries = False
        self._handle = handle
        self._background = background
        self._report = report
        self._not_encoded = not_encoded
        self._batches = batches
        self._broker = broker
        self._stats = stats
        self._tickings = count()
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
        live = self.rooms[name] = self._new(name, family, params)
        if family.policy.history is not None and self._broker is not None:
            live.feed = self._feed(self._broker, name, live.outlet)
        if self._relaying is not None:
            live.topic = self._topic(self._relaying, name, live.outlet)
        return live

    def _new(self, name: str, family: Family, params: dict[str, Any]) -> Live:
        live = Live(name, family, params)
        if family.tasks or family.ticks:
            may_run = partial(self._may_run, live)
            ticks = [
                Ticking(seconds, hook, self._report, self._stats, next(self._tickings), may_run)
                for seconds, hook in family.ticks
            ]
            hooks = (*family.tasks, *ticks)
            live.tasks = RoomTasks(hooks, self._handle(name), self._background, self._report, self._patience)
        if family.saves:
            room = self._handle(name)
            live.savings = tuple(
                Saving(every, hook, room, self._background, self._report) for every, hook in family.saves
            )
        if family.policy.history is not None and self._broker is not None:
            live.follow = self._follow
        return live

    def _feed(self, broker: Broker, name: str, outlet: Outlet) -> Feed:
        def not_encoded(error: Exception) -> None:
            self._not_encoded(error, outlet.live)

        deliver = partial(_deliver, self._batches, outlet)
        if not broker.shared:
            return Feed(broker, name, deliver, not_encoded)
        return SharedFeed(broker, name, deliver, not_encoded, jumped=partial(self._jumped, outlet))

    def _topic(self, relaying: Relaying, name: str, outlet: Outlet) -> Topic:
        def heard(message: Sent | Emitted, delivery: Delivery, left_out: LeftOut) -> None:
            self._heard(outlet.live, message, delivery, left_out)

        return Topic(relaying, name, heard)

    def _jumped(self, outlet: Outlet, before: Position) -> None:
        """Let the members of a room get what follows a position from its history."""
        live = outlet.live
        # What they have not got of this turn is before it.
        self._batches.flush()
        for recipients in tuple(live.recipients.values()):
            for recipient in tuple(recipients):
                self._follow(live, recipient, before)

    def stay_home(self, live: Live, until: float) -> None:
        """Note until when this node is the home of a room, whatever other nodes do."""
        live.home_until = until
        if live.tasks is None:
            return
        if live.lease_end is not None:
            live.lease_end.cancel()
        live.lease_end = self._loop.call_at(until, live.tasks.suspend)
        live.tasks.resume()

    def _may_run(self, live: Live) -> bool:
        # A process that was stopped runs what was due meanwhile, before its timers suspend anything.
        return not live.family.has_home or self._loop.time() < live.home_until

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

    def opened(self, live: Live, ttl: float) -> None:
        """Let the life of a room begin that waits *ttl* seconds for its first member."""
        live.began = True
        live.stay()
        live.open_until = self._loop.time() + ttl
        if live.tasks is not None:
            live.tasks.start()

    def doom(self, live: Live) -> None:
        """End the life of a room: from here on, joins wait until it has gone, and make it anew."""
        if live.linger is not None:
            live.linger.cancel()
            live.linger = None
        live.over = self._loop.create_future()
        if live.tasks is not None:
            live.tasks.spare_current()
        if live.feed is not None and (live.is_closed or not live.listeners):
            # Its members get what was published up to here.
            live.feed.close()

    async def gone(self, live: Live) -> None:
        """Return when a room whose life is over has gone.

        Raises:
            Reject: `unavailable`: a hook of the room called this, for which the room waits.
        """
        if live in _INSIDE.get():
            raise Reject("unavailable", f"{live.name!r} ends, and this is called by one of its hooks")
        if live.over is None:
            self.doom(live)
        assert live.over is not None
        # Not the future itself: a waiter that is cancelled would cancel it for all.
        await asyncio.wait((live.over,))

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
        ends = live.linger is not None or live.ending is not None or self.rooms.get(live.name) is not live
        if ends or len(live) or live.hooks:
            return
        moves = self._hurries and live.family.has_home
        if live.over is None and not moves and live.attendance is not None and live.attendance.by_id:
            return
        linger = 0.0 if moves else live.family.policy.linger
        if live.open_until and not moves:
            linger = max(linger, live.open_until - self._loop.time())
        if not live.began:
            if live.over is not None or not live.listeners:
                self._remove(live)
        elif live.over is not None:
            self._end(live)
        elif linger > 0:
            live.linger = self._loop.call_later(linger, self._end, live)
        else:
            self._end(live)

    async def run_all(
        self,
        hooks: tuple[Hook, ...],
        socket: Socket[Any] | None,
        live: Live,
        kind: str,
        leave: Leave | None = None,
    ) -> None:
        """Run each of some hooks of a room; raise the first error, and report the others."""
        room = self._handle(live.name)
        subject = room if leave is None else Parting(room, leave)
        with inside(live):
            await run_all(hooks, socket, subject, f"{kind} of {live.name!r}", self._report)

    def hurry(self) -> None:
        """End rooms that have a home as soon as their last sockets have gone, because this node stops.

        Members who are away come back on other nodes, which the home must be free for.
        """
        self._hurries = True
        for live in [live for live in self.rooms.values() if live.family.has_home]:
            if live.linger is not None:
                live.linger.cancel()
                live.linger = None
            self.end_if_empty(live)

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
        has_changed = any(saving.is_busy for saving in live.savings)
        if live.family.on_empty or has_changed or (live.tasks is not None and live.tasks.running):
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
            if live.ending is asyncio.current_task() and (live.family.on_empty or live.savings):
                # What is saved or closed now is not used again.
                if live.over is None:
                    self.doom(live)
                await self._save(live)
                await self.run_all(live.family.on_empty, None, live, "on_empty")
        finally:
            # A socket that joined meanwhile has undone this end, even if it has left again.
            if live.ending is asyncio.current_task():
                self._remove(live)

    async def _save(self, live: Live) -> None:
        await asyncio.gather(*[saving.finish(self._patience) for saving in live.savings])

    def _remove(self, live: Live) -> None:
        is_there = self.rooms.get(live.name) is live
        if is_there:
            del self.rooms[live.name]
        if live.over is not None and not live.over.done():
            live.over.set_result(None)
        if is_there and live.listeners and not live.is_closed:
            self._succeed(live)
        else:
            if live.feed is not None:
                live.feed.close()
            if live.topic is not None:
                live.topic.close()
        if live.lease_end is not None:
            live.lease_end.cancel()
        self.removed(live)

    def _succeed(self, live: Live) -> None:
        """Let the listeners of a room whose life is over go on with its next life, and miss nothing."""
        self._batches.flush()
        heir = self.rooms[live.name] = self._new(live.name, live.family, live.params)
        # The subscriptions go on, so that no publication is heard twice, or not at all.
        heir.feed, heir.topic, heir.outlet = live.feed, live.topic, live.outlet
        heir.outlet.live = heir
        for recipient, end in live.listeners.items():
            catching = live.catching.pop(recipient, None)
            publications = live.owner(recipient)
            self._batches.remove(live, recipient)
            heir.listeners[recipient] = end
            self._batches.add(heir, recipient, publications)
            if catching is not None:
                self._follow(heir, recipient, catching.after)
        live.listeners = {}


def _deliver(batches: Batches, outlet: Outlet, publication: Announced, position: Position) -> None:
    """Hand a publication that is kept to the members that are not behind."""
    live = outlet.live
    batches.publish(live, publication, terms=Terms(live, position=position))


def _nothing(live: Live) -> None:
    """Stand where no part of the node has to know that a room has ended."""
