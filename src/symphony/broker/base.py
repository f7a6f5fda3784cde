"""The contract of a broker: what is published to rooms, and what of it is kept.

An engine implements `Broker`. `symphony.testing.contracts` has the tests that each engine passes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from symphony.errors import ConfigurationError
from symphony.protocol.positions import Position

__all__ = ("Broker", "BrokerState", "Draft", "Heard", "History", "Key", "Page", "Receive", "Record")

BrokerState: TypeAlias = Literal["ok", "away", "deaf"]
"""What a process knows of its broker: see `Broker.state`."""


@dataclass(frozen=True, slots=True)
class History:
    """How much of its publications a room keeps: `app.rooms(pattern, history=History(100))`.

    A publication is kept until one of these says otherwise.

    Attributes:
        size: The most publications.
        ttl: For how many seconds.
        bytes: The most bytes of all of them together, in MessagePack. The newest one is
            kept in any case.

    Raises:
        ConfigurationError: A value is not above 0.
    """

    size: int = 100
    _: KW_ONLY
    ttl: float = 300.0
    bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("size", "ttl", "bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(f"History: {name} must be a number above 0, not {value!r}.")
        if not isinstance(self.size, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"History: size is a number of publications, not {self.size!r}.")


class Key(NamedTuple):
    """What makes the repeat of a publication known as one.

    Attributes:
        publisher: Who has chosen the key: the id of a user, otherwise a random id that a
            client keeps while it reconnects, otherwise a random id of the node. Two
            publishers may use the same key.
        key: The key.
        digest: A digest of what was to be published. With the same key, it must be the same.
    """

    publisher: str
    key: str
    digest: bytes


class Draft(Struct, frozen=True):
    """A publication that has no position yet.

    Attributes:
        event: The name of the event; `None` for a message, which has no name.
        payload: Its data, in MessagePack.
        source: The publisher's own object. An engine that reaches subscribers in the
            same process passes it on to them. Others ignore it, and it is never kept.
        key: A repeat with the same key is not published again; `None`: there is no key.
        replaces: The publication that this one replaces in the history; `None`: none.
    """

    event: str | None
    payload: bytes
    source: Any = None
    key: Key | None = None
    replaces: Position | None = None


class Record(Struct, frozen=True):
    """A publication with its position.

    Attributes:
        position: Where it stands.
        event: As in `Draft`.
        payload: As in `Draft`.
        source: As in `Draft`; `None` if the engine does not pass it on, and for what is
            read from the history.
        replaces: The publication that this one replaces; `None`: none. If that one has replaced
            another one, this is the first of them.
    """

    position: Position
    event: str | None
    payload: bytes
    source: Any = None
    replaces: Position | None = None

    @property
    def size(self) -> int:
        """The bytes that it counts in `History.bytes`."""
        event = self.event or ""
        return len(self.payload) + (len(event) if event.isascii() else len(event.encode()))


class Page(NamedTuple):
    """A part of a room's history.

    Attributes:
        records: The publications, the oldest first. Their offsets need not follow each other:
            the place of a publication that was replaced is empty.
        top: The position of the room's last publication.
        complete: Whether the records are all that followed the position asked for, as
            far as the page goes. If not, something after that position is no longer
            kept, or the position is not one of this history.
        end: How far the page goes: it covers each place up to this position, the empty ones
            too. The next page follows it. It is *top* if nothing follows. If the page is not
            complete, it has no records, and whoever has the position asked for goes on after this
            one: what is kept up to it is known there already, as far as the engine can tell.
    """

    records: Sequence[Record]
    top: Position
    complete: bool
    end: Position


Receive = Callable[[Record], None]
Heard = Callable[[bytes], None]


class Broker(Protocol):
    """Takes the publications of rooms with a history, keeps them, and passes them on.

    Each room has one sequence of publications. The first has the offset 1, and each
    later one the next offset. An *epoch* names one unbroken life of the sequence. An
    engine that has forgotten the sequence, or may have forgotten its end, and only then,
    begins a new epoch.

    A publication with a *key* is published once: within `broker.keys.KEY_WINDOW` seconds, a
    repeat with the same key of the same publisher to the same room has the position of the
    first, and is neither kept nor passed on. This holds if the first one is no longer kept.

    A publication that *replaces* another one has a new position, the next one as always. The
    replaced one is removed from the history and leaves its place empty. Subscribers get the
    replacement as any other publication. `replaces` of the record names the first publication
    of a chain of replacements, no matter which of them was named to `publish`: a member that
    has the first and missed the second must know what the third replaces. If the publication
    is not kept any more, was never there, or is of another epoch, the replacement is published
    all the same, and its record names what `publish` was told. The last publication of a room
    is never empty.

    Several processes may share a broker. It also carries messages between them, which are
    not kept: see `relay`.

    What fails raises one of these, when it is awaited:

    * `QueueFullError`: too much waits for the broker already. Nothing was done.
    * `BrokerUnavailableError`: the broker cannot be reached, or cannot store anything.
      Nothing was done.
    * `OutcomeUnknownError`: the call may or may not have been carried out.

    An engine repeats what it can repeat safely until `Limits.publish_timeout` is over, so the
    last two are raised after that time. All attempts to publish one draft have the same key.

    Attributes:
        shared: Whether other processes may use the same rooms. If not, nothing is relayed.
        state: `"ok"`; `"away"`: there is no connection to it; `"deaf"`: it answers this process,
            which nevertheless does not hear what others publish. Only the last one is a reason to
            prefer another node: all of them lose a broker that is away.
    """

    @property
    def shared(self) -> bool:
        """See the attributes of the class."""
        ...

    @property
    def state(self) -> BrokerState:
        """See the attributes of the class."""
        ...

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """Append a publication to a room's history, and pass it to the subscribers.

        The place among the publications of this process is taken when this is called. The
        subscriber in the same process has received it before the result is there. A repeat, which
        has a known key, takes no place.

        Args:
            room: The name of the room.
            draft: The publication.
            history: How much the room keeps.

        Returns:
            What the publisher awaits: the position. It need not be awaited. Unless the result
            is there already, it is an `asyncio.Future`.

        Raises:
            Reject: `conflict`: its key was used for another content. Nothing was published. An
                engine that knows it at once raises it in the call.
            QueueFullError: When awaited, as all others: nothing was published.
            BrokerUnavailableError: Nothing was published.
            OutcomeUnknownError: It may have been published, and the place in the order is
                then before that of all later publications of this process.
        """
        ...

    async def known(self, room: str, key: Key) -> Position | None:
        """Return the position of the publication with a key; `None`: none is known.

        It knows those whose results were there before this call.

        Args:
            room: The name of the room.
            key: The key.

        Raises:
            Reject: `conflict`: the publication with this key had another content.
        """
        ...

    async def subscribe(
        self, room: str, receive: Receive, interrupted: Callable[[Position], None] | None = None
    ) -> Position:
        """Receive all publications of a room after the position that this returns.

        If the broker is shared, publications may be missed, and received late or twice. The
        subscriber compares the positions, and reads the history.

        Args:
            room: The name of the room. A process subscribes to it once at a time.
            receive: Called with each publication, in the order of the positions. It
                must not raise.
            interrupted: Called when the engine has subscribed again after it had lost the
                broker, with the position of the last publication: what was published
                meanwhile is not received. It must not raise.

        Returns:
            The position of the last publication so far.
        """
        ...

    def unsubscribe(self, room: str) -> None:
        """End the subscription of this process; *receive* is not called any more."""
        ...

    def relay(self, topic: str, message: bytes) -> Awaitable[None]:
        """Pass a message to every other process that listens to a topic, at most once.

        All messages of this process on one topic arrive in the order of the calls.

        Args:
            topic: Any name. The names of topics and of rooms have nothing to do with each
                other.
            message: Any bytes.

        Returns:
            What the sender awaits: that the message was handed to the broker. It need not be
            awaited.
        """
        ...

    def deliver(self, topic: str, message: bytes, *, keeps: bool = False) -> Awaitable[int]:
        """Relay a message, and say how many other processes get it.

        Messages that are relayed and delivered on one topic arrive in the order of the
        calls. Unlike what is relayed, it waits while the broker cannot be reached.

        Args:
            topic: As in `relay`.
            message: Any bytes.
            keeps: Whether it is kept for processes whose connection to the broker is interrupted at
                this moment. They get it before everything else when they are back, once.

        Returns:
            What the sender awaits: how many other processes listen to the topic, so that the
            message was passed to them, or is kept for them. It need not be awaited. If the
            broker is shared, it is an `asyncio.Future`.
        """
        ...

    async def listeners(self, topic: str) -> int:
        """Return how many other processes listen to a topic, also those that are cut off for a moment."""
        ...

    async def listen(self, topic: str, heard: Heard, missed: Callable[[], object] | None = None) -> None:
        """Receive what other processes relay to a topic, from when this returns.

        Args:
            topic: The name. A process listens to a topic once at a time.
            heard: Called with each message. It must not raise.
            missed: Called when this process was cut off, and the broker does not know any more
                which messages it would have kept for it. It must not raise.
        """
        ...

    def unlisten(self, topic: str) -> None:
        """Stop to listen; *heard* is not called any more."""
        ...

    def close(self) -> None:
        """Free everything, because the app has stopped."""
        ...

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        """Read the history forwards.

        Args:
            room: The name of the room.
            position: Read what follows it; `None`: from the oldest that is kept.
            limit: The most records.
            max_bytes: The most bytes of their payloads and names. One record is read in
                any case.
        """
        ...

    async def before(self, room: str, position: Position | None, *, limit: int) -> Page:
        """Read the history backwards.

        Args:
            room: The name of the room.
            position: Read what precedes it; `None`: from the newest.
            limit: The most records.

        Returns:
            The records in the order of their positions. The page is complete, unless the
            position is not one of this history. Its end is the place before *position*, or
            *top*.
        """
        ...
