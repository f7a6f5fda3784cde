"""The presence store of another process, as a node uses it: `RemotePresence`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from symphony.broker.attendance import (
    Claimed,
    Decision,
    Diff,
    Renewal,
    Roster,
    Touched,
    Track,
    Tracked,
    Untracked,
)
from symphony.broker.presence import Receive
from symphony.broker.presencehub import PRESENCE
from symphony.broker.remote import RemoteBroker

__all__ = ("RemotePresence",)

T = TypeVar("T")


class RemotePresence:
    """Uses the presence store that is beside a broker in another process.

    Args:
        broker: That broker. Its link carries the calls.
    """

    def __init__(self, broker: RemoteBroker) -> None:
        self._broker = broker
        self._rooms: set[str] = set()

    async def track(self, track: Track) -> Tracked:
        """See `PresenceStore.track`."""
        return await self._call(Tracked, "track", track)

    async def untrack(
        self, room: str, connection: str, node: str, *, left: bool, opened: bool = True
    ) -> Untracked:
        """See `PresenceStore.untrack`."""
        return await self._call(Untracked, "untrack", room, connection, node, left, opened)

    async def dismiss(self, room: str, member: str, arrival: str, node: str) -> Untracked:
        """See `PresenceStore.dismiss`."""
        return await self._call(Untracked, "dismiss", room, member, arrival, node)

    async def touch(self, node: str, rooms: Sequence[Renewal], claims: Sequence[str]) -> Touched:
        """See `PresenceStore.touch`."""
        return await self._call(Touched, "touch", node, rooms, claims)

    async def reap(self, node: str) -> Sequence[Decision]:
        """See `PresenceStore.reap`."""
        return await self._call(list[Decision], "reap", node)

    async def ack(self, decisions: Sequence[str]) -> None:
        """See `PresenceStore.ack`."""
        await self._broker.call(PRESENCE + "ack", decisions)

    async def update(self, room: str, member: str, info: bytes) -> None:
        """See `PresenceStore.update`."""
        await self._broker.call(PRESENCE + "update", room, member, info)

    async def read(self, room: str) -> Roster:
        """See `PresenceStore.read`."""
        return await self._call(Roster, "read", room)

    async def count(self, room: str) -> int:
        """See `PresenceStore.count`."""
        return await self._call(int, "count", room)

    async def rooms(self, member: str) -> Sequence[str]:
        """See `PresenceStore.rooms`."""
        return await self._call(list[str], "rooms", member)

    async def subscribe(self, room: str, receive: Receive) -> Roster:
        """See `PresenceStore.subscribe`."""

        def heard(diff: bytes) -> None:
            receive(msgspec.msgpack.decode(diff, type=Diff))

        self._rooms.add(room)
        # First this: a diff that comes in between is older than what is read, or follows it.
        await self._broker.listen(PRESENCE + room, heard)
        return await self.read(room)

    def unsubscribe(self, room: str) -> None:
        """See `PresenceStore.unsubscribe`."""
        self._rooms.discard(room)
        self._broker.unlisten(PRESENCE + room)

    async def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """See `PresenceStore.claim`."""
        return await self._call(Claimed, "claim", scope, user, connection, node, most, replace)

    async def claims(self, scope: str, user: str) -> int:
        """See `PresenceStore.claims`."""
        return await self._call(int, "claims", scope, user)

    async def release(self, connection: str) -> None:
        """See `PresenceStore.release`."""
        await self._broker.call(PRESENCE + "release", connection)

    async def settle(self, room: str, node: str, term: str) -> bool:
        """See `PresenceStore.settle`."""
        return await self._call(bool, "settle", room, node, term)

    async def vacate(self, room: str, term: str) -> None:
        """See `PresenceStore.vacate`."""
        await self._broker.call(PRESENCE + "vacate", room, term)

    def close(self) -> None:
        """See `PresenceStore.close`."""
        for room in tuple(self._rooms):
            self.unsubscribe(room)

    async def _call(self, kind: type[T], method: str, *arguments: Any) -> T:
        # A store gives a repeat the first answer, so each call may run twice.
        return msgspec.convert(await self._broker.call(PRESENCE + method, *arguments), kind)
