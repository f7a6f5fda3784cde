"""What an engine stores of members, so that they survive the process of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from symphony.broker.attendance import Decision

__all__ = ("KeptMember", "KeptMembers", "MemberChanges")


class KeptMember(NamedTuple):
    """A member of a room, here or away.

    Attributes:
        room: The name of the room.
        member: The id of the user, or of an anonymous socket.
        arrival: Its arrival.
        anonymous: Whether it is a socket without a user.
        info: What others are told about it, in MessagePack.
        counts: Whether it has a seat.
        grace: For how many seconds it stays without a connection.
    """

    room: str
    member: str
    arrival: str
    anonymous: bool
    info: bytes
    counts: bool
    grace: float


class MemberChanges:
    """Changes of members that are stored together. Only the last one of each member counts.

    Attributes:
        gone: Room and id of members to remove. They are removed before *kept* is added.
        kept: The members to add or to replace, the one that arrived first is the first.
        owed: The decisions to add, by name.
        settled: The names of decisions to remove, after *owed* is added.
    """

    __slots__ = ("gone", "kept", "owed", "settled")

    def __init__(self) -> None:
        self.gone: dict[tuple[str, str], None] = {}
        self.kept: dict[tuple[str, str], KeptMember] = {}
        self.owed: dict[str, Decision] = {}
        self.settled: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self.gone or self.kept or self.owed or self.settled)

    def keep(self, member: KeptMember) -> None:
        """Store a member, who is new, or of whom something is."""
        self.kept[member.room, member.member] = member

    def forget(self, room: str, member: str) -> None:
        """Remove a member, who has departed."""
        self.kept.pop((room, member), None)
        self.gone[room, member] = None

    def owe(self, decision: Decision) -> None:
        """Store a decision, until its hook is acknowledged."""
        self.owed[decision.id] = decision

    def settle(self, decisions: Iterable[str]) -> None:
        """Remove decisions."""
        for decision in decisions:
            if self.owed.pop(decision, None) is None:
                self.settled[decision] = None

    def precede(self, later: MemberChanges) -> None:
        """Add these changes, which could not be stored, to those that came after them."""
        kept = {key: member for key, member in self.kept.items() if key not in later.gone}
        later.kept = {**kept, **later.kept}
        later.gone = {**self.gone, **later.gone}
        owed = {name: decision for name, decision in self.owed.items() if name not in later.settled}
        later.owed = {**owed, **later.owed}
        later.settled = {**self.settled, **later.settled}


class KeptMembers(Protocol):
    """Where a presence store keeps its members, beside the publications of an engine.

    Attributes:
        members: Those of the life before, the one that arrived first is the first.
        decisions: The decisions of the life before whose hooks are not acknowledged.
    """

    @property
    def members(self) -> Sequence[KeptMember]:
        """See the attributes of the class."""
        ...

    @property
    def decisions(self) -> Sequence[Decision]:
        """See the attributes of the class."""
        ...

    def changes(self) -> MemberChanges:
        """Return what notes the changes that are stored next."""
        ...

    def unstored(self) -> asyncio.Future[None] | None:
        """Return what ends when all changes up to here are stored, or cannot be; `None`: they are."""
        ...
