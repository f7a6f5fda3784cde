"""The envelopes of an event connection, independent of their encoding.

`docs/protocol.md` describes what each envelope means and who may send it. A
`Protocol` turns messages into envelopes and back. `symphony.protocol.v1` is
Symphony's own, in JSON and MessagePack; an app may define another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias
from typing import Protocol as Contract

from msgspec import Struct, field

from symphony.errors import Reject
from symphony.protocol.positions import Position
from symphony.protocol.rosters import MembersDiff, MembersState

__all__ = (
    "MESSAGE",
    "Cancel",
    "Dropped",
    "End",
    "Envelope",
    "Error",
    "Event",
    "Failure",
    "Grant",
    "Item",
    "Join",
    "Joined",
    "Leave",
    "Left",
    "LimitValues",
    "Limits",
    "Lost",
    "MalformedError",
    "Ping",
    "Pong",
    "Presence",
    "Protocol",
    "Publish",
    "Published",
    "ReadCount",
    "ReadHistory",
    "ReadPresence",
    "Reply",
    "Retry",
)

MESSAGE = "message"
"""The event of a plain `send(x)`."""


class Event(Struct, omit_defaults=True):
    """An event; with an id, a request.

    Attributes:
        event: The name.
        data: The data. A `Protocol` decodes it to the form that its `payload`
            names; message middleware gets plain Python values.
        id: The id of the request, an integer that increases with each new
            one; `None` for an event that gets no reply.
        timeout: Seconds after which the request is cancelled.
        credit: How many items of a stream may be sent before the first grant;
            `None`: no limit.
    """

    event: str
    data: Any
    id: Any = None
    timeout: float | None = None
    credit: int | None = None


class Failure(Event):
    """Something failed that was not a request; data: that of an `Error`.

    In `symphony.v1` it is an event with a reserved name. A protocol of yours may
    encode it as the event that it is, in another way, or not at all. Such an
    envelope that arrives is logged and never answered: two peers that answer
    errors with errors would never stop.
    """


class Published(Event, omit_defaults=True):
    """An event that was published to a room.

    It has no id: it expects no answer. A protocol of yours may encode it as the event
    that it is.

    Attributes:
        room: The name of the room; `None` from a server that did not say it.
        offset: Its number in the room's history, if it is kept there.
        epoch: The epoch of the offset, if it is not that of the one before.
        after: All places between this offset and `offset` are empty, if there are any: what
            stood there was replaced.
        replaces: The position of the publication that this one replaces.
    """

    room: str | None = None
    offset: int | None = None
    epoch: str | None = None
    after: int | None = None
    replaces: Position | None = None


class Publish(Event, omit_defaults=True):
    """A client publishes an event to a room; without an id, it is volatile.

    Attributes:
        key: A repeat with the same key is not published again.
        client: Kept while the client reconnects; its keys belong to it without a user.
    """

    event: str = field(name="publish")
    room: str = ""
    key: str | None = None
    client: str | None = None


class Reply(Struct, gc=False):
    """The reply to the request with the id `reply`."""

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
    """The server may send `credit` more items of the stream `grant`."""

    grant: Any
    credit: int


class Cancel(Struct):
    """The sender no longer wants an answer to the request `cancel`."""

    cancel: Any


class Ping(Struct):
    """A check whether the server still answers."""

    ping: int


class Pong(Struct):
    """The answer to the ping with the same number."""

    pong: int


class Retry(Struct):
    """The connection is about to be closed; reconnect after `retry` seconds."""

    retry: float


class Dropped(Struct):
    """The server has dropped so many messages at this place: the client has not read them in time."""

    dropped: int


class LimitValues(Struct, omit_defaults=True):
    """The limits that a server tells its clients.

    Attributes:
        max_message_bytes: The size limit of a message to the server.
    """

    max_message_bytes: int | None = None


class Limits(Struct):
    """The limits of the server, for clients that ask for them."""

    limits: LimitValues


class Join(Struct, omit_defaults=True):
    """The request `id`: make the client a member of the room `join`.

    Attributes:
        join: The name of the room.
        id: As that of an event.
        since: The position up to which the client has the room's publications;
            `"start"`: it wants all that are kept.
        timeout: As that of an event.
    """

    join: str
    id: Any
    since: Position | Literal["start"] | None = None
    timeout: float | None = None


class Leave(Struct, omit_defaults=True):
    """The request `id`: end the membership in the room `leave`."""

    leave: str
    id: Any
    timeout: float | None = None


class ReadHistory(Struct, omit_defaults=True):
    """The request `id`: the last publications in the history of the room `history`.

    Attributes:
        limit: The most publications; `None`: as many as the server likes.
        before: Only those before this position; `None`: the newest.
    """

    history: str
    id: Any
    timeout: float | None = None
    limit: int | None = None
    before: Position | None = None


class ReadPresence(Struct, omit_defaults=True):
    """The request `id`: the members of the room `presence`, of which the client is one."""

    presence: str
    id: Any
    timeout: float | None = None


class ReadCount(Struct, omit_defaults=True):
    """The request `id`: how many members the room `count` has, of which the client is one."""

    count: str
    id: Any
    timeout: float | None = None


class Presence(Struct, omit_defaults=True):
    """The members of the room `presence` have changed; it has one of the two.

    Attributes:
        presence: The name of the room.
        diff: What has changed.
        members: All members, anew.
    """

    presence: str
    diff: MembersDiff | None = None
    members: MembersState | None = None


class Joined(Struct, omit_defaults=True):
    """The client is a member of the room `joined`: its publications follow.

    Attributes:
        joined: The name of the room.
        position: The publications that follow begin after it, in a room with history.
        recovered: Whether they follow the `since` of the join; `None` if it had none.
        members: Who is in the room, if its clients are told.
    """

    joined: str
    position: Position | None = None
    recovered: bool | None = None
    members: MembersState | None = None


class Left(Struct):
    """The client is no longer a member of the room `left`; data: that of an `Error`."""

    left: str
    data: Any


class Lost(Struct):
    """The client has missed publications of the room `lost`; it goes on after `position`."""

    lost: str
    position: Position


Envelope: TypeAlias = (
    Event
    | Reply
    | Error
    | Item
    | End
    | Grant
    | Cancel
    | Ping
    | Pong
    | Retry
    | Limits
    | Dropped
    | Join
    | Leave
    | ReadHistory
    | Joined
    | Left
    | Lost
    | ReadPresence
    | ReadCount
    | Presence
)


class MalformedError(Reject):
    """A message that is not a valid envelope.

    Args:
        message: What is wrong.
        path: Where in the message.
        id: The id of the request, if the message is a request and its id can
            be read.
    """

    def __init__(self, message: str, path: str, *, id: Any = None) -> None:
        super().__init__("invalid", message, details={"path": path})
        self.id = id


class Protocol(Contract):
    """How envelopes are encoded as messages.

    Each connection has its own object, which may keep state. Events that are
    sent to many sockets are encoded by one object for all of them, so encoding
    an `Event` without an id must not depend on that state.

    Attributes:
        subprotocol: The subprotocol that a client offers in order to use it
            (RFC 6455 §1.9); `None`: it has no name.
        payload: The form of the `data` of decoded events and replies: `"json"`
            or `"msgpack"`, a `msgspec.Raw` in that encoding; `"plain"`, Python
            values such as `json.loads` returns.
    """

    subprotocol: str | None
    payload: Literal["json", "msgpack", "plain"]

    def decode(self, message: str | bytes) -> Envelope | Sequence[Envelope | MalformedError]:
        """Return the envelope in a message, or several if it is a batch.

        Malformed parts of a batch are returned as `MalformedError`.

        Raises:
            MalformedError: The message does not follow this protocol. The
                sender gets an `Error`, or a `Failure`.
        """
        ...

    def encode(self, envelope: Envelope) -> str | bytes | None:
        """Return *envelope* encoded as a message.

        `None`: nothing is sent, because this protocol has no message for it
        or sends it later.

        Raises:
            TypeError: Its data cannot be encoded.
        """
        ...
