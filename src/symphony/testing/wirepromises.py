"""Checks what one connection of a simulated cluster is told about the publications of rooms.

A client of Symphony drops what comes twice, and asks again for what is missing. So a node that
does either wrong is only seen here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from symphony.protocol.positions import Position

if TYPE_CHECKING:
    from symphony.testing.promises import Publications, Trace

__all__ = ("Wire",)

# A node may send a page of the history that it has read so long before, and messages take time.
_SHARED_FOR: Final = 4.0


class Wire:
    """What one connection of a client has received.

    Args:
        who: The client, for the trace.
        publications: What the broker has accepted.
        trace: Notes what happens.
    """

    def __init__(self, who: str, publications: Publications, trace: Trace) -> None:
        self._who = who
        self._publications = publications
        self._require = trace.require
        self._began = trace.now
        self._at: dict[str, Position] = {}
        self._members: dict[str, set[str]] = {}
        publications.wires[self] = None

    def ended(self) -> None:
        """Note the end of the connection."""
        self._publications.wires.pop(self, None)

    def rooms(self) -> Iterator[str]:
        """Return the rooms that it is in."""
        return iter(self._at)

    def check_reached(self, room: str, position: Position, epochs: Mapping[str, int]) -> None:
        """Check that a publication has arrived, if the connection is in its room since then.

        Args:
            room: The room.
            position: That of the publication.
            epochs: The number of each epoch in which something was published to the room.
        """
        at = self._at.get(room)
        if at is None or self not in self._publications.wires:
            return
        if at.epoch == position.epoch:
            has_it = at.offset >= position.offset
        else:
            # An epoch in which nothing was published yet is a later one.
            has_it = epochs.get(at.epoch, len(epochs)) > epochs[position.epoch]
        self._require(
            has_it, lambda: f"{self._who} has not got {position} of {room} in time, and is at {at}."
        )

    def check_members(self, room: str, members: Collection[str]) -> None:
        """Check that the connection knows the members of a room, if it is told them."""
        known = self._members.get(room)
        self._require(
            known is None or known == {*members},
            lambda: f"{self._who} sees {sorted(known or ())} in {room}, and not {sorted(members)}.",
        )

    def received(self, message: str | bytes) -> bool:
        """Check a message, in the order of all messages; whether it is a publication with a position."""
        try:
            decoded: Any = (
                msgspec.json.decode(message) if isinstance(message, str) else msgspec.msgpack.decode(message)
            )
        except msgspec.DecodeError:
            # On a raw connection.
            return False
        if not isinstance(decoded, dict):
            return False
        envelope = cast("dict[str, Any]", decoded)
        if "joined" in envelope:
            self._begin(envelope["joined"], envelope.get("position"))
            self._members.pop(envelope["joined"], None)
            self._shown(envelope["joined"], envelope)
        elif "left" in envelope:
            self._at.pop(envelope["left"], None)
            self._members.pop(envelope["left"], None)
        elif "presence" in envelope:
            self._shown(envelope["presence"], envelope)
        elif "lost" in envelope:
            self._begin(envelope["lost"], envelope.get("position"))
        elif "offset" in envelope and "room" in envelope:
            self._published(envelope)
            return True
        return False

    def _begin(self, room: str, position: Any) -> None:
        if position is None:
            self._at.pop(room, None)
        else:
            self._at[room] = Position(position["epoch"], position["offset"])

    def _shown(self, room: str, envelope: dict[str, Any]) -> None:
        """Note which members are shown."""
        diff, state = envelope.get("diff"), envelope.get("members")
        if state is not None:
            self._members[room] = {one["id"] for one in state["list"]}
        elif diff is not None:
            self._members[room] |= {one["id"] for one in diff.get("changed", ())}
            self._members[room] -= {*diff.get("gone", ())}

    def _published(self, envelope: dict[str, Any]) -> None:
        room, offset, who = envelope["room"], envelope["offset"], self._who
        at = self._at.get(room)
        if at is None:
            self._require(False, lambda: f"{who} is sent the offset {offset} of {room}, which it is not in.")
            return
        after = envelope.get("after", offset - 1)
        position = self._at[room] = Position(at.epoch, offset)
        self._require(offset > at.offset, lambda: f"{who} is sent {position} of {room} again, after {at}.")
        self._require(after <= at.offset, lambda: f"{who} is sent {position} of {room}, right after {at}.")
        stored = self._publications.rooms.get(room, {}).get(position)
        self._require(
            stored is not None and stored.data == envelope.get("data"),
            lambda: f"{who} is sent {envelope} as {position} of {room}, and not {stored}.",
        )
        replaced = self._publications.replaced.get(room, {}).get(position)
        self._require(
            replaced is None or not self._publications.is_calm or replaced > self._began - _SHARED_FOR,
            lambda: f"{who} is sent {position} of {room}, which was replaced at {replaced}.",
        )
