"""The members of rooms that the `sqlite://` broker stores beside the publications."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from symphony.broker.attendance import Decision
from symphony.broker.memberchanges import KeptMember, MemberChanges

__all__ = ("SqliteMembers",)


class SqliteMembers:
    """Collects the changes of members for the transactions of the broker: see `KeptMembers`.

    If a transaction fails, members are known in memory only. Its changes are part of the next
    one.

    Args:
        write_soon: Called when there is something to store.

    Attributes:
        members: The members that were in the file when it was opened.
        decisions: The decisions that were in the file.
    """

    def __init__(self, write_soon: Callable[[], object]) -> None:
        self.members: Sequence[KeptMember] = ()
        self.decisions: Sequence[Decision] = ()
        self._write_soon = write_soon
        self._loop = asyncio.get_running_loop()
        self._next = MemberChanges()
        self._failed = MemberChanges()
        # When those of the next transaction, and those of the present one, are stored.
        self._next_stored: asyncio.Future[None] | None = None
        self._stored: asyncio.Future[None] | None = None
        self._closed = False

    def __bool__(self) -> bool:
        """Whether there is something new to store."""
        return bool(self._next)

    def changes(self) -> MemberChanges:
        """See `KeptMembers.changes`."""
        return self._next

    def unstored(self) -> asyncio.Future[None] | None:
        """See `KeptMembers.unstored`."""
        if not self._next or self._closed:
            return self._stored
        if self._next_stored is None:
            self._next_stored = self._loop.create_future()
        self._write_soon()
        return self._next_stored

    def take(self) -> MemberChanges:
        """Return the changes for a transaction that begins now."""
        taken, self._next = self._next, MemberChanges()
        self._failed.precede(taken)
        self._failed = MemberChanges()
        self._stored, self._next_stored = self._next_stored, None
        return taken

    def ended(self, *, failed: MemberChanges | None = None) -> None:
        """Answer what waits for the transaction, with the changes that it did not store."""
        if failed is not None:
            self._failed = failed
        stored, self._stored = self._stored, None
        if stored is not None and not stored.done():
            stored.set_result(None)

    def try_again(self) -> None:
        """Let the next transaction store what an earlier one could not, also if nothing else is new."""
        self._failed.precede(self._next)
        self._failed = MemberChanges()

    def close(self) -> None:
        """Answer all that waits: the last transaction is over."""
        self._closed = True
        self.ended()
        self._stored, self._next_stored = self._next_stored, None
        self.ended()
