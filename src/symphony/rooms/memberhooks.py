"""The hooks of members: those of one member run one after another, in the order of the decisions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from symphony.identity import Identity
from symphony.rooms.leave import LOST, Leave
from symphony.rooms.members import Member, Visit
from symphony.rooms.turns import Turn, Turns

if TYPE_CHECKING:
    from symphony.broker.attendance import Decision
    from symphony.broker.presence import PresenceStore
    from symphony.rooms.family import Family, Hook
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("MemberHooks", "Seat")

logger = logging.getLogger("symphony.app")


class Seat(NamedTuple):
    """A socket that has become one of a member's.

    Attributes:
        member: The member.
        hook: The name of the member's hook that has to run: `on_arrive`, `on_back`, or empty.
        turn: The place of this hook among those of the member.
    """

    member: Member[Any]
    hook: str
    turn: Turn | None


class MemberHooks:
    """Runs the hooks of the members of a node.

    Args:
        store: Decides who is a member.
        lives: The rooms of the node.
        handle: Returns the handle of a room.
        find_family: The family of a room's name.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.
    """

    def __init__(
        self,
        store: PresenceStore,
        lives: Lives,
        handle: Callable[[str], Room],
        find_family: Callable[[str], Family],
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self._store = store
        self._lives = lives
        self._handle = handle
        self._find_family = find_family
        self._background = background
        self._report = report
        self._turns = Turns()

    def take(self, room: str, member: str) -> Turn:
        """Take the next place among the hooks of a member."""
        return self._turns.take((room, member))

    def is_inside(self, room: str, member: str) -> bool:
        """Return whether the running code is a hook of a member."""
        return self._turns.is_inside((room, member))

    async def greet(self, socket: Socket[Any], live: Live, seat: Seat) -> None:
        """Run `on_arrive` or `on_back`, if the member has just come.

        If this is cancelled while earlier hooks of the member run, the hook runs all the same
        after these: the store has decided that the member has come.

        Raises:
            BaseException: What a hook raised.
        """
        if seat.turn is None:
            return
        if self._turns.is_first((live.name, seat.member.id), seat.turn):
            await self._greet(socket, live, seat, seat.turn)
            return
        waiting = self._background(self._greet_late(socket, live, seat, seat.turn))
        try:
            await asyncio.wait((waiting,))
        except asyncio.CancelledError:
            waiting.add_done_callback(lambda _: self._report_late(waiting, socket, live.name))
            raise
        if (error := waiting.result()) is not None:
            raise error

    async def _greet(self, socket: Socket[Any], live: Live, seat: Seat, turn: Turn) -> None:
        hook = live.family.on_arrive if seat.hook == "on_arrive" else live.family.on_back
        async with turn.taken():
            if hook is not None:
                await hook(socket, Visit(self._handle(live.name), seat.member))

    async def _greet_late(self, socket: Socket[Any], live: Live, seat: Seat, turn: Turn) -> Exception | None:
        with self._lives.held(live):
            try:
                await self._greet(socket, live, seat, turn)
            except Exception as error:
                return error
        return None

    def _report_late(self, task: asyncio.Task[Exception | None], socket: Socket[Any], room: str) -> None:
        if not task.cancelled() and (error := task.result()) is not None:
            self._report(error, socket, f"hook of {room!r}")

    async def carry_out(self, decision: Decision) -> None:
        """Run the hooks of a decision that the store has handed to this node."""
        live = self._lives.rooms.get(decision.room)
        if live is not None:
            live.hooks += 1
        try:
            family = live.family if live is not None else self._find_family(decision.room)
            member = self._member_of(live, decision)
            async with self._turns.take((decision.room, decision.member)).taken():
                if decision.kind == "depart":
                    if live is not None and live.attendance is not None:
                        live.attendance.forget(member)
                    await self.run_all(family.on_depart, decision.room, member, "departed")
                else:
                    await self.run_all(family.on_away, decision.room, member, "away")
            await self.acknowledge(decision.id)
        finally:
            if live is not None:
                self._lives.let_go(live)

    def _member_of(self, live: Live | None, decision: Decision) -> Member[Any]:
        known = live.attendance.by_id.get(decision.member) if live is not None and live.attendance else None
        if known is not None and known.arrival == decision.arrival:
            return known
        user = None
        if not decision.anonymous:
            user = Identity(decision.member, msgspec.msgpack.decode(decision.info) or {})
        return Member(decision.member, user, decision.arrival, None)

    async def run_all(
        self,
        hooks: tuple[Hook, ...],
        room: str,
        member: Member[Any],
        kind: str,
        leave: Leave = LOST,
    ) -> None:
        """Run the hooks of a member that no caller waits for."""
        name = "on_away" if kind == "away" else "on_depart"
        visit = Visit(self._handle(room), member, leave)
        for hook in hooks:
            try:
                await hook(None, visit)
            except Exception as error:
                self._report(error, None, f"{name} of {room!r}")

    async def acknowledge(self, decision: str) -> None:
        """Tell the store that the hook of a decision has run."""
        try:
            await self._store.ack((decision,))
        except Exception:
            # It is handed out again later.
            logger.warning("A decision about a member was not acknowledged; its hook may run again.")
