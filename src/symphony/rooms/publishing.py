"""Publications to rooms that clients are told about: with the room's name, and kept if it has a history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from symphony.broker.base import Draft, Key
from symphony.errors import Reject
from symphony.outgoing.announced import Announced
from symphony.outgoing.encoding import Content, Once
from symphony.outgoing.terms import Terms
from symphony.protocol.envelopes import MESSAGE
from symphony.rooms.excluding import names_of
from symphony.rooms.options import PLAIN, check
from symphony.rooms.outcomes import Outcome, heard
from symphony.rooms.topics import topic_of
from symphony.websocket.backpressure import READY

if TYPE_CHECKING:
    from symphony.broker.base import Broker, History, Record
    from symphony.outgoing.batch import Batch, Batches, Recipient
    from symphony.outgoing.encoding import Emitted, Sent
    from symphony.protocol.positions import Position
    from symphony.rooms.family import Family
    from symphony.rooms.live import Live
    from symphony.rooms.options import Delivery
    from symphony.rooms.relaying import Relaying

__all__ = ("Publication", "Publishing", "digest_of", "terms_of")

# The publisher of all code of the app: a repeat may come from another node of it.
_APP: Final = "app"


class Publication(NamedTuple):
    """A publication in the history of a room.

    Attributes:
        event: The name of the event; `"message"` for what was sent without a name.
        data: Its data, as plain Python values.
        position: Where it stands; `None` if it is not kept, which only `Room.listen` gives.
        replaces: The position of the publication that it replaces, the first of a chain;
            `None`: it replaces none.
    """

    event: str
    data: Any
    position: Position | None
    replaces: Position | None = None


class Publishing:
    """Publishes to the rooms of a node that are announced.

    Args:
        broker: Keeps the histories; `None`: no family has one.
        batches: The batches of the node.
        family_of: Returns the family of a room.
        report: Called with the error of a publication that is not awaited.
        relaying: Passes on what is not kept; `None`: there are no other nodes.
        timeout: How long a publisher waits for the members of this node, if the history
            cannot be read.
    """

    def __init__(
        self,
        broker: Broker | None,
        batches: Batches,
        family_of: Callable[[str], Family],
        report: Callable[[BaseException, Any, str], None],
        *,
        relaying: Relaying | None = None,
        timeout: float,
    ) -> None:
        self._broker = broker
        self._relaying = relaying
        self._timeout = timeout
        self._batches = batches
        self._family_of = family_of
        self._report = report
        # At most `Limits.max_broker_calls`.
        self._unanswered: set[asyncio.Future[Position]] = set()
        # The last of these with each key: by room, publisher and key.
        self._keyed: dict[tuple[str, str, str], asyncio.Future[Position]] = {}

    def publish(
        self,
        name: str,
        live: Live | None,
        message: Sent | Emitted | Content | Once,
        exclude: Sequence[Recipient],
        delivery: Delivery,
    ) -> Awaitable[Position | None]:
        """Publish to a room, which may have no members.

        Raises:
            ValueError: The options do not go together.
        """
        family = self._family_of(name) if live is None else live.family
        history, broker = family.policy.history, self._broker
        # An empty list may name sockets of other nodes.
        if delivery is PLAIN and exclude == () and history is not None and broker is not None:
            content = Content.of(message)
            return self._keep(name, live, Draft(content.event, content.packed, content), history)
        check(delivery, room=name, history=history is not None, excludes=bool(exclude or names_of(exclude)))
        if history is None or broker is None or not delivery.is_kept:
            here = self.hand(live, message, delivery, exclude)
            if self._relaying is None:
                return here
            return self._relaying.publish(topic_of(name), message, delivery, here, exclude)
        content = Content.of(message)
        key = delivery.key
        key = None if key is None else Key(_APP, key, digest_of(content, delivery.replaces))
        draft = Draft(content.event, content.packed, content, key, delivery.replaces)
        return self._keep(name, live, draft, history)

    def publish_for(
        self, live: Live, message: Emitted | Content, delivery: Delivery, *, by: str, said: object
    ) -> Awaitable[Position | None]:
        """Publish for a client, to a room that exists.

        Args:
            live: The room.
            message: What is published.
            delivery: Its options.
            by: Whose key it is.
            said: What the client has sent: a repeat must be the same.
        """
        history = live.family.policy.history
        if history is None or delivery.key is None:
            return self.publish(live.name, live, message, (), delivery)
        content = Content.of(message)
        assert content.event is not None
        key = _key_of(by, delivery.key, content.event, said)
        return self._keep(live.name, live, Draft(content.event, content.packed, content, key), history)

    async def first(self, name: str, event: str, key: str, *, by: str, said: object) -> Position | None:
        """Return where a publication of a client is that it repeats with its key; `None`: nowhere.

        Args:
            name: The name of the room.
            event: The name of the event.
            key: The key.
            by: As in `publish_for`.
            said: As in `publish_for`.
        """
        if self._broker is None or self._family_of(name).policy.history is None:
            return None
        # It has an answer later than those before it with the same key.
        unanswered = self._keyed.get((name, by, key))
        if unanswered is not None:
            await asyncio.wait((unanswered,))
        return await self._broker.known(name, _key_of(by, key, event, said))

    def _keep(self, name: str, live: Live | None, draft: Draft, history: History) -> Awaitable[Position]:
        assert self._broker is not None
        kept = self._broker.publish(name, draft, history)
        if not isinstance(kept, asyncio.Future):
            paced = self._batches.paced()
            return kept if paced is READY else _Kept(kept, paced)
        self._unanswered.add(kept)
        kept.add_done_callback(self._unanswered.discard)
        if draft.key is not None:
            keyed = name, draft.key.publisher, draft.key.key
            self._keyed[keyed] = kept
            kept.add_done_callback(partial(self._answered, keyed))
        return Outcome(kept, partial(self._failed, name), partial(self._settled, live))

    def _answered(self, keyed: tuple[str, str, str], kept: asyncio.Future[Position]) -> None:
        if self._keyed.get(keyed) is kept:
            del self._keyed[keyed]

    async def finish(self, *, timeout: float) -> None:
        """Wait until the broker has answered all publications, because the app stops.

        Args:
            timeout: How long. What is then not answered fails.
        """
        if self._unanswered:
            await asyncio.wait(self._unanswered, timeout=timeout)

    async def _settled(self, live: Live | None, position: Position) -> None:
        if live is not None and live.feed is not None:
            await heard(live.feed, self._timeout, position)
        await self._batches.paced()

    def _failed(self, name: str, error: BaseException) -> None:
        self._report(error, None, f"publication to room {name!r}")

    def hand(
        self,
        live: Live | None,
        message: Sent | Emitted | Content | Once,
        delivery: Delivery,
        exclude: Sequence[Recipient] = (),
    ) -> Awaitable[None]:
        """Hand a publication that is not kept to the members on this node."""
        if live is None:
            return self._batches.paced()
        shown = message
        if live.announced:
            shown = Announced(Content.of(message) if isinstance(message, Once) else message, live.name)
        return self._batches.publish(live, shown, exclude, terms_of(live, delivery))

    async def newest(
        self, name: str, limit: int, before: Position | None, max_bytes: int
    ) -> tuple[list[Publication], int]:
        """Return the last publications, and how many there would be without the limit in bytes."""
        records = await self._records(name, limit, before)
        size, first = 0, len(records)
        while first > 0:
            size += records[first - 1].size
            if size > max_bytes and first < len(records):
                break
            first -= 1
        return [_publication(record) for record in records[first:]], len(records)

    async def history(self, name: str, limit: int, before: Position | None) -> list[Publication]:
        """Return the last publications that a room keeps, the oldest first."""
        return [_publication(record) for record in await self._records(name, limit, before)]

    async def _records(self, name: str, limit: int, before: Position | None) -> Sequence[Record]:
        if self._broker is None or self._family_of(name).policy.history is None:
            raise ValueError(
                f"The room {name!r} has no history. Give its family one: app.rooms(…, history=100)."
            )
        page = await self._broker.before(name, before, limit=limit)
        if not page.complete:
            raise Reject("invalid", f"the history of {name!r} does not have this position")
        await self._batches.paced()
        return page.records


def _publication(record: Record) -> Publication:
    data = msgspec.msgpack.decode(record.payload)
    return Publication(record.event or MESSAGE, data, record.position, record.replaces)


def _key_of(by: str, key: str, event: str, said: object) -> Key:
    """Return the key of a client's publication: a repeat must say the same."""
    raw = bytes(said) if isinstance(said, Raw) else msgspec.msgpack.encode(said)
    return Key(by, key, digest_of(Content(event, raw), None))


def digest_of(content: Content, replaces: Position | None) -> bytes:
    """Return what tells a publication from another one with the same key."""
    digest = blake2b(content.packed, digest_size=16)
    for part in (content.event, replaces and replaces.epoch, replaces and str(replaces.offset)):
        digest.update(b"\0" if part is None else b"\1" + part.encode() + b"\0")
    return digest.digest()


def terms_of(batch: Batch, delivery: Delivery) -> Terms | None:
    """Return what the options of a publication ask for at members that are slow."""
    if not delivery.volatile and delivery.conflate is None and batch.slow is None:
        return None
    return Terms(batch, volatile=delivery.volatile, conflate=delivery.conflate)


class _Kept:
    """The result of a publication that is kept: its position."""

    __slots__ = ("_kept", "_paced")

    def __init__(self, kept: Awaitable[Position], paced: Awaitable[None]) -> None:
        self._kept = kept
        self._paced = paced

    def __await__(self) -> Generator[Any, Any, Position]:
        position = yield from self._kept.__await__()
        yield from self._paced.__await__()
        return position
