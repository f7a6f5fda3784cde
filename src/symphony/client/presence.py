"""Who is in a room, as a client is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symphony.protocol.envelopes import Presence
    from symphony.protocol.rosters import MembersState

__all__ = ("RoomPresence", "Roster")


class Roster:
    """What a client knows of the members of a room.

    Attributes:
        infos: The ids of the members, and what the server says about them.
        total: As `RoomPresence.total`.
        is_known: As `RoomPresence.is_known`.
    """

    __slots__ = ("_epoch", "_is_ahead", "_missed", "_version", "infos", "is_known", "total")

    def __init__(self) -> None:
        self.infos: dict[str, Any] = {}
        self.total = 0
        self.is_known = False
        self._epoch = ""
        self._version = 0
        # Whether the server knew less when it told its state.
        self._is_ahead = False
        # Of the last change that could not be applied.
        self._missed: tuple[str, int] | None = None

    @property
    def missed(self) -> tuple[str, int] | None:
        """The epoch and the version that it should have; `None`: no change is missing."""
        if self._missed is None or (self._missed[0] == self._epoch and self._missed[1] <= self._version):
            return None
        return self._missed

    def restart(self, state: MembersState | None) -> bool:
        """Begin anew with all members; return whether they may be others.

        A state that is older than this one is ignored: after a reconnect, another
        node may know less. So no member disappears for a moment.
        """
        if state is None:
            return False
        is_older = state.epoch == self._epoch and state.version <= self._version
        self._is_ahead = is_older and state.version < self._version
        if is_older:
            return False
        if self._missed is not None and state.epoch not in (self._missed[0], self._epoch):
            # Its epoch is newer than that of the change.
            self._missed = None
        self._epoch, self._version, self.total = state.epoch, state.version, state.total
        self.is_known = state.list is not None
        self.infos = {member.id: member.info for member in state.list or ()}
        return True

    def take(self, change: Presence) -> bool:
        """Apply a change, unless one before it is missing; return whether it was applied."""
        if change.members is not None:
            return self.restart(change.members)
        diff = change.diff
        if diff is None or (diff.epoch == self._epoch and diff.to <= self._version):
            return False
        # A server that knew less does not name those who came after its state, and have gone again.
        is_partial = self._is_ahead and diff.since < self._version
        if diff.epoch != self._epoch or diff.since > self._version or is_partial:
            self._missed = diff.epoch, diff.to
            return False
        self._is_ahead = False
        self._version, self.total = diff.to, diff.total
        if diff.changed is None:
            # There are too many to be listed.
            self.is_known = False
            self.infos.clear()
        elif self.is_known:
            for id in diff.gone or ():
                self.infos.pop(id, None)
            for member in diff.changed:
                self.infos[member.id] = member.info
        return True


class RoomPresence(Mapping[str, Any]):
    """The members of a room: their ids, and what the server says about them.

    It changes as members come and go. While the client has no connection, it has the
    members of before.
    """

    __slots__ = ("_roster",)

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    @property
    def total(self) -> int:
        """How many members there are."""
        return self._roster.total

    @property
    def is_known(self) -> bool:
        """Whether it has all of them.

        It has none if the server does not tell who is in the room, or if there are too many.
        """
        return self._roster.is_known

    def __getitem__(self, id: str) -> Any:
        return self._roster.infos[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._roster.infos)

    def __len__(self) -> int:
        return len(self._roster.infos)

    def __repr__(self) -> str:
        return f"<RoomPresence of {self.total}>"
