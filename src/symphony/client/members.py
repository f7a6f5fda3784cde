"""What a client asks about the members of its rooms: how many there are, and who."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from symphony.client.answers import Answers
from symphony.client.backlog import Gate
from symphony.client.options import Options
from symphony.client.payload import Decoding, InvalidError, reader
from symphony.client.requests import Request
from symphony.errors import DisconnectedError, RemoteError, SymphonyError
from symphony.protocol.envelopes import ReadCount, ReadPresence
from symphony.protocol.rosters import MembersState
from symphony.tasks import start

if TYPE_CHECKING:
    from symphony.client.membership import Membership

__all__ = ("Members",)

logger = logging.getLogger("symphony.client")

Kind: TypeAlias = type[ReadCount] | type[ReadPresence]


class _Question(Request):
    """A request about the members of a room. It may be sent again after a lost connection.

    Args:
        answers: The requests of the client.
        kind: What it asks.
        room: The name of the room.
        take: Called with the answer, before anything that the server sends after it; returns its result.
        timeout: Seconds; `inf`: no limit.
        where: The address of the server, for the errors.
    """

    __slots__ = ("_kind", "_take")

    def __init__(
        self,
        answers: Answers,
        kind: Kind,
        room: str,
        take: Callable[[Any], Any],
        *,
        timeout: float,
        where: str,
    ) -> None:
        super().__init__(answers, room, None, timeout=timeout, idempotent=True, where=where)
        self._kind = kind
        self._take = take

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return self._name

    @property
    def _name(self) -> str:
        what = "number" if self._kind is ReadCount else "list"
        return f"the request for the {what} of the members of {self._event!r}"

    def _envelope(self, timeout: float | None) -> ReadCount | ReadPresence:
        return self._kind(self._event, None, timeout)

    def replied(self, data: Any) -> None:
        """Handle the reply."""
        if self._future.done():
            return
        try:
            result = self._take(data)
        except RemoteError as error:
            self._fail(error)
        else:
            super().replied(result)


class Members:
    """What one client asks about the members of its rooms.

    Args:
        answers: The requests of the client.
        gate: The gate of the client.
        decoding: How received data is decoded.
        options: The options of the client.
        where: The address of the server, for messages.
    """

    __slots__ = ("_answers", "_decoding", "_gate", "_options", "_reading", "_where")

    def __init__(
        self, answers: Answers, gate: Gate, decoding: Decoding, options: Options, where: str
    ) -> None:
        self._answers = answers
        self._gate = gate
        self._decoding = decoding
        self._options = options
        self._where = where
        self._reading: dict[Membership, asyncio.Task[None]] = {}

    async def count(self, membership: Membership) -> int:
        """Return how many members a room has."""
        self._gate.wait()
        try:
            return await self._ask(
                ReadCount, membership, lambda data: self._read(int, data), self._options.request_timeout
            )
        finally:
            self._gate.waited()

    def reread(self, membership: Membership) -> None:
        """Read all members of a room, because a change is missing."""
        if membership not in self._reading:
            task = self._reading[membership] = start(self._reread(membership))
            task.add_done_callback(lambda _: self._reading.pop(membership))

    async def _reread(self, membership: Membership) -> None:
        roster = membership.roster

        def take(data: Any) -> None:
            membership.show(roster.restart(self._read(MembersState, data)))

        while (missed := roster.missed) is not None:
            try:
                # If the connection is lost, it is sent on the next one. So it needs no timeout.
                await self._ask(ReadPresence, membership, take, inf)
            except DisconnectedError:
                return
            except SymphonyError as error:
                logger.warning(
                    "%s: a change of the members of the room %r is missing, and they cannot be read: %s. "
                    "The client tries it again at the next change.",
                    self._where,
                    membership.name,
                    error,
                )
                return
            if roster.missed == missed:
                # The answer is older. Only another change could be a reason to ask again.
                return

    async def _ask(
        self, kind: Kind, membership: Membership, take: Callable[[Any], Any], timeout: float
    ) -> Any:
        name = membership.name
        request = _Question(self._answers, kind, name, take, timeout=timeout, where=self._where)
        return await request.reply()

    def _read(self, annotation: Any, data: Any) -> Any:
        try:
            return reader(annotation, self._decoding)(data)
        except InvalidError as error:
            raise RemoteError("invalid", f"the server's answer is not valid: {error}") from None
