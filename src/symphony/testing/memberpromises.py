"""Checks what a simulated cluster promises about members, homes and their hooks, while it runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from symphony.broker.attendance import LEASE, REAP, REFRESH, REMEMBERED, Diff, Renewal, Track, Tracked
from symphony.broker.hub import Hub
from symphony.broker.presencehub import PRESENCE
from symphony.rooms.members import Member
from symphony.rooms.room import Room

if TYPE_CHECKING:
    from symphony.app import Symphony
    from symphony.broker.base import Broker
    from symphony.broker.presencetable import PresenceTable
    from symphony.testing.promises import Trace

__all__ = ("Hooks", "MemberPromises", "WatchedHub")

_SLACK: Final = 0.001
_HOOK_OF: Final = {"arrive": "on_arrive", "back": "on_back", "away": "on_away", "depart": "on_depart"}


class WatchedHub(Hub):
    """A hub that tells what the presence store is asked, answers and says.

    Args:
        broker: See `Hub`.
        life: See `Hub`.
        promises: Checks it.
        again: Returns how likely it is that a call is carried out once more.
        random: Decides about that.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        life: str,
        promises: MemberPromises,
        again: Callable[[], float],
        random: Random,
    ) -> None:
        super().__init__(broker, life=life)
        self._promises = promises
        self._again = again
        self._random = random
        self._has_ended = False

    def offer(self, method: str, function: Callable[..., Any]) -> None:
        """See `Hub.offer`."""
        name = method.removeprefix(PRESENCE)

        def called(*arguments: Any) -> Any:
            promises = self._promises
            result = function(*arguments)
            promises.after(name, arguments, result)
            return result

        def called_again(*arguments: Any) -> None:
            if not self._has_ended:
                called(*arguments)

        def called_once_or_twice(*arguments: Any) -> Any:
            result = called(*arguments)
            if self._random.random() < self._again():
                later = self._random.uniform(0.0, 4.0)
                asyncio.get_running_loop().call_later(later, called_again, *arguments)
            return result

        super().offer(method, called_once_or_twice)

    def close(self) -> None:
        """See `Hub.close`."""
        self._has_ended = True
        super().close()

    def say(self, topic: str, value: Any) -> None:
        """See `Hub.say`."""
        if isinstance(value, Diff):
            self._promises.said(value)
        super().say(topic, value)


class _Run(NamedTuple):
    """A hook that has run."""

    hook: str
    room: str
    member: str
    arrival: str


class Hooks:
    """The hooks of members that have run, on all nodes.

    Args:
        trace: Notes what happens.
        at_home: Called with a node and a room when a tick of the room runs.
    """

    def __init__(self, trace: Trace, at_home: Callable[[str, str], object]) -> None:
        self._trace = trace
        self._at_home = at_home
        self.runs: list[_Run] = []

    def add(self, app: Symphony, node: str) -> None:
        """Register hooks that note what runs on a node."""

        async def note(hook: str, room: Room, member: Member[Any]) -> None:
            self.runs.append(_Run(hook, room.name, member.id, member.arrival))
            self._trace.note(f"{node} runs {hook} for {member.id} in {room.name}")

        def of(hook: str) -> Callable[..., Any]:
            async def noted(room: Room, member: Member[Any]) -> None:
                await note(hook, room, member)

            return noted

        async def ticks(room: Room) -> None:
            self._at_home(node, room.name)

        for family in app._all_families():  # pyright: ignore[reportPrivateUsage]
            policy = family.policy
            hooked = any(family.hooks.get(hook) for hook in _HOOK_OF.values())
            counted = policy.presence or policy.members or policy.max_members or policy.grace or policy.counts
            if hooked or counted:
                for hook in _HOOK_OF.values():
                    family.hooks.setdefault(hook, []).insert(0, of(hook))
            if family.ticks and not policy.each_node:
                family.every(family.ticks[0][0])(ticks)


