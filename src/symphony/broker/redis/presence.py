"""The presence store in Redis or Valkey: `redis://`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from symphony.broker.attendance import (
    Claimed,
    Decision,
    Diff,
    Present,
    Renewal,
    Roster,
    Seen,
    Touched,
    Track,
    Tracked,
    Untracked,
)
from symphony.broker.presence import Receive
from symphony.broker.redis.commands import Commands, Script
from symphony.broker.redis.scripts import incarnation
from symphony.broker.redis.subscriber import Subscriber

__all__ = ("RedisPresence",)

_SEQUENCE: Final = itemgetter(5)

logger = logging.getLogger("symphony.app")


class RedisPresence:
    """Keeps the members of rooms in a Redis server. Its time is that of the server.

    Args:
        commands: Where commands are sent.
        subscriber: Hears the changes of rooms.
        script: `Scripts.presence`.
        key: What the names of all its keys and channels begin with.
    """

    def __init__(self, commands: Commands, subscriber: Subscriber, script: Script, key: str) -> None:
        self._commands = commands
        self._subscriber = subscriber
        self._script = script
        self._key = key
        self._rooms: set[str] = set()
        self._dropped: int | None = None

    async def track(self, track: Track) -> Tracked:
        """See `PresenceStore.track`."""
        epoch, arrival = track.resume or ("", "")
        kind, of, version, arrived, retryable = await self._call(
            "track",
            track.room,
            track.member,
            track.connection,
            track.node,
            int(track.anonymous),
            track.info,
            int(track.counts),
            "" if track.most is None else track.most,
            int(track.grace * 1000),
            track.term or "",
            epoch,
            arrival,
        )
        return Tracked(kind.decode(), of.decode(), int(version), _text(arrived), retryable=bool(retryable))

    async def untrack(
        self, room: str, connection: str, node: str, *, left: bool, opened: bool = True
    ) -> Untracked:
        """See `PresenceStore.untrack`."""
        return _untracked(await self._call("untrack", room, connection, node, int(left), int(opened)))

    async def dismiss(self, room: str, member: str, arrival: str, node: str) -> Untracked:
        """See `PresenceStore.dismiss`."""
        return _untracked(await self._call("dismiss", room, member, arrival, node))

    async def touch(self, node: str, rooms: Sequence[Renewal], claims: Sequence[str]) -> Touched:
        """See `PresenceStore.touch`."""
        arguments: list[str | int] = [len(rooms)]
        for room, connections, term in rooms:
            arguments += (room, term or "", len(connections), *connections)
        epoch, seen, lost = await self._call("touch", node, *arguments, len(claims), *claims)
        return Touched(
            [
                Seen(name.decode(), epoch.decode(), int(version), _texts(unknown), bool(home))
                for name, version, unknown, home in seen
            ],
            _texts(lost),
        )

    async def reap(self, node: str) -> Sequence[Decision]:
        """See `PresenceStore.reap`."""
        dropped, taken = await self._call("reap", node)
        before, self._dropped = self._dropped, int(dropped)
        if before is not None and self._dropped > before:
            more = self._dropped - before
            logger.error("%d departures were dropped, because their hooks take too long.", more)
        return [
            Decision(
                id.decode(),
                room.decode(),
                kind.decode(),
                member.decode(),
                arrival.decode(),
                bool(anonymous),
                info,
            )
            for id, room, kind, member, arrival, anonymous, info in taken
        ]

    async def ack(self, decisions: Sequence[str]) -> None:
        """See `PresenceStore.ack`."""
        await self._call("ack", *decisions)

    async def update(self, room: str, member: str, info: bytes) -> None:
        """See `PresenceStore.update`."""
        await self._call("update", room, member, info)

    async def read(self, room: str) -> Roster:
        """See `PresenceStore.read`."""
        epoch, version, members = await self._call("read", room)
        # A hash has no order.
        members.sort(key=_SEQUENCE)
        return Roster(
            epoch.decode(),
            int(version),
            [
                Present(id.decode(), arrival.decode(), bool(anonymous), info, bool(away))
                for id, arrival, anonymous, info, away, _ in members
            ],
        )

    async def count(self, room: str) -> int:
        """See `PresenceStore.count`."""
        return await self._call("count", room)

    async def rooms(self, member: str) -> Sequence[str]:
        """See `PresenceStore.rooms`."""
        return _texts(await self._call("rooms", member))

    async def subscribe(self, room: str, receive: Receive) -> Roster:
        """See `PresenceStore.subscribe`."""

        def heard(message: bytes) -> None:
            receive(_diff(room, message))

        self._rooms.add(room)
        # First this: a diff that comes in between is older than what is read, or follows it.
        await self._subscriber.subscribe(self._channel(room), heard)
        return await self.read(room)

    def unsubscribe(self, room: str) -> None:
        """See `PresenceStore.unsubscribe`."""
        self._rooms.discard(room)
        self._subscriber.unsubscribe(self._channel(room))

    async def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """See `PresenceStore.claim`."""
        granted, evicted = await self._call("claim", scope, user, connection, node, most, int(replace))
        return Claimed(bool(granted), [(old.decode(), of.decode()) for old, of in evicted])

    async def claims(self, scope: str, user: str) -> int:
        """See `PresenceStore.claims`."""
        return await self._call("claims", scope, user)

    async def release(self, connection: str) -> None:
        """See `PresenceStore.release`."""
        await self._call("release", connection)

    async def settle(self, room: str, node: str, term: str) -> bool:
        """See `PresenceStore.settle`."""
        return bool(await self._call("settle", room, node, term))

    async def vacate(self, room: str, term: str) -> None:
        """See `PresenceStore.vacate`."""
        await self._call("vacate", room, term)

    def close(self) -> None:
        """See `PresenceStore.close`."""
        for room in tuple(self._rooms):
            self.unsubscribe(room)

    def _channel(self, room: str) -> str:
        return f"{self._key}p:{room}"

    async def _call(self, method: str, *arguments: str | int | bytes) -> Any:
        # The store gives a repeat the first answer, so each call may run twice.
        return await self._commands.run(self._script, (self._key,), method, incarnation(), *arguments)


def _text(value: bytes) -> str | None:
    return value.decode() or None


def _texts(values: Sequence[bytes]) -> list[str]:
    return [value.decode() for value in values]


def _untracked(answer: Sequence[Any]) -> Untracked:
    kind, joined, arrival, decision, stays = answer
    return Untracked(kind.decode(), joined.decode(), _text(arrival), _text(decision), stays / 1000)


def _diff(room: str, message: bytes) -> Diff:
    head, _, rest = message.partition(b"\n")
    fields: list[Any] = head.decode().split(" ")
    kind, epoch, version, anonymous, *lengths = fields
    parts: list[bytes] = []
    for length in map(int, lengths):
        parts.append(rest[:length])
        rest = rest[length:]
    member, arrival, info, node = parts
    return Diff(
        room,
        epoch,
        int(version),
        kind,
        member.decode(),
        arrival.decode(),
        anonymous == "1",
        info,
        node.decode(),
    )
