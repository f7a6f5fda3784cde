"""What a client publishes to its rooms, and what it reads of their history."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from symphony.client.acknowledging import Acknowledgement, Unacknowledged
from symphony.client.answers import Answers
from symphony.client.arrivals import Publication
from symphony.client.backlog import Gate
from symphony.client.options import Options
from symphony.client.payload import Decoding, InvalidError, reader, snapshot
from symphony.client.requests import Request
from symphony.errors import QueueFullError, RemoteError, SymphonyError
from symphony.protocol.envelopes import Publish, ReadHistory
from symphony.protocol.positions import Position
from symphony.protocol.v1 import MAX_KEY
from symphony.websocket.backpressure import READY

if TYPE_CHECKING:
    from symphony.client.membership import Membership

__all__ = ("PUBLISH_TIMEOUT", "Publishing")

PUBLISH_TIMEOUT: Final = 240.0
"""For how many seconds a publication is repeated. A server remembers its key for 300."""


class _Reading(Request):
    """A request for a part of a history."""

    __slots__ = ("_before", "_limit", "_room")

    def __init__(
        self,
        answers: Answers,
        room: str,
        limit: int,
        before: Position | None,
        *,
        timeout: float,
        where: str,
    ) -> None:
        super().__init__(answers, room, None, timeout=timeout, idempotent=True, where=where)
        self._room = room
        self._limit = limit
        self._before = before

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return self._name

    @property
    def _name(self) -> str:
        return f"the request for the history of {self._room!r}"

    def _envelope(self, timeout: float | None) -> ReadHistory:
        return ReadHistory(self._room, None, timeout, self._limit, self._before)


class Publishing:
    """What one client publishes and reads.

    Args:
        answers: The requests of the client.
        gate: The gate of the client.
        decoding: How received data is decoded.
        options: The options of the client.
        where: The address of the server, for messages.
    """

    __slots__ = (
        "_answers",
        "_bytes",
        "_client",
        "_decoding",
        "_gate",
        "_options",
        "_outgoing",
        "_pending",
        "_where",
    )

    def __init__(
        self, answers: Answers, gate: Gate, decoding: Decoding, options: Options, where: str
    ) -> None:
        self._answers = answers
        self._outgoing = answers.outgoing
        self._gate = gate
        self._decoding = decoding
        self._options = options
        self._where = where
        self._client = secrets.token_urlsafe(12)
        # In the order of the calls.
        self._pending: dict[Unacknowledged, int] = {}
        self._bytes = 0

    def emit(
        self, membership: Membership, event: str, data: Any, key: str | None, *, volatile: bool
    ) -> Awaitable[Position | None]:
        """Publish an event to a room that the program has joined."""
        room = membership.name
        if volatile:
            if key is not None:
                raise ValueError("key= makes a repeat safe, and what is volatile is never repeated.")
            return self._emit_now(membership, event, data)
        if key is not None and not 0 < len(key) <= MAX_KEY:
            raise ValueError(f"A key has 1 to {MAX_KEY} characters, not {len(key)}.")
        has_history = membership.place.seen is not None
        if key is not None and not has_history:
            raise ValueError(f"key= needs a history, and the room {room!r} has none.")
        if has_history and key is None:
            key = secrets.token_urlsafe(12)
        encoded = snapshot(data, self._options.protocol)
        request = Unacknowledged(
            self._answers,
            membership,
            event,
            encoded,
            key,
            self._client,
            timeout=PUBLISH_TIMEOUT,
            where=self._where,
        )
        try:
            self._check_bounds(request.size)
            if not membership.member and any(one.waits and one.room == room for one in self._pending):
                # It must not overtake them.
                request.waits = True
            else:
                self._outgoing.put(request, refuse=not self._outgoing.takes)
        except BaseException:
            request.result.cancel()
            raise
        if not request.result.done():
            self._pending[request] = request.size
            self._bytes += request.size
            request.result.add_done_callback(lambda _: self._settled(request))
        return Acknowledgement(request.result, self._gate, self._read_position, request.what)

    def withdraw(self, room: str, error: SymphonyError) -> None:
        """Fail what waits to be sent to a room, because the client has left it."""
        for request in [one for one in self._pending if one.room == room]:
            if request.waits or self._outgoing.withdraw(request):
                self._answers.release(request)
                request.give_up(error, "the client left the room before it could repeat it")

    def resume(self, room: str) -> None:
        """Send what waits until the client is in a room, because it is."""
        waiting = [one for one in self._pending if one.waits and one.room == room]
        if waiting:
            for request in waiting:
                request.resume()
            self._outgoing.put_first(waiting)
            self._outgoing.flush()

    def unsent(self) -> list[Unacknowledged]:
        """Return what still waits until the client is in a room: the next connection sends it."""
        # What was sent before is among the requests that were lost with the connection.
        waiting = [one for one in self._pending if one.waits]
        for request in waiting:
            request.waits = False
        return waiting

    async def history(self, membership: Membership, limit: int, before: Position | None) -> list[Publication]:
        """Return the last publications of a room, the oldest first."""
        found: list[Publication] = []
        more = True
        while more and len(found) < limit:
            request = _Reading(
                self._answers,
                membership.name,
                limit - len(found),
                before,
                timeout=self._options.request_timeout,
                where=self._where,
            )
            self._gate.wait()
            try:
                answer = await request.reply()
            finally:
                self._gate.waited()
            page, more = self._read_page(answer)
            if not page:
                break
            found = page + found
            before = page[0].position
        return found

    def _emit_now(self, membership: Membership, event: str, data: Any) -> Awaitable[None]:
        # Before it is a member again, the server would refuse it. What waits would be late.
        if membership.member and self._outgoing.clear:
            encoded = snapshot(data, self._options.protocol)
            self._outgoing.say(Publish(event, encoded, room=membership.name))
        return READY

    def _check_bounds(self, size: int) -> None:
        options = self._options
        if len(self._pending) >= options.max_queue:
            raise QueueFullError(
                f"{len(self._pending)} publications wait for {self._where} to acknowledge them: "
                "`await` each room.emit()."
            )
        if self._pending and self._bytes + size > options.max_queue_bytes:
            raise QueueFullError(
                f"{self._bytes:,} bytes of publications wait for {self._where} to acknowledge them: "
                "`await` each room.emit()."
            )

    def _settled(self, request: Unacknowledged) -> None:
        self._bytes -= self._pending.pop(request)

    def _read_position(self, data: Any) -> Position | None:
        try:
            return reader(Position | None, self._decoding)(data)
        except InvalidError as error:
            raise RemoteError("invalid", f"the server's answer is not a position: {error}") from None

    def _read_page(self, data: Any) -> tuple[list[Publication], bool]:
        try:
            answer = reader(dict[str, Any], self._decoding)(data)
            return [_publication(each) for each in answer["publications"]], answer.get("more") is True
        except (InvalidError, LookupError, TypeError) as error:
            raise RemoteError("invalid", f"the server's answer is not a history: {error}") from None


def _publication(said: dict[str, Any]) -> Publication:
    replaces = said.get("replaces")
    return Publication(
        said["event"],
        said["data"],
        _position(said["position"]),
        None if replaces is None else _position(replaces),
    )


def _position(said: dict[str, Any]) -> Position:
    return Position(said["epoch"], said["offset"])
