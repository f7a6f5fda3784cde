"""The contract between a conversation and what shows it."""

from __future__ import annotations

from typing import Any, Protocol

from symphony.errors import RemoteError

__all__ = ("View",)


class View(Protocol):
    """Shows what was said; `screen.py` to people, `pipes.py` to programs."""

    # What the server says

    def message(self, message: str | bytes) -> None:
        """Show a message of a raw connection."""
        ...

    def event(self, event: str, data: Any) -> None:
        """Show an event."""
        ...

    def asked(self, event: str, data: Any) -> None:
        """Show a request of the server's."""
        ...

    def reply(self, id: int, data: Any, seconds: float) -> None:
        """Show the reply to a request, and how long it took."""
        ...

    def item(self, id: int, data: Any) -> None:
        """Show an item of a stream."""
        ...

    def end(self, id: int, count: int, seconds: float) -> None:
        """Show that a stream is complete, after so many items."""
        ...

    def error(self, id: int, error: RemoteError) -> None:
        """Show an error that answers a request."""
        ...

    # What the user says

    def said(self, message: Any) -> None:
        """Show a message that was sent: text, bytes, or data."""
        ...

    def emitted(self, event: str, data: Any) -> None:
        """Show an event that was sent."""
        ...

    def requested(self, id: int, event: str, data: Any) -> None:
        """Show a request that was sent."""
        ...

    def answered(self, data: Any) -> None:
        """Show what a request of the server's was answered."""
        ...

    def not_answered(self, event: str) -> None:
        """Show that a request of the server's was refused, for there is no answer."""
        ...

    # What happens

    def cancelled(self, id: int) -> None:
        """Show that nothing more comes to a request: the user wants it so."""
        ...

    def failed(self, id: int, why: str) -> None:
        """Show that nothing more comes to a request."""
        ...

    def help(self, typed: str, does: str) -> None:
        """Show what can be typed, and what it does."""
        ...

    def note(self, text: str) -> None:
        """Show what is good to know."""
        ...

    def problem(self, text: str) -> None:
        """Show what is wrong."""
        ...
