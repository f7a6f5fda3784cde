"""Joins and leaves that are under way: those of one socket and one room run one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from symphony.errors import DisconnectedError, Reject

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batch, Recipient

__all__ = ("Change", "Changes", "refuse_gone")


class Change:
    """A join or a leave of one socket and one room whose hooks run.

    Attributes:
        joins: The room, while the `on_join` hook of a member runs.
        undone: Whether the socket has left or gone meanwhile.
    """

    __slots__ = ("_ended", "joins", "undone")

    def __init__(self) -> None:
        self.joins: Batch | None = None
        self.undone = False
        self._ended: asyncio.Future[None] | None = None

    def check(self, recipient: Recipient, name: str) -> None:
        """Refuse a join that was undone."""
        refuse_gone(recipient, name)
        if self.undone:
            raise Reject("cancelled", f"the socket left {name!r} before it had joined")

    async def wait(self) -> None:
        """Return when the hooks have ended."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        # Not the future itself: a waiter that is cancelled would cancel it for all.
        await asyncio.wait((self._ended,))

    def end(self) -> None:
        """Wake those that wait."""
        if self._ended is not None:
            self._ended.set_result(None)


_INSIDE: Final[ContextVar[tuple[Change, ...]]] = ContextVar("_INSIDE", default=())
"""The changes whose hooks the running code belongs to. It must not wait for these."""


class Changes:
    """The joins and leaves of a node whose hooks run."""

    def __init__(self) -> None:
        self._by_recipient: dict[Recipient, dict[str, Change]] = {}

    def of(self, recipient: Recipient) -> Mapping[str, Change]:
        """Return those of one socket, by the name of the room."""
        return self._by_recipient.get(recipient, {})

    async def settled(self, recipient: Recipient, name: str) -> None:
        """Return when no join or leave of *recipient* is under way, except one that calls this."""
        while (change := self._by_recipient.get(recipient, {}).get(name)) is not None:
            if change in _INSIDE.get():
                return
            await change.wait()

    @contextmanager
    def changing(self, recipient: Recipient, name: str) -> Generator[Change]:
        """Register a join or leave while its hooks run."""
        changes = self._by_recipient.setdefault(recipient, {})
        # A hook may join or leave the same room.
        outer = changes.get(name)
        change = changes[name] = Change()
        token = _INSIDE.set((*_INSIDE.get(), change))
        try:
            yield change
        finally:
            _INSIDE.reset(token)
            change.end()
            if outer is not None:
                changes[name] = outer
            else:
                del changes[name]
                if not changes:
                    del self._by_recipient[recipient]


def refuse_gone(recipient: Recipient, name: str) -> None:
    """Refuse a join of a socket that has gone.

    Raises:
        DisconnectedError: It has gone.
    """
    if recipient.outbox.sealed:
        raise DisconnectedError(f"The socket was closed before it had joined {name!r}.")
