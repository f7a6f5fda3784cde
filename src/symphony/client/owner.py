"""The contract between a reconnector and the client that it keeps connected."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from symphony.client.link import Close, Link
from symphony.client.loss import Loss
from symphony.errors import RemoteError

__all__ = ("ConnectionOwner", "State")

State: TypeAlias = Literal["new", "connecting", "open", "waiting", "closed"]


class ConnectionOwner(Protocol):
    """The client of a reconnector."""

    def received(self, message: str | bytes) -> None:
        """Handle a received message."""
        ...

    def relieved(self) -> None:
        """Continue to send: the link is no longer congested."""
        ...

    def opening(self, link: Link) -> None:
        """Switch to a new link, before anything arrives on it."""
        ...

    @property
    def greets(self) -> bool:
        """Whether `greet` has something to do on the new link."""
        ...

    async def greet(self) -> None:
        """Do what comes before anything queued, for example rejoin."""
        ...

    def opened(self) -> None:
        """Handle the open connection, before the state changes."""
        ...

    def lost(self, loss: Loss) -> None:
        """Handle the loss of the link, before the state changes; no other follows a final one."""
        ...

    def refusal(self, close: Close) -> RemoteError | None:
        """Return the error with which the server has explained the end of the link."""
        ...

    def changed(self, state: State) -> None:
        """Handle a new state."""
        ...
