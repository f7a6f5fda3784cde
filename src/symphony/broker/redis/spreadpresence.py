"""The presence store in a cluster: `redis+cluster://`."""

from __future__ import annotations

import asyncio
import logging
from binascii import crc32
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from symphony.broker.attendance import (
    Claimed,
    Decision,
    Renewal,
    Roster,
    Touched,
    Track,
    Tracked,
    Untracked,
)
from symphony.broker.presence import Receive
from symphony.broker.redis.presence import RedisPresence
from symphony.tasks import start

__all__ = ("SpreadPresence",)

logger = logging.getLogger("symphony.app")

T = TypeVar("T")

# How many parts the rooms have. It must never change: each room stays in its part.
_PARTS: Final = 16
# How long other parts are waited for after the first one has answered: their leases are renewed
# in the same call, and the next one must not be late.
_OTHERS: Final = 1.0


class SpreadPresence:
    """Keeps the members of rooms in several stores, so that they are not all on one server.

    Each store has some of the rooms. One more has the claims, which belong to no room.

    Args:
        part: Returns the store with a name.
    """

    def __init__(self, part: Callable[[str], RedisPresence]) -> None:
        self._parts = {str(number): part(str(number)) for number in range(_PARTS)}
        self._claims = part("")

    async def track(self, track: Track) -> Tracked:
        """See `PresenceStore.track`."""
        return await self._with(track.room).track(track)

    async def untrack(
        self, room: str, connection: str, node: str, *, left: bool, opened: bool = True
    ) -> Untracked:
        """See `PresenceStore.untrack`."""
        ended = await self._with(room).untrack(room, connection, node, left=left, opened=opened)
        return _named(ended, _part_of(room))

    async def dismiss(self, room: str, member: str, arrival: str, node: str) -> Untracked:
        """See `PresenceStore.dismiss`."""
        return _named(await self._with(room).dismiss(room, member, arrival, node), _part_of(room))

    async def touch(self, node: str, rooms: Sequence[Renewal], claims: Sequence[str]) -> Touched:
        """See `PresenceStore.touch`."""
        renewals: dict[str, list[Renewal]] = {name: [] for name in self._parts}
        for renewal in rooms:
            renewals[_part_of(renewal.room)].append(renewal)
        # Also those without any: each part then knows that this node can reach it.
        calls: dict[str, Awaitable[Touched]] = {
            name: self._parts[name].touch(node, of_part, ()) for name, of_part in renewals.items()
        }
        calls[""] = self._claims.touch(node, (), claims)
        touched = await _answers(calls)
        seen = {seen.room: seen for of_part in touched.values() for seen in of_part.rooms}
        return Touched(
            [seen[renewal.room] for renewal in rooms if renewal.room in seen],
            touched[""].lost if "" in touched else (),
        )

    async def reap(self, node: str) -> Sequence[Decision]:
        """See `PresenceStore.reap`."""
        reaped = await _answers({name: part.reap(node) for name, part in self._parts.items()})
        return [
            decision._replace(id=f"{name}:{decision.id}")
            for name, decisions in reaped.items()
            for decision in decisions
        ]

    async def ack(self, decisions: Sequence[str]) -> None:
        """See `PresenceStore.ack`."""
        by_part: dict[str, list[str]] = {}
        for decision in decisions:
            name, _, id = decision.partition(":")
            by_part.setdefault(name, []).append(id)
        await _all(self._parts[name].ack(ids) for name, ids in by_part.items())

    async def update(self, room: str, member: str, info: bytes) -> None:
        """See `PresenceStore.update`."""
        await self._with(room).update(room, member, info)

    async def read(self, room: str) -> Roster:
        """See `PresenceStore.read`."""
        return await self._with(room).read(room)

    async def count(self, room: str) -> int:
        """See `PresenceStore.count`."""
        return await self._with(room).count(room)

    async def rooms(self, member: str) -> Sequence[str]:
        """See `PresenceStore.rooms`."""
        found = await _all(part.rooms(member) for part in self._parts.values())
        return [room for of_part in found for room in of_part]

    async def subscribe(self, room: str, receive: Receive) -> Roster:
        """See `PresenceStore.subscribe`."""
        return await self._with(room).subscribe(room, receive)

    def unsubscribe(self, room: str) -> None:
        """See `PresenceStore.unsubscribe`."""
        self._with(room).unsubscribe(room)

    async def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """See `PresenceStore.claim`."""
        return await self._claims.claim(scope, user, connection, node, most=most, replace=replace)

    async def claims(self, scope: str, user: str) -> int:
        """See `PresenceStore.claims`."""
        return await self._claims.claims(scope, user)

    async def release(self, connection: str) -> None:
        """See `PresenceStore.release`."""
        await self._claims.release(connection)

    async def settle(self, room: str, node: str, term: str) -> bool:
        """See `PresenceStore.settle`."""
        return await self._with(room).settle(room, node, term)

    async def vacate(self, room: str, term: str) -> None:
        """See `PresenceStore.vacate`."""
        await self._with(room).vacate(room, term)

    def close(self) -> None:
        """See `PresenceStore.close`."""
        for part in self._parts.values():
            part.close()

    def _with(self, room: str) -> RedisPresence:
        return self._parts[_part_of(room)]


def _part_of(room: str) -> str:
    return str(crc32(room.encode()) % _PARTS)


def _named(ended: Untracked, part: str) -> Untracked:
    decision = ended.decision
    return ended if decision is None else ended._replace(decision=f"{part}:{decision}")


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    return await asyncio.gather(*calls)


async def _answers(calls: Mapping[str, Awaitable[T]]) -> dict[str, T]:
    """Return the answers of all parts that can be reached.

    Raises:
        Exception: None of them can be.
    """
    tasks = {name: start(_awaited(call)) for name, call in calls.items()}
    try:
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks.values(), timeout=_OTHERS)
    finally:
        # What was sent is carried out nevertheless.
        for task in tasks.values():
            task.cancel()
    answers: dict[str, T] = {}
    why: BaseException | None = None
    for name, task in tasks.items():
        if task.done() and not task.cancelled():
            why = task.exception() or why
            if task.exception() is None:
                answers[name] = task.result()
    if not answers and why is not None:
        raise why
    if len(answers) < len(tasks):
        logger.warning("A part of the members of rooms cannot be reached: %s", why or "it does not answer")
    return answers


async def _awaited(call: Awaitable[T]) -> T:
    return await call
