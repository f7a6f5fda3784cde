"""The requests of one client that are in progress, by their ids."""

from __future__ import annotations

from typing import Any, Protocol

from symphony.client.entries import Entry
from symphony.client.loss import Loss
from symphony.client.outgoing import Outgoing
from symphony.client.payload import Decoding, error_said
from symphony.errors import RemoteError, SymphonyError
from symphony.protocol.envelopes import (
    Cancel,
    End,
    Error,
    Event,
    Item,
    Join,
    Leave,
    ReadCount,
    ReadHistory,
    ReadPresence,
    Reply,
)
from symphony.protocol.v1 import MAX_ID, V1

__all__ = ("Answers", "Asking")


class Asking(Entry, Protocol):
    """One request, or one stream."""

    id: int | None
    """The id on this connection; `None` until it is sent."""

    def postpone(self, error: RemoteError, *, stops: bool) -> bool:
        """Handle an error after which it may be sent again; return whether it waits for that.

        Args:
            error: The error.
            stops: Whether it is that of a server that stops.
        """
        ...

    def replied(self, data: Any) -> None:
        """Handle the reply."""
        ...

    def item(self, data: Any, size: int) -> None:
        """Handle an item, in a message of so many bytes."""
        ...

    def end(self) -> None:
        """Handle the end of the stream."""
        ...

    def failed(self, error: SymphonyError) -> None:
        """Handle an error; nothing more arrives."""
        ...

    def lost(self, loss: Loss) -> bool:
        """Handle the loss of the connection; return whether to send it again."""
        ...


class Answers:
    """Passes each answer to the request that it belongs to.

    Args:
        outgoing: Sends the client's messages.
        decoding: How received data is decoded.
    """

    __slots__ = ("_asking", "_decoding", "_last_id", "outgoing")

    def __init__(self, outgoing: Outgoing, decoding: Decoding) -> None:
        self._decoding = decoding
        self.outgoing = outgoing
        self._asking: dict[int, Asking] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._asking)

    def ask(
        self,
        asking: Asking,
        codec: V1,
        envelope: Event | Join | Leave | ReadCount | ReadHistory | ReadPresence,
    ) -> str | bytes:
        """Give a request its id and return its message.

        Args:
            asking: The request.
            codec: The codec of the connection.
            envelope: Its envelope, without the id.

        Raises:
            MessageTooLargeError: It is larger than the server accepts.
        """
        # An id is never reused on one connection, so that a late answer cannot be
        # taken for the answer to another request.
        id = self._last_id = self._last_id % MAX_ID + 1
        envelope.id = id
        message = codec.encode(envelope)
        self.outgoing.fitting(message, "{0.what}", asking)
        asking.id = id
        self._asking[id] = asking
        return message

    def give_up(self, asking: Asking) -> None:
        """Cancel a request; if it was sent, tell the server."""
        id = asking.id
        if id is not None and self._asking.get(id) is asking:
            del self._asking[id]
            self.outgoing.say(Cancel(id))

    def release(self, asking: Asking) -> None:
        """Forget a request that was answered and kept, because it is sent again, or given up."""
        if asking.id is not None and self._asking.pop(asking.id, None) is not None:
            asking.id = None

    def take(self, envelope: Reply | Error | Item | End, size: int) -> None:
        """Pass on an answer. One to an unknown id has crossed a `cancel` and is ignored.

        Args:
            envelope: The answer.
            size: The bytes of its message.
        """
        if isinstance(envelope, Item):
            if (asking := self._asking.get(envelope.item)) is not None:
                asking.item(envelope.data, size)
        elif isinstance(envelope, Reply):
            if (asking := self._asking.pop(envelope.reply, None)) is not None:
                asking.replied(envelope.data)
        elif isinstance(envelope, Error):
            if (asking := self._asking.get(envelope.error)) is not None:
                error = self._error(envelope.data)
                stops = self.outgoing.held and error.code == "unavailable"
                # If it is kept, it is lost with the connection, and then sent again with
                # the other idempotent requests.
                if not asking.postpone(error, stops=stops):
                    del self._asking[envelope.error]
                    asking.failed(error)
        elif (asking := self._asking.pop(envelope.end, None)) is not None:
            asking.end()

    def lost(self, loss: Loss) -> list[Asking]:
        """End all requests with the connection; return those to send again, in order."""
        asking, self._asking = self._asking, {}
        self._last_id = 0
        again: list[Asking] = []
        for one in asking.values():
            if one.lost(loss):
                one.id = None
                again.append(one)
        return again

    def _error(self, data: Any) -> RemoteError:
        # An answer without a code is the server's mistake, not a code that it has.
        return error_said(data, self._decoding) or RemoteError("invalid", "the server's error has no code")
