"""Checks what a simulated cluster promises about members, homes and their hooks, while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from symphony.broker.attendance import (
    HEAD_START,
    LEASE,
    REAP,
    REFRESH,
    REMEMBERED,
    Diff,
    Renewal,
    Track,
    Tracked,
)
from symphony.testing.claimpromises import ClaimPromises, socket_of
from symphony.testing.watching import HOOK_OF

if TYPE_CHECKING:
    from symphony.broker.presencetable import PresenceTable
    from symphony.testing.promises import Trace
    from symphony.testing.watching import Hooks

__all__ = ("MemberPromises",)

_SLACK: Final = 0.001


class MemberPromises:
    """What has to hold for all members of all rooms.

    Args:
        trace: Notes what happens.
        table: Returns the table of the presence store.
        now: Returns the time of the store.
        changed: Called with a room whose members have changed, and what returns the ids of these.

    Attributes:
        wiped_at: When the store has lost its memory last.
        claims: Checks the claims of sockets.
    """

    def __init__(
        self,
        trace: Trace,
        table: Callable[[], PresenceTable],
        now: Callable[[], float],
        changed: Callable[[str, Callable[[], list[str]]], object],
    ) -> None:
        self._trace = trace
        self._changed = changed
        self._table = table
        self._now = now
        self.wiped_at = float("-inf")
        self._phases: dict[tuple[str, str], str] = {}
        # Each decision: the kind, and the arrival.
        self._decided: Counter[tuple[str, str]] = Counter()
        self._before_wipe: set[str] = set()
        self._known_before: set[tuple[str, str]] = set()
        # Arrivals that have ended because the last socket has left.
        self._left: set[str] = set()
        self._gone: set[str] = set()
        self._method = ""
        self.begin()

    def begin(self) -> None:
        """Begin with a store that knows nothing."""
        self._renewed: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._untracked: dict[str, Any] = {}
        self._places: dict[str, tuple[str, str]] = {}
        self._seat_until: dict[tuple[str, str], float] = {}
        self._lease_ends: dict[tuple[str, str], float] = {}
        # The end of the grace period before the present one.
        self._ended_before: dict[tuple[str, str], float | None] = {}
        self._versions: dict[str, int] = {}
        self._last_touch = self._now()
        self._silent_until = 0.0
        self._counted: set[tuple[str, str]] = set()
        self._last_node: dict[tuple[str, str], tuple[str, float]] = {}
        # Claims of homes that were given up or refused, and since when.
        self._given_up: dict[str, float] = {}
        self.claims = ClaimPromises(self._trace)

    def wiped(self, known: Collection[str]) -> None:
        """Note that the store has lost its memory.

        Args:
            known: The connections that nodes have, and know the arrivals of.
        """
        self.wiped_at = self._now()
        self._phases = dict.fromkeys(self._phases, "unknown")
        self._before_wipe |= {arrival for _, arrival in self._decided}
        self._known_before = {
            (room, socket_of(connection))
            for connection, (room, _) in self._places.items()
            if connection in known
        }
        self.begin()

    def before(self, method: str) -> None:
        """Note which call the store carries out now."""
        self._method = method

    def node_ended(self, node: str) -> None:
        """Note that the store knows of the end of a node."""
        self._gone.add(node)

    def said(self, diff: Diff) -> None:
        """Check a change of a room."""
        require, key = self._trace.require, (diff.room, diff.member)
        self._trace.note(f"store: {diff.member} {diff.kind} in {diff.room} ({diff.version}, {diff.node[:4]})")
        last = self._versions.get(diff.room, 0)
        require(diff.version > last, lambda: f"{diff.room}: version {diff.version} came after {last}.")
        self._versions[diff.room] = diff.version
        self._changed(diff.room, lambda: [one.member for one in self._table().read(diff.room).members])
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
        if diff.kind == "depart":
            self._counted.discard(key)
        require(
            diff.kind != "away" or not diff.anonymous,
            lambda: f"{diff.member} has no user, and is away in {diff.room}.",
        )
        if diff.kind in ("away", "depart"):
            self._last_node[diff.kind, diff.arrival] = diff.node, self._now()
        if diff.kind != "restore":
            self._decided[diff.kind, diff.arrival] += 1
        until = self._seat_until.get(key)
        require(
            diff.kind != "back" or until is None or self._now() <= until + _SLACK,
            lambda: f"{diff.member} is back in {diff.room} after its grace has ended at {until:.3f}.",
        )
        if diff.kind == "away":
            # When it ends is known after this call.
            self._ended_before[key] = self._seat_until.pop(key, None)
        if diff.kind == "depart" and phase == "away" and until is not None and self._method != "dismiss":
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
        ending, stays = "", True
        if method == "track":
            track = msgspec.convert(arguments[0], Track)
            self._tracked(track, result, now)
        elif method in ("settle", "vacate"):
            self._settled(arguments[0], arguments[-1], result, now)
        elif method == "untrack":
            _, ending, _, left, opened = arguments
            # One that never opened changes nothing: its member has the seat as long as without it.
            stays = opened and not left
            if result.kind == "departed" and left and opened:
                self._left.add(result.arrival)
            first = self._untracked.setdefault(ending, result)
            self._trace.require(
                first == result or ending not in self._ended or now - self._ended[ending] > REMEMBERED,
                lambda: f"The end of {ending} was answered with {first}, and again with {result}.",
            )
            self._ended.setdefault(ending, now)
            self.claims.untracked(arguments[0], ending, result)
            self._known_before.discard((arguments[0], socket_of(ending)))
            if result.kind == "unknown":
                # Its lease had ended, which may have been decided in this call.
                ending = ""
        elif method == "claim":
            scope, user, socket, _, most, _ = arguments
            self.claims.claimed(scope, user, socket, result)
            self.claims.check_most(scope, user, self._table().claims(scope, user), most)
        elif method == "release":
            self.claims.released(arguments[0])
        self._compare(ending, stays, now, last_touch if method == "touch" else self._last_touch)
        if method == "touch":
            for renewal in msgspec.convert(arguments[1], list[Renewal]):
                for connection in renewal.connections:
                    if connection in self._places:
                        self._renewed[connection] = now
        if method == "reap":
            self._check_overdue(now)
            for decision in result:
                node, at = self._last_node[decision.kind, decision.arrival]
                self._trace.require(
                    node == arguments[0] or node in self._gone or now >= at + HEAD_START,
                    lambda decision=decision, node=node: (
                        f"{decision} is handed to {arguments[0]}, not {node}."
                    ),
                )

    def _settled(self, room: str, term: str, is_home: bool | None, now: float) -> None:
        """Check a claim of a home, or that it is given up: `None`."""
        self._trace.note(f"store: {room} is at home by {term[-8:]}: {is_home}")
        since = self._given_up.get(term)
        self._trace.require(
            not is_home or since is None or now - since > REMEMBERED,
            lambda: f"{room} is at home by {term}, which was given up or refused at {since}.",
        )
        if not is_home:
            self._given_up.setdefault(term, now)

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
        self.claims.tracked(track.room, connection, result)
        home = self._table()._rights._homes.get(track.room)  # pyright: ignore[reportPrivateUsage]
        require(
            result.arrival is None or track.term is None or (home is not None and home.term == track.term),
            lambda: f"{track.member} is in {track.room} by {track.term}, which is at home elsewhere.",
        )
        require(
            result.kind != "arrived" or (track.room, socket_of(connection)) not in self._known_before,
            lambda: f"{track.member} arrives in {track.room} again, because the store has lost its memory.",
        )
        if result.arrival is not None:
            # From now on, it departs and arrives as usual.
            self._known_before.discard((track.room, socket_of(connection)))
        if result.arrival is not None and track.counts:
            self._counted.add((track.room, track.member))
        if room is not None and track.most is not None:
            uncounted = [
                id
                for id, entry in room.members.items()
                if (room.name, id) in self._counted and not entry.counts
            ]
            require(not uncounted, lambda: f"{uncounted} have a seat in {track.room}, and do not count.")
            counted = sum(entry.counts for entry in room.members.values())
            require(
                counted <= track.most, lambda: f"{counted} members count in {track.room}, {track.most} may."
            )
        if result.kind == "full" and ended is None:
            members = room.members if room is not None else {}
            entry = members.get(track.member)
            soft = any(one.counts and (one.anonymous or not one.connections) for one in members.values())
            require(
                result.retryable == soft,
                lambda: f"{track.member} is refused in {track.room}; retryable={result.retryable}.",
            )
            require(
                entry is None or not entry.counts, lambda: f"{track.member} has a seat, and was refused one."
            )
            overdue = [
                id
                for id, one in members.items()
                if self._is_overdue(track.room, id, now) and not one.connections
            ]
            require(not overdue, lambda: f"{track.member} was refused, although {overdue} were overdue.")

    def _compare(self, ending: str, stays: bool, now: float, last_touch: float) -> None:
        """Find out which connections came and went during a call.

        Args:
            ending: The connection that the call ends, or "".
            stays: Whether this begins a grace period, if there is one.
            now: The time of the store.
            last_touch: When leases were renewed before this call.
        """
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
                before = self._ended_before.get(key)
                if stays and entry is not None:
                    self._seat_until[key] = now + grace
                elif before is not None and entry is not None and not entry.connections:
                    self._seat_until.setdefault(key, before)
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
            if entry is not None:
                lease_end = self._lease_ends[key] = max(self._lease_ends.get(key, 0.0), renewed + LEASE)
                self._seat_until[key] = lease_end + grace
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
        for kind, hook in HOOK_OF.items():
            arrivals = {arrival for one, arrival in self._decided if one == kind}
            arrivals |= {run.arrival for run in hooks.runs if run.hook == hook}
            for arrival in sorted(arrivals):
                decided, ran = self._decided[kind, arrival], runs[hook, arrival]
                self._check_hook(kind, hook, arrival, decided, ran, calm=calm)
        for run in hooks.runs if calm else ():
            self._trace.require(
                run.hook != "on_away" or run.reason == "lost",
                lambda run=run: f"{run.member} is away from {run.room}, although it has {run.reason}.",
            )
            self._trace.require(
                run.hook != "on_depart" or run.reason != "lost" or run.arrival not in self._left,
                lambda run=run: f"{run.member} was lost in {run.room}, and had no grace period.",
            )

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
