"""What a client publishes to its rooms, and what it reads of their history."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from symphony.client.answers import Answers
from symphony.client.arrivals import Publication
from symphony.client.backlog import Gate
from symphony.client.loss import Loss, sentence
from symphony.client.options import Options
from symphony.client.payload import Decoding, InvalidError, reader, snapshot
from symphony.client.requests import Request
from symphony.errors import (
    DisconnectedError,
    OutcomeUnknownError,
    QueueFullError,
    RemoteError,
    RequestTimeoutError,
    SymphonyError,
)
from symphony.protocol.envelopes import Event, Publish, ReadHistory
from symphony.protocol.positions import Position
from symphony.protocol.v1 import MAX_KEY
from symphony.websocket.backpressure import READY

if TYPE_CHECKING:
    from symphony.client.membership import Membership

__all__ = ("PUBLISH_TIMEOUT", "Publishing")

logger = logging.getLogger("symphony.client")

PUBLISH_TIMEOUT: Final = 240.0
"""For how many seconds a publication is repeated. A server remembers its key for 300."""


class _Publishing(Request):
    """One publication, until the server has acknowledged it.

    Args:
        answers: The requests of the client.
        room: The name of the room.
        event: The name of the event.
        data: The data, encoded.
        key: Makes a repeat safe; `None`: it is never repeated.
        client: What the client names itself with.
        where: The address of the server, for the errors.
    """

    __slots__ = ("_client", "_key", "_timer", "room")

    def __init__(
        self,
        answers: Answers,
        room: str,
        event: str,
        data: Raw,
        key: str | None,
        client: str,
        where: str,
    ) -> None:
        super().__init__(
            answers, event, data, timeout=PUBLISH_TIMEOUT, idempotent=key is not None, where=where
        )
        self.room = room
        self._key = key
        self._client = client
        self._timer = self._loop.call_at(self._deadline, self._too_late)
        self._future.add_done_callback(self._over)

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return self._name

    @property
    def _name(self) -> str:
        return f"the publication {self._event!r} to {self.room!r}"

    @property
    def result(self) -> asyncio.Future[Any]:
        """Its position, still encoded."""
        return self._future

    def _envelope(self, timeout: float | None) -> Event:
        client = None if self._key is None else self._client
        return Publish(self._event, self._data, room=self.room, key=self._key, client=client)

    def failed(self, error: SymphonyError) -> None:
        """Handle an error."""
        if isinstance(error, RemoteError) and error.code == "timeout":
            self._fail(OutcomeUnknownError(sentence(f"{self._name}: {error.message}")))
        else:
            self._fail(error)

    def lost(self, loss: Loss) -> bool:
        """Handle the loss of its connection; return whether to send it again."""
        refusal, self._refusal = self._refusal, None
        if self._idempotent and not loss.final:
            return not self._future.done()
        self._fail(refusal or self._unknown(f"{loss.what} before it was acknowledged"))
        return False

    def dropped(self, loss: Loss) -> bool:
        """Fail, because it is not sent again."""
        self.give_up(loss.error(f"{self._name} was not sent"), loss.what)
        return False

    def give_up(self, error: SymphonyError, why: str) -> None:
        """Fail, because it waits to be sent, and will not be.

        Args:
            error: The error, if it was never sent.
            why: Why, if it was sent on an earlier connection.
        """
        self._fail(self._unknown(why) if self._sent else error)

    def _too_late(self) -> None:
        self._withdraw()
        if self._sent:
            self._fail(self._unknown(f"it was not acknowledged within {PUBLISH_TIMEOUT:g} s"))
        else:
            self._fail(RequestTimeoutError(sentence(f"{self._name} was not sent in {PUBLISH_TIMEOUT:g} s")))

    def _unknown(self, why: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(sentence(f"{self._name} may or may not have been published: {why}"))

    def _over(self, future: asyncio.Future[Any]) -> None:
        self._timer.cancel()


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
        self._pending: dict[_Publishing, int] = {}
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
        request = _Publishing(self._answers, room, event, encoded, key, self._client, self._where)
        try:
            self._check_bounds(request.size)
            self._outgoing.put(request, refuse=not self._outgoing.takes)
        except BaseException:
            request.result.cancel()
            raise
        if not request.result.done():
            self._pending[request] = request.size
            self._bytes += request.size
            request.result.add_done_callback(lambda _: self._settled(request))
        return _Acknowledged(request.result, self._gate, self._read_position, request.what)

    def withdraw(self, room: str, error: SymphonyError) -> None:
        """Fail what waits to be sent to a room, because the client has left it."""
        for request in [one for one in self._pending if one.room == room]:
            if self._outgoing.withdraw(request):
                request.give_up(error, "the client left the room before it could repeat it")

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

    def _settled(self, request: _Publishing) -> None:
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


class _Acknowledged:
    """What a program awaits of a publication: its position.

    Args:
        result: The answer of the server.
        gate: The gate of the client: while the program waits, the client reads on.
        read: Decodes the answer.
        what: What it is, for messages.
    """

    __slots__ = ("_gate", "_read", "_result", "_waits", "_what")

    def __init__(
        self,
        result: asyncio.Future[Any],
        gate: Gate,
        read: Callable[[Any], Position | None],
        what: str,
    ) -> None:
        self._result = result
        self._gate = gate
        self._read = read
        self._what = what
        self._waits = False

    def __await__(self) -> Generator[Any, Any, Position | None]:
        self._waits = True
        self._gate.wait()
        try:
            # The program may stop to wait. The publication goes on.
            answer = yield from asyncio.shield(self._result).__await__()
        except asyncio.CancelledError:
            self._waits = False
            raise
        finally:
            self._gate.waited()
        return self._read(answer)

    def __del__(self) -> None:
        if not self._waits and not self._result.get_loop().is_closed():
            what = self._what
            self._result.add_done_callback(lambda result: _log_failure(result, what))


def _log_failure(result: asyncio.Future[Any], what: str) -> None:
    error = None if result.cancelled() else result.exception()
    if error is not None and not isinstance(error, DisconnectedError):
        logger.error("Nothing waits for %s, which has failed: %s", what, error)
    elif error is not None:
        logger.info("Nothing waits for %s: %s", what, error)


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