class MemberPromises:
    """What has to hold for all members of all rooms.

    Args:
        trace: Notes what happens.
        table: Returns the table of the presence store.
        now: Returns the time of the store.

    Attributes:
        wiped_at: When the store has lost its memory last.
    """

    def __init__(self, trace: Trace, table: Callable[[], PresenceTable], now: Callable[[], float]) -> None:
        self._trace = trace
        self._table = table
        self._now = now
        self.wiped_at = float("-inf")
        self._phases: dict[tuple[str, str], str] = {}
        # Each decision: the kind, and the arrival.
        self._decided: Counter[tuple[str, str]] = Counter()
        self._before_wipe: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """Begin with a store that knows nothing."""
        self._renewed: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._untracked: dict[str, Any] = {}
        self._places: dict[str, tuple[str, str]] = {}
        self._seat_until: dict[tuple[str, str], float] = {}
        self._versions: dict[str, int] = {}
        self._last_touch = self._now()
        self._silent_until = 0.0

    def wiped(self) -> None:
        """Note that the store has lost its memory."""
        self.wiped_at = self._now()
        self._phases = dict.fromkeys(self._phases, "unknown")
        self._before_wipe |= {arrival for _, arrival in self._decided}
        self.begin()

    def said(self, diff: Diff) -> None:
        """Check a change of a room."""
        require, key = self._trace.require, (diff.room, diff.member)
        self._trace.note(f"store: {diff.member} {diff.kind} in {diff.room} ({diff.version}, {diff.node[:4]})")
        last = self._versions.get(diff.room, 0)
        require(diff.version > last, lambda: f"{diff.room}: version {diff.version} came after {last}.")
        self._versions[diff.room] = diff.version
        if diff.kind == "update":
            return
        phase = self._phases.get(key, "absent")
        allowed = {
            "arrive": ("absent", "unknown"),
            "away": ("here",),
            "back": ("away",),
            "depart": ("here", "away"),
            "restore": ("unknown", "absent"),
        }[diff.kind]
        require(phase in allowed, lambda: f"{diff.member} was {phase} in {diff.room}, and then: {diff.kind}.")
        after = {"arrive": "here", "restore": "here", "away": "away", "back": "here", "depart": "absent"}
        self._phases[key] = after[diff.kind]
        if diff.kind != "restore":
            self._decided[diff.kind, diff.arrival] += 1
        until = self._seat_until.get(key)
        if diff.kind == "depart" and phase == "away" and until is not None:
            require(
                self._now() >= until - _SLACK,
                lambda: f"{diff.member} departs from {diff.room} before its grace ends at {until:.3f}.",
            )

    def after(self, method: str, arguments: Sequence[Any], result: Any) -> None:
        """Check the store after a call."""
        now = self._now()
        last_touch = self._last_touch
        if method == "touch":
            if now - self._last_touch > REFRESH * 1.5:
                self._silent_until = now + LEASE
            self._last_touch = now
        ending = ""
        if method == "track":
            track = msgspec.convert(arguments[0], Track)
            self._tracked(track, result, now)
        elif method in ("settle", "vacate"):
            self._trace.note(f"store: {method} {arguments[0]} by {arguments[-1]}: {result}")
        elif method == "untrack":
            ending = arguments[1]
            first = self._untracked.setdefault(ending, result)
            self._trace.require(
                first == result or ending not in self._ended or now - self._ended[ending] > REMEMBERED,
                lambda: f"The end of {ending} was answered with {first}, and again with {result}.",
            )
            self._ended.setdefault(ending, now)
        self._compare(ending, now, last_touch if method == "touch" else self._last_touch)
        if method == "touch":
            for renewal in msgspec.convert(arguments[1], list[Renewal]):
                for connection in renewal.connections:
                    if connection in self._places:
                        self._renewed[connection] = now
        if method == "reap":
            self._check_overdue(now)

    def _tracked(self, track: Track, result: Tracked, now: float) -> None:
        require, connection = self._trace.require, track.connection
        room = self._table()._rooms.get(track.room)  # pyright: ignore[reportPrivateUsage]
        self._trace.note(f"store: track of {connection[-8:]} of {track.member}: {result.kind}")
        ended = self._ended.get(connection)
        if result.arrival is not None:
            require(
                ended is None or now - ended > REMEMBERED,
                lambda: f"{connection} of {track.member} has ended at {ended}, and became a member again.",
            )
            self._renewed.setdefault(connection, now)
        elif result.kind in ("full", "elsewhere"):
            self._ended.setdefault(connection, now)
        if room is not None and track.most is not None:
            counted = sum(entry.counts for entry in room.members.values())
            require(
                counted <= track.most, lambda: f"{counted} members count in {track.room}, {track.most} may."
            )
        if result.kind == "full" and ended is None:
            entry = room.members.get(track.member) if room is not None else None
            require(
                entry is None or not entry.counts, lambda: f"{track.member} has a seat, and was refused one."
            )
            overdue = [
                id
                for id, one in (room.members.items() if room is not None else ())
                if self._is_overdue(track.room, id, now) and not one.connections
            ]
            require(not overdue, lambda: f"{track.member} was refused, although {overdue} were overdue.")

    def _compare(self, ending: str, now: float, last_touch: float) -> None:
        """Find out which connections came and went during a call."""
        places: dict[str, tuple[str, str]] = {}
        rooms = self._table()._rooms  # pyright: ignore[reportPrivateUsage]
        for room in rooms.values():
            for connection, member in room.places.items():
                places[connection] = room.name, member
        for connection, key in self._places.items():
            if connection in places:
                continue
            self._ended.setdefault(connection, now)
            room, member = key
            entry = rooms[room].members.get(member) if room in rooms else None
            grace = entry.grace if entry is not None else 0.0
            if connection == ending:
                if entry is not None and not entry.connections:
                    self._seat_until[key] = now + grace
                continue
            renewed = self._renewed[connection]
            self._trace.require(
                now >= renewed + LEASE - _SLACK,
                lambda member=member, renewed=renewed: (
                    f"A lease of {member} has ended that was renewed at {renewed:.3f}."
                ),
            )
            silent = now < self._silent_until - _SLACK or now - last_touch > REFRESH * 1.5 + _SLACK
            self._trace.require(
                not silent,
                lambda member=member: f"A lease of {member} has ended, although the store was out of reach.",
            )
            if entry is not None and not entry.connections:
                self._seat_until[key] = max(self._seat_until.get(key, 0.0), renewed + LEASE + grace)
        for connection, key in places.items():
            if connection not in self._places:
                self._seat_until.pop(key, None)
        self._places = places

    def _is_overdue(self, room: str, member: str, now: float) -> bool:
        until = self._seat_until.get((room, member))
        return until is not None and until < now - _SLACK

    def _check_overdue(self, now: float) -> None:
        """Check that nothing is left that should have ended, when what is due has been decided."""
        for room in self._table()._rooms.values():  # pyright: ignore[reportPrivateUsage]
            for id, entry in room.members.items():
                self._trace.require(
                    bool(entry.connections) or not self._is_overdue(room.name, id, now),
                    lambda id=id, room=room: f"{id} still has a seat in {room.name}, after its grace.",
                )
        if now - self._silent_until < 2 * REAP or now - self._last_touch > REFRESH * 1.5:
            return
        for connection, (room_name, member) in self._places.items():
            renewed = self._renewed[connection]
            self._trace.require(
                now < renewed + LEASE + 2 * REAP,
                lambda member=member, renewed=renewed, room_name=room_name: (
                    f"{member} is in {room_name}, but its lease was renewed last at {renewed:.3f}."
                ),
            )

    def check_hooks(self, hooks: Hooks, *, calm: bool) -> None:
        """Check that the hooks have run as often as they should; *calm*: nothing was lost."""
        runs = Counter((run.hook, run.arrival) for run in hooks.runs)
        for kind, hook in _HOOK_OF.items():
            arrivals = {arrival for one, arrival in self._decided if one == kind}
            arrivals |= {run.arrival for run in hooks.runs if run.hook == hook}
            for arrival in sorted(arrivals):
                decided, ran = self._decided[kind, arrival], runs[hook, arrival]
                self._check_hook(kind, hook, arrival, decided, ran, calm=calm)

    def _check_hook(self, kind: str, hook: str, arrival: str, decided: int, ran: int, *, calm: bool) -> None:
        if arrival in self._before_wipe:
            return
        if kind in ("arrive", "back"):
            holds = ran == decided if calm else ran <= decided
        elif kind == "depart":
            holds = ran == decided if calm else ran >= decided
        else:
            holds = ran == decided or not calm
        self._trace.require(
            holds, lambda: f"{hook} of {arrival} ran {ran} times, and was decided {decided} times."
        )
