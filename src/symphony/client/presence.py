"""Who is in a room, as a client is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symphony.protocol.envelopes import Presence
    from symphony.protocol.rosters import MembersState

__all__ = ("RoomPresence",)


class RoomPresence(Mapping[str, Any]):
    """The members of a room: their ids, and what the server says about them.

    It changes as members come and go. While the client has no connection, it has the
    members of before.

    Attributes:
        total: How many members there are.
        is_known: Whether it has all of them. It has none if the server does not tell who is
            in the room, or if there are too many.
    """

    __slots__ = ("_epoch", "_infos", "_version", "is_known", "total")

    def __init__(self) -> None:
        self._infos: dict[str, Any] = {}
        self._epoch = ""
        self._version = 0
        self.total = 0
        self.is_known = False

    def restart(self, state: MembersState | None) -> None:
        """Begin anew with all members."""
        if state is None:
            return
        self._epoch, self._version, self.total = state.epoch, state.version, state.total
        self.is_known = state.list is not None
        self._infos = {member.id: member.info for member in state.list or ()}

    def take(self, change: Presence) -> bool:
        """Apply a change; return whether one before it is missing."""
        self.restart(change.members)
        diff = change.diff
        if diff is None or (diff.epoch == self._epoch and diff.to <= self._version):
            return False
        if diff.epoch != self._epoch or diff.since > self._version:
            return True
        self._version, self.total = diff.to, diff.total
        if diff.changed is None:
            # There are too many to be listed.
            self.is_known = False
            self._infos.clear()
        elif self.is_known:
            for id in diff.gone or ():
                self._infos.pop(id, None)
            for member in diff.changed:
                self._infos[member.id] = member.info
        return False

    def __getitem__(self, id: str) -> Any:
        return self._infos[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __repr__(self) -> str:
        return f"<RoomPresence of {self.total}>"
