"""What is said on an event connection, whatever it is written in.

`docs/protocol.md` says what each envelope means and who may send it. A
`Protocol` turns messages into envelopes and back: `symphony.protocol.v1` is
Symphony's own, in JSON and in MessagePack; an app may bring another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias
from typing import Protocol as Contract

from msgspec import Struct

from symphony.errors import Reject

__all__ = (
    "MESSAGE",
    "Cancel",
    "End",
    "Envelope",
    "Error",
    "Event",
    "Grant",
    "Item",
    "MalformedError",
    "Ping",
    "Pong",
    "Protocol",
    "Reply",
    "Retry",
)

MESSAGE = "message"
"""The event of a plain `send(x)`."""


class Event(Struct, omit_defaults=True):
    """Something happened; with an id, a request.

    Attributes:
        event: Its name.
        data: What it carries. As a `Protocol` decodes it, this is what its
            `payload` says; for message middleware, plain Python values.
        id: Of the request, an integer that rises with each new one; `None`:
            no answer is wanted.
        timeout: Seconds after which the answer is not wanted any more.
        credit: How many items of a stream may come before the first grant;
            `None`: they are not counted.
    """

    event: str
    data: Any
    id: Any = None
    timeout: float | None = None
    credit: int | None = None


class Reply(Struct, gc=False):
    """The answer to the request with the id `reply`."""

    reply: Any
    data: Any


class Error(Struct):
    """The request with the id `error` failed; data: code, message, retryable, details."""

    error: Any
    data: Any


class Item(Struct):
    """The next item of the stream that answers the request `item`."""

    item: Any
    data: Any


class End(Struct):
    """The stream that answers the request `end` is complete."""

    end: Any


class Grant(Struct):
    """So many more items of the stream `grant` may come."""

    grant: Any
    credit: int


class Cancel(Struct):
    """The answer to the request `cancel` is not wanted any more."""

    cancel: Any


class Ping(Struct):
    """Are you there?"""

    ping: int


class Pong(Struct):
    """The answer to the ping with the same number."""

    pong: int


class Retry(Struct):
    """The connection is about to be closed; come back after so many seconds."""

    retry: float


Envelope: TypeAlias = Event | Reply | Error | Item | End | Grant | Cancel | Ping | Pong | Retry


class MalformedError(Reject):
    """A message that is no envelope.

    Args:
        message: What is wrong.
        path: Where in the message.
        id: The id of the request that it meant to be, if that can be read.
    """

    def __init__(self, message: str, path: str, *, id: Any = None) -> None:
        super().__init__("invalid", message, details={"path": path})
        self.id = id


class Protocol(Contract):
    """How envelopes are written as messages.

    One object serves one connection, so it may remember what it needs to. What
    is sent to many is encoded by one object for all of them: an `Event`
    without an id must not need a memory.

    Attributes:
        subprotocol: What a client offers to speak it (RFC 6455 §1.9), `None`:
            it need not be asked for.
        payload: What the `data` of decoded events and replies is: `"json"` or
            `"msgpack"`, a `msgspec.Raw` of that; `"plain"`, Python values as
            `json.loads` gives them.
    """

    subprotocol: str | None
    payload: Literal["json", "msgpack", "plain"]

    def decode(self, message: str | bytes) -> Envelope | Sequence[Envelope | MalformedError]:
        """Return what a message says; several envelopes if it is a batch.

        Parts of a batch that are malformed are returned as `MalformedError`.

        Raises:
            MalformedError: It is no message of this protocol. The sender is
                told by an `Error`, or by an `Event` named "error".
        """
        ...

    def encode(self, envelope: Envelope) -> str | bytes | None:
        """Return the message that says *envelope*.

        `None`: nothing is sent, because this protocol has no way to say it
        or says it later.

        Raises:
            TypeError: Its data cannot be encoded.
        """
        ...
