"""What a presence store lends to nodes: claims of connections of one user, and the homes of rooms."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from symphony.broker.attendance import LEASE, Claimed, Untracked

if TYPE_CHECKING:
    from symphony.broker.endings import Endings

__all__ = ("Rights",)


class _Claim:
    """The claim of one connection."""

    __slots__ = ("node", "until")

    def __init__(self, node: str, until: float) -> None:
        self.node = node
        self.until = until


class _Home:
    """The node of a room, and the claim that it holds the room by."""

    __slots__ = ("node", "term", "until")

    def __init__(self, node: str, term: str, until: float) -> None:
        self.node = node
        self.term = term
        self.until = until


_Key = tuple[str, str]


class Rights:
    """Claims and homes, each with a lease. The rules are those of `PresenceStore`.

    Args:
        ended: Remembers the claims of homes, and of sockets, that are not valid any more.
    """

    def __init__(self, ended: Endings) -> None:
        self._ended = ended
        # In the order of the claims.
        self._claims: dict[_Key, dict[str, _Claim]] = {}
        self._keys: dict[str, _Key] = {}
        self._homes: dict[str, _Home] = {}
        # When to look at a claim ("", connection) or a home (room, "") again.
        self._due: list[tuple[float, int, str, str]] = []
        self._number = count()

    def claim(
        self, key: _Key, connection: str, node: str, most: int, now: float, *, replace: bool
    ) -> Claimed:
        """Give a connection a claim, if it may have one."""
        claims = self._claims.setdefault(key, {})
        self._end_overdue(key, now)
        claims = self._claims.setdefault(key, {})
        evicted: list[tuple[str, str]] = []
        if connection not in claims and len(claims) >= most:
            # A late repeat of a claim must not take the place back that another one has taken since.
            if not replace or _replaced(connection) in self._ended:
                return Claimed(granted=False)
            for old in list(claims)[: len(claims) - most + 1]:
                evicted.append((old, claims[old].node))
                self._drop(old)
                self._end(_replaced(old), now)
            claims = self._claims.setdefault(key, {})
        claims[connection] = _Claim(node, now + LEASE)
        if connection not in self._keys:
            self._keys[connection] = key
            self._look_again(now + LEASE, "", connection)
        return Claimed(granted=True, evicted=evicted)

    def claims(self, key: _Key, now: float) -> int:
        """Return how many connections have a claim."""
        self._end_overdue(key, now)
        return len(self._claims.get(key, ()))

    def release(self, connection: str) -> None:
        """End a claim."""
        if connection in self._keys:
            self._drop(connection)

    def renew(self, connections: Sequence[str], now: float) -> list[str]:
        """Renew claims; return the connections that have none."""
        lost: list[str] = []
        for connection in connections:
            key = self._keys.get(connection)
            if key is None:
                lost.append(connection)
            else:
                self._claims[key][connection].until = now + LEASE
        return lost

    def settle(self, room: str, node: str, term: str, now: float) -> bool:
        """Make a node the home of a room, or renew it; whether it is the home."""
        if term in self._ended:
            return False
        home = self._homes.get(room)
        if home is not None and home.node != node and home.until > now:
            self._end(term, now)
            return False
        if home is None:
            self._look_again(now + LEASE, room, "")
        elif home.term != term:
            self._end(home.term, now)
        self._homes[room] = _Home(node, term, now + LEASE)
        return True

    def vacate(self, room: str, term: str, now: float) -> None:
        """Give up a home, if *term* holds it."""
        home = self._homes.get(room)
        if home is not None and home.term == term:
            del self._homes[room]
        self._end(term, now)

    def _end(self, term: str, now: float) -> None:
        # A late repeat must not take what its node has given up, or was refused.
        self._ended.add(term, Untracked("unknown"), now)

    def forget_ended(self, now: float) -> None:
        """Free what has ended."""
        due = self._due
        while due and due[0][0] <= now:
            _, _, room, connection = heappop(due)
            key = self._keys.get(connection) if connection else None
            one = self._claims[key][connection] if key is not None else self._homes.get(room)
            if one is None:
                continue
            if one.until > now:
                self._look_again(one.until, room, connection)
            elif key is not None:
                self._drop(connection)
            else:
                del self._homes[room]

    def node_ended(self, node: str, now: float) -> None:
        """End the claims and homes of a node that has ended."""
        claims = [(id, claim) for claims in self._claims.values() for id, claim in claims.items()]
        for connection, claim in claims:
            if claim.node == node:
                self._drop(connection)
        for room, home in tuple(self._homes.items()):
            if home.node == node:
                self.vacate(room, home.term, now)

    def _end_overdue(self, key: _Key, now: float) -> None:
        claims = self._claims.get(key, {})
        for connection in [each for each, claim in claims.items() if claim.until <= now]:
            self._drop(connection)
        if not claims:
            self._claims.pop(key, None)

    def _drop(self, connection: str) -> None:
        key = self._keys.pop(connection)
        claims = self._claims[key]
        del claims[connection]
        if not claims:
            del self._claims[key]

    def _look_again(self, at: float, room: str, connection: str) -> None:
        heappush(self._due, (at, next(self._number), room, connection))


def _replaced(connection: str) -> str:
    """Return by which name it is remembered that another connection has taken the place of one."""
    return f"{connection} was replaced"
