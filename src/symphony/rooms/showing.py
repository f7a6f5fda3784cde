"""What clients are told about the members of a room: all of them at the join, and then each change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from symphony.protocol.envelopes import Presence
from symphony.protocol.rosters import MemberInfo, MembersDiff, MembersState

if TYPE_CHECKING:
    from symphony.broker.attendance import Diff, Roster
    from symphony.rooms.live import Live

__all__ = ("Showing",)

# In one envelope.
_MAX_CHANGES: Final = 100

# In rooms with more members, clients are told how many there are, and not who.
_MAX_SHOWN: Final = 1000

# Changes within this time are told together, so that a room of n members that come back
# costs each of them a few envelopes, and not n.
_PACE: Final = 0.1

# A state with so many members is made for each one that joins.
_FEW: Final = 50

_ABSENT: Final = object()


class Showing:
    """The members of one room, as its clients see them.

    Clients see members who are away, until they depart. So a reload changes nothing.

    Args:
        live: The room.
        roster: Its members.

    Attributes:
        epoch: The epoch of what is known here.
        version: Its version.
    """

    __slots__ = (
        "_changed",
        "_flushed_at",
        "_infos",
        "_is_shown",
        "_live",
        "_snapshot",
        "_timer",
        "_told",
        "epoch",
        "version",
    )

    def __init__(self, live: Live, roster: Roster) -> None:
        self._live = live
        self.epoch = roster.epoch
        self.version = self._told = roster.version
        self._infos = {member.member: _decoded(member.info) for member in roster.members}
        # The members that have changed since the clients were told.
        self._changed: dict[str, None] = {}
        self._timer: asyncio.Handle | None = None
        self._flushed_at = 0.0
        self._is_shown = len(self._infos) <= _MAX_SHOWN
        self._snapshot: tuple[float, MembersState] | None = None

    def heard(self, diff: Diff) -> bool:
        """Apply a change; return whether one before it is missing, so that `reread` is needed."""
        if diff.epoch == self.epoch and diff.version <= self.version:
            return False
        if diff.epoch != self.epoch or diff.version != self.version + 1:
            return True
        self.version = diff.version
        if diff.kind == "depart":
            self._infos.pop(diff.member, None)
        elif diff.kind in ("away", "back") and self._infos.get(diff.member) == _decoded(diff.info):
            return False
        else:
            self._infos[diff.member] = _decoded(diff.info)
        self._note(diff.member)
        return False

    def reread(self, roster: Roster) -> None:
        """Compare what is known here with all members, and tell the difference."""
        if roster.epoch == self.epoch and roster.version <= self.version:
            return
        before, self._infos = self._infos, {one.member: _decoded(one.info) for one in roster.members}
        ids = [*before, *(id for id in self._infos if id not in before)]
        changed = [id for id in ids if before.get(id, _ABSENT) != self._infos.get(id, _ABSENT)]
        self.version = roster.version
        # Versions of two epochs cannot be compared.
        if roster.epoch != self.epoch or len(changed) + len(self._changed) > _MAX_CHANGES:
            self.epoch = roster.epoch
            self._tell_all()
            return
        for id in changed:
            self._note(id)

    def state(self) -> MembersState:
        """Return all members. It may be a little old: then the next change follows it."""
        now = asyncio.get_running_loop().time()
        if self._snapshot is not None:
            at, state = self._snapshot
            # Not one from before the last change that was told: that would not follow it.
            is_late = now - at >= _PACE or len(self._infos) <= _FEW
            if state.version == self.version or (not is_late and state.version >= self._told):
                return state
        infos = self._infos
        shown = [MemberInfo(id, info) for id, info in infos.items()] if len(infos) <= _MAX_SHOWN else None
        state = MembersState(self.epoch, self.version, len(infos), shown)
        self._snapshot = now, state
        return state

    def close(self) -> None:
        """Stop, because the room has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, member: str) -> None:
        self._changed[member] = None
        if len(self._changed) >= _MAX_CHANGES:
            self._flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            due = self._flushed_at + _PACE
            is_due = due <= loop.time()
            self._timer = loop.call_soon(self._flush) if is_due else loop.call_at(due, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushed_at = asyncio.get_running_loop().time()
        infos, was_shown = self._infos, self._is_shown
        self._is_shown = len(infos) <= _MAX_SHOWN
        if self._is_shown and not was_shown:
            self._tell_all()
            return
        changed, self._changed = self._changed, {}
        diff = MembersDiff(self.epoch, self._told, self.version, len(infos))
        self._told = self.version
        if self._is_shown:
            diff.changed = [MemberInfo(id, infos[id]) for id in changed if id in infos]
            diff.gone = [id for id in changed if id not in infos]
        self._tell(Presence(self._live.name, diff=diff))

    def _tell_all(self) -> None:
        """Tell all members anew."""
        self._told = self.version
        self._is_shown = len(self._infos) <= _MAX_SHOWN
        self._changed.clear()
        self._snapshot = None
        self._tell(Presence(self._live.name, members=self.state()))

    def _tell(self, envelope: Presence) -> None:
        """Send an envelope to all members, encoded once for each encoding."""
        frames: dict[Any, Any] = {}
        for recipient in self._live:
            encoding = recipient.encoding
            if encoding not in frames:
                frames[encoding] = encoding.envelope(envelope)
            frame = frames[encoding]
            if frame is not None:
                recipient.outbox.send(frame)


def _decoded(info: bytes) -> Any:
    return msgspec.msgpack.decode(info)
