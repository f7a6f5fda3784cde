"""One publication of a client, from the call until the server has acknowledged it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from symphony.client.answers import Answers
from symphony.client.backlog import Gate
from symphony.client.loss import Loss, sentence
from symphony.client.requests import Request
from symphony.errors import (
    DisconnectedError,
    OutcomeUnknownError,
    RemoteError,
    RequestTimeoutError,
    SymphonyError,
)
from symphony.protocol.envelopes import Event, Publish
from symphony.protocol.positions import Position

if TYPE_CHECKING:
    from symphony.client.membership import Membership

__all__ = ("Acknowledgement", "Unacknowledged")

logger = logging.getLogger("symphony.client")


class Unacknowledged(Request):
    """One publication, until the server has acknowledged it.

    Args:
        answers: The requests of the client.
        membership: What the client knows of the room.
        event: The name of the event.
        data: The data, encoded.
        key: Makes a repeat safe; `None`: it is never repeated.
        client: What the client names itself with.
        timeout: For how many seconds it is repeated.
        where: The address of the server, for the errors.

    Attributes:
        waits: Whether it waits until the client is in the room again.
    """

    __slots__ = ("_client", "_key", "_membership", "_repeats", "_timer", "waits")

    def __init__(
        self,
        answers: Answers,
        membership: Membership,
        event: str,
        data: Raw,
        key: str | None,
        client: str,
        *,
        timeout: float,
        where: str,
    ) -> None:
        super().__init__(answers, event, data, timeout=timeout, idempotent=key is not None, where=where)
        self.waits = False
        # Whether it was sent on an earlier connection, which was lost before the answer.
        self._repeats = False
        self._membership = membership
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
    def room(self) -> str:
        """The name of the room."""
        return self._membership.name

    @property
    def result(self) -> asyncio.Future[Any]:
        """Its position, still encoded."""
        return self._future

    def _envelope(self, timeout: float | None) -> Event:
        client = None if self._key is None else self._client
        return Publish(self._event, self._data, room=self.room, key=self._key, client=client)

    def postpone(self, error: RemoteError, *, stops: bool) -> bool:
        """Handle an error after which it may be sent again; return whether it waits for that."""
        membership = self._membership
        if error.code == "forbidden" and self._idempotent and membership.held and not membership.member:
            # The server has refused to let the client join again, for now.
            self.waits = True
            self._sent = self._repeats
        return self.waits or super().postpone(error, stops=stops)

    def failed(self, error: SymphonyError) -> None:
        """Handle an error."""
        code = error.code if isinstance(error, RemoteError) else None
        if code == "timeout":
            self._fail(OutcomeUnknownError(sentence(f"{self._name}: {error}")))
        elif code == "forbidden" and self._repeats and not self._membership.member:
            # This is about the client, which could not join again, and not about the first.
            self._fail(self._unknown(f"the server answers its repeat with {code!r}"))
        else:
            self._fail(error)

    def lost(self, loss: Loss) -> bool:
        """Handle the loss of its connection; return whether to send it again."""
        refusal, self._refusal = self._refusal, None
        if self._idempotent and not loss.final:
            self._repeats, self.waits = self._sent, False
            return not self._future.done()
        if self._sent:
            self._fail(
                refusal or loss.not_begun() or self._unknown(f"{loss.what} before it was acknowledged")
            )
        else:
            self._fail(loss.error(f"{self._name} was not published"))
        return False

    def resume(self) -> None:
        """Send it again, because the client is in the room."""
        self.waits = False
        self._answers.release(self)

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
            self._fail(self._unknown(f"it was not acknowledged within {self._timeout:g} s"))
        else:
            self._fail(RequestTimeoutError(sentence(f"{self._name} was not sent in {self._timeout:g} s")))

    def _unknown(self, why: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(sentence(f"{self._name} may or may not have been published: {why}"))

    def _over(self, future: asyncio.Future[Any]) -> None:
        self._timer.cancel()


class Acknowledgement:
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
