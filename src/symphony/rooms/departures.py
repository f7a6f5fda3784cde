"""How members go: the end of a socket's membership, and what the store decides about it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from symphony.broker.attendance import LEASE, Untracked
from symphony.rooms.leave import LOST, Leave, Unopened
from symphony.rooms.members import Member, Visit

if TYPE_CHECKING:
    from symphony.broker.presence import PresenceStore
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.memberhooks import MemberHooks
    from symphony.rooms.room import Room
    from symphony.rooms.turns import Turn, Turns
    from symphony.socket import Socket

__all__ = ("Departing", "Departure")

# How a connection ends whose `track` was not answered, or whose claim was refused.
_GIVEN_UP: Final = Unopened("left")

# Between two attempts to reach the store.
_PAUSE: Final = 1.0


class Departure:
    """A socket that is no longer one of a member's.

    Attributes:
        member: The member.
        leave: Why.
        task: Tells the store, and runs the hooks of the member.
    """

    __slots__ = ("_released", "leave", "member", "task")

    def __init__(self, member: Member[Any], leave: Leave) -> None:
        self.member = member
        self.leave = leave
        self.task: asyncio.Task[Any] | None = None
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_released(self) -> bool:
        """Whether the hooks of the socket have run."""
        return self._released.done()

    def release(self) -> None:
        """Let the hooks of the member run, because those of the socket have run."""
        if not self._released.done():
            self._released.set_result(None)

    async def released(self) -> None:
        """Return when `release` was called."""
        await asyncio.wait((self._released,))


class Departing:
    """Lets the members of a node go.

    Args:
        store: Decides who is a member.
        node: The name of this node.
        lives: The rooms of the node.
        handle: Returns the handle of a room.
        hooks: Runs the hooks of members.
        operations: What is asked of the store about one member.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.

    Attributes:
        goes_away: Called with the end of each grace period.
    """

    def __init__(
        self,
        store: PresenceStore,
        node: str,
        lives: Lives,
        handle: Callable[[str], Room],
        hooks: MemberHooks,
        operations: Turns,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self.goes_away: Callable[[float], object] = float
        self._store = store
        self._node = node
        self._lives = lives
        self._handle = handle
        self._hooks = hooks
        self._operations = operations
        self._background = background
        self._report = report
        self._loop = asyncio.get_running_loop()

    def leave(self, socket: Socket[Any], live: Live, why: Leave) -> Departure | None:
        """Take a socket from its member, at once; `None` if it was not a member.

        The hooks of the member run in the background, after `Departure.release`.

        Args:
            socket: The socket.
            live: The room.
            why: Why. If it was lost, the grace period runs.
        """
        if live.attendance is None:
            return None
        if (found := live.attendance.remove(socket)) is None:
            if socket in live.attendance.returning:
                # Its `track` is under way, and what follows it ends this.
                live.attendance.returning[socket] = why
            return None
        member, connection = found
        departure = Departure(member, why)
        live.attendance.ending[member.id] += 1
        live.hooks += 1
        turn = self._operations.take((live.name, member.id))
        departure.task = self._background(self._end(live, departure, turn, connection))
        return departure

    async def departed(self, live: Live, departure: Departure) -> None:
        """Wait until the hooks of the member have run, unless one of them calls this."""
        if not departure.is_released or self._hooks.is_inside(live.name, departure.member.id):
            return
        if departure.task is not None:
            await asyncio.wait((departure.task,))

    async def _end(self, live: Live, departure: Departure, turn: Turn, connection: str) -> None:
        member = departure.member
        attendance = live.attendance
        assert attendance is not None
        try:
            async with turn.taken():
                try:
                    untracked = await self._untrack(live.name, connection, departure.leave)
                finally:
                    attendance.ending -= Counter((member.id,))
                of_member: Turn | None = None
                if untracked is not None and self._ended(live, member, untracked):
                    of_member = self._hooks.take(live.name, member.id)
            if of_member is not None and untracked is not None:
                async with of_member.taken():
                    await departure.released()
                    await self._carry_out(live, member, untracked, departure.leave)
            if live.closed is not None and untracked is not None and untracked.kind == "away":
                # It was lost just before the room was closed.
                await self._dismiss(live, member, live.closed)
        finally:
            self._lives.let_go(live)

    def dismiss_all(self, live: Live, why: Leave) -> None:
        """Let the members depart who are away, because their room is closed."""
        assert live.attendance is not None
        for member in live.attendance.by_id.values():
            if member.away_until is not None:
                live.hooks += 1
                self._background(self._dismissed(live, member, why))

    async def _dismissed(self, live: Live, member: Member[Any], why: Leave) -> None:
        try:
            await self._dismiss(live, member, why)
        finally:
            self._lives.let_go(live)

    async def _dismiss(self, live: Live, member: Member[Any], why: Leave) -> None:
        """End the grace period of a member, and run `on_depart` if the store has not done so before."""
        assert live.attendance is not None
        async with self._operations.take((live.name, member.id)).taken():
            untracked = await self._ask(
                live.name,
                lambda: self._store.dismiss(live.name, member.id, member.arrival, self._node),
            )
            if untracked is None or untracked.kind != "departed":
                return
            live.attendance.forget(member)
            turn = self._hooks.take(live.name, member.id)
        async with turn.taken():
            await self._carry_out(live, member, untracked, why)

    async def _carry_out(self, live: Live, member: Member[Any], untracked: Untracked, why: Leave) -> None:
        """Run the hooks of what the store has decided, and acknowledge it."""
        if untracked.kind == "away" and isinstance(why, Unopened):
            # It is away as before: its earlier connection was lost.
            why = Leave("lost", why.code)
        hooks = live.family.on_away if untracked.kind == "away" else live.family.on_depart
        await self._hooks.run_all(hooks, live.name, member, untracked.kind, why)
        if untracked.decision is not None:
            await self._hooks.acknowledge(untracked.decision)

    def _ended(self, live: Live, member: Member[Any], untracked: Untracked) -> bool:
        """Note what the store has decided about the end of a socket; whether a hook has to run."""
        assert live.attendance is not None
        if untracked.kind == "away":
            member.away_until = self._loop.time() + untracked.stays
            self.goes_away(member.away_until)
            return True
        # It has gone, or its other sockets are on another node. If more sockets of it have
        # gone here, the last one decides.
        if untracked.kind == "departed" or not live.attendance.ending[member.id]:
            live.attendance.forget(member)
        return untracked.kind == "departed"

    async def _untrack(self, room: str, connection: str, why: Leave) -> Untracked | None:
        left, opened = why.reason != "lost", not isinstance(why, Unopened)
        return await self._ask(
            room, lambda: self._store.untrack(room, connection, self._node, left=left, opened=opened)
        )

    async def _ask(self, room: str, call: Callable[[], Awaitable[Untracked]]) -> Untracked | None:
        """Tell the store, until it has answered, or the lease has ended anyway."""
        end = self._loop.time() + LEASE
        while True:
            try:
                return await call()
            except Exception as error:
                if self._loop.time() >= end:
                    self._report(error, None, f"end of a membership in {room!r}")
                    return None
                await asyncio.sleep(_PAUSE)

    def give_up(self, live: Live, socket: Socket[Any], id: str, connection: str, state: Any) -> None:
        """End a connection whose `track` was not answered."""
        live.hooks += 1
        self._background(self._given_up(live, socket, id, connection, state))

    async def _given_up(self, live: Live, socket: Socket[Any], id: str, connection: str, state: Any) -> None:
        try:
            untracked = await self._untrack(live.name, connection, _GIVEN_UP)
            if untracked is None or untracked.arrival is None:
                return
            # The store had decided the join: its hook comes late, but first.
            member = Member(id, socket.user, untracked.arrival, state)
            if untracked.kind == "away":
                member.away_until = self._loop.time() + untracked.stays
            family = live.family
            hook = {"arrived": family.on_arrive, "back": family.on_back}.get(untracked.joined)
            async with self._hooks.take(live.name, id).taken():
                visit = Visit(self._handle(live.name), member)
                if hook is not None:
                    try:
                        await hook(socket, visit)
                    except Exception as error:
                        self._report(error, socket, f"hook of {live.name!r}")
                if untracked.kind in ("away", "departed"):
                    await self._carry_out(live, member, untracked, LOST)
        finally:
            self._lives.let_go(live)
