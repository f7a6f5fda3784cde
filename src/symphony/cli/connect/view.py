"""The contract between the client's events and what shows them."""

from __future__ import annotations

from typing import Any, Protocol

from symphony.client import Position, Publication, RoomPresence
from symphony.errors import RemoteError, SymphonyError

__all__ = ("View",)


class View(Protocol):
    """Shows a session: `TerminalView` to people, `ScriptView` to programs."""

    # What the server sends

    def message(self, message: str | bytes) -> None:
        """Show a message of a raw connection."""
        ...

    def event(self, event: str, data: Any) -> None:
        """Show an event."""
        ...

    def server_request(self, event: str, data: Any) -> None:
        """Show a request from the server."""
        ...

    def reply(self, id: int, data: Any, seconds: float) -> None:
        """Show the reply to a request, and how long it took."""
        ...

    def item(self, id: int, data: Any) -> None:
        """Show an item of a stream."""
        ...

    def end(self, id: int, count: int, seconds: float) -> None:
        """Show the end of a stream, with its number of items and its duration."""
        ...

    def error(self, id: int, error: RemoteError) -> None:
        """Show the error that answers a request."""
        ...

    def joined(self, id: int, room: str, position: Position | None, presence: RoomPresence) -> None:
        """Show that a join has succeeded."""
        ...

    # What happens in rooms

    def publication(self, room: str, publication: Publication) -> None:
        """Show a publication."""
        ...

    def presence(self, room: str, presence: RoomPresence) -> None:
        """Show who is in a room, because that has changed."""
        ...

    def lost(self, room: str, position: Position) -> None:
        """Show that publications are lost, and after which position the room goes on."""
        ...

    def removed(self, room: str, error: SymphonyError) -> None:
        """Show that the server has ended a membership."""
        ...

    # What the user sends

    def sent(self, message: Any) -> None:
        """Show a message that was sent: text, bytes, or data."""
        ...

    def emitted(self, event: str, data: Any) -> None:
        """Show an event that was sent."""
        ...

    def requested(self, id: int, event: str, data: Any) -> None:
        """Show a request that was sent."""
        ...

    def asked(self, id: int, verb: str, room: str) -> None:
        """Show a request about a room: `join` or `leave`."""
        ...

    def published(self, id: int, room: str, event: str, data: Any) -> None:
        """Show a publication that was sent."""
        ...

    def answered(self, data: Any) -> None:
        """Show the answer to a request from the server."""
        ...

    def refused(self, event: str) -> None:
        """Show that a request from the server was refused because it has no answer."""
        ...

    # What else happens

    def cancelled(self, id: int) -> None:
        """Show that the user cancelled a request."""
        ...

    def failed(self, id: int, why: str) -> None:
        """Show that a request failed without an answer from the server."""
        ...

    def help(self, typed: str, does: str) -> None:
        """Show a command and what it does."""
        ...

    def note(self, text: str) -> None:
        """Show information about the connection."""
        ...

    def problem(self, text: str) -> None:
        """Show an error."""
        ...
