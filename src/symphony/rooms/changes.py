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
    from symphony.rooms.departures import Departure
    from symphony.rooms.leave import Leave

__all__ = ("Change", "Changes", "refuse_gone", "undone")


class Change:
    """A join or a leave of one socket and one room whose hooks run.

    Attributes:
        joins: The room, while the `on_join` hook of a member runs.
        undone: Why the socket is no longer a member, if it has left or gone meanwhile.
        departure: The end of its membership, if that is over already.
    """

    __slots__ = ("_ended", "_is_over", "departure", "joins", "undone")

    def __init__(self) -> None:
        self.joins: Batch | None = None
        self.undone: Leave | None = None
        self.departure: Departure | None = None
        self._ended: asyncio.Future[None] | None = None
        self._is_over = False

    def check(self, recipient: Recipient, name: str) -> None:
        """Refuse a join that was undone."""
        refuse_gone(recipient, name)
        if self.undone is not None:
            raise undone(name)

    async def wait(self) -> None:
        """Return when the hooks have ended."""
        if self._is_over:
            return
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        # Not the future itself: a waiter that is cancelled would cancel it for all.
        await asyncio.wait((self._ended,))

    def end(self) -> None:
        """Wake those that wait."""
        self._is_over = True
        if self._ended is not None:
            self._ended.set_result(None)


_INSIDE: Final[ContextVar[tuple[Change, ...]]] = ContextVar("_INSIDE", default=())
"""The changes whose hooks the running code belongs to. It must not wait for these."""


class _Waiting:
    """A call that waits for the changes of others."""

    __slots__ = ("undone",)

    def __init__(self) -> None:
        self.undone = False


class Changes:
    """The joins and leaves of a node whose hooks run.

    Attributes:
        revocations: How often rights of users have changed. What `authorize` has allowed
            before is asked again.
    """

    def __init__(self) -> None:
        self.revocations = 0
        self._by_recipient: dict[Recipient, dict[str, Change]] = {}
        self._waiting: dict[tuple[Recipient, str], list[_Waiting]] = {}

    def of(self, recipient: Recipient) -> Mapping[str, Change]:
        """Return the changes of one socket, by the name of the room."""
        return self._by_recipient.get(recipient, {})

    async def settled(self, recipient: Recipient, name: str) -> bool:
        """Wait until no join or leave of *recipient* is under way, except one that calls this.

        Returns:
            Whether `undo_waiting` was called meanwhile.
        """
        waiting: _Waiting | None = None
        try:
            while (change := self._by_recipient.get(recipient, {}).get(name)) is not None:
                if change in _INSIDE.get():
                    break
                if waiting is None:
                    waiting = _Waiting()
                    self._waiting.setdefault((recipient, name), []).append(waiting)
                await change.wait()
            return waiting is not None and waiting.undone
        finally:
            if waiting is not None:
                others = self._waiting[recipient, name]
                others.remove(waiting)
                if not others:
                    del self._waiting[recipient, name]

    def undo_waiting(self, recipient: Recipient, name: str) -> None:
        """Undo the joins that wait for others to end."""
        for waiting in self._waiting.get((recipient, name), ()):
            waiting.undone = True

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


def undone(name: str) -> Reject:
    """Return the refusal of a join that a later leave has undone."""
    return Reject("cancelled", f"the socket left {name!r} before it had joined")


def refuse_gone(recipient: Recipient, name: str) -> None:
    """Refuse a join of a socket that has gone.

    Raises:
        DisconnectedError: It has gone.
    """
    if recipient.outbox.sealed:
        raise DisconnectedError(f"The socket was closed before it had joined {name!r}.")
