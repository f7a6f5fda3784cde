"""The broker that several nodes share: it serves an engine of this process over links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from symphony.broker.base import Broker, Key, Record
from symphony.broker.links import (
    Link,
    LinkEnd,
    Said,
    decode,
    encode,
    pack_page,
    pack_position,
    pack_record,
    unpack_draft,
    unpack_history,
    unpack_position,
)
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError, QueueFullError, Reject
from symphony.protocol.positions import Position

__all__ = ("Hub",)

logger = logging.getLogger("symphony.app")

T = TypeVar("T")

# The most that may wait for a node that does not read. Above it, the link is closed. The node
# connects again, and reads what it has missed from the histories.
_MAX_UNSENT_BYTES: Final = 64 * 1024 * 1024

# For how long the answers of a node without a link are kept.
_NODE_TIMEOUT: Final = 60.0

_PENDING: Final = b""


class _Node:
    """What is known of a node, whatever its link.

    Attributes:
        name: Its name.
        port: The end of its link, if it has one.
        answers: The answers that it may not have yet, of calls that must not run twice.
        timer: Forgets it.
    """

    __slots__ = ("answers", "name", "port", "timer")

    def __init__(self, name: str) -> None:
        self.name = name
        self.port: _Port | None = None
        self.answers: dict[int, bytes] = {}
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, number: int, message: bytes) -> None:
        """Answer a call, on the link that it has now."""
        if number in self.answers:
            self.answers[number] = message
        if self.port is not None:
            self.port.send(message)


class _Published:
    """The source of a publication: the call that has published it."""

    __slots__ = ("answered", "node", "number")

    def __init__(self, node: _Node, number: int) -> None:
        self.node = node
        self.number = number
        self.answered = False

    def answer(self, position: Position, replaces: Position | None, *, is_new: bool) -> None:
        if not self.answered:
            self.answered = True
            result = position.epoch, position.offset, pack_position(replaces), is_new
            self.node.answer(self.number, encode((Said.ANSWER, self.number, result)))

    def done(self, result: asyncio.Future[Position]) -> None:
        """Answer with the result of a publication that nobody here has received."""
        if result.cancelled():
            self.fail(OutcomeUnknownError("The broker stops."))
        elif (error := result.exception()) is not None:
            self.fail(error)
        else:
            self.answer(result.result(), None, is_new=False)

    def fail(self, error: BaseException) -> None:
        if not self.answered:
            self.answered = True
            self.node.answer(self.number, _error(self.number, error))


class _Port:
    """The broker's end of one link."""

    __slots__ = ("_hub", "closed", "link", "node", "rooms", "topics")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.link: Link | None = None
        self.node: _Node | None = None
        self.rooms: set[str] = set()
        self.topics: set[str] = set()
        self.closed = False

    def send(self, message: bytes) -> None:
        link = self.link
        if link is None or self.closed:
            return
        link.send(message)
        if link.size > _MAX_UNSENT_BYTES:
            self.closed = True
            logger.warning(
                "A node reads too slowly from the broker: %d bytes wait for it. It has to connect again.",
                link.size,
            )
            link.close()

    def received(self, message: bytes) -> None:
        if self.closed:
            return
        try:
            number, floor, method, *arguments = decode(message)
            if method == "hello":
                self._hub.welcome(self, *arguments)
            elif self.node is None:
                raise ValueError("the first message of a node must be its hello")
            else:
                self._hub.called(self, self.node, number, floor, method, arguments)
        except Exception as error:
            logger.error("A node sent to the broker what it cannot read: %r", error)
            if self.link is not None:
                self.link.close()

    def lost(self) -> None:
        self.closed = True
        self._hub.left(self)


class Hub:
    """Serves the rooms of one engine to several nodes.

    Each call of a node has a number. A node that has lost its link repeats its calls with
    their numbers, and gets the answers of those that were carried out.

    Args:
        broker: The engine. Its reads must not wait.
        life: A random text that names this hub: another one does not know its nodes.
    """

    def __init__(self, broker: Broker, *, life: str) -> None:
        self._broker = broker
        self._life = life
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[str, _Node] = {}
        self._ports: dict[_Port, None] = {}
        self._rooms: dict[str, dict[_Port, None]] = {}
        self._topics: dict[str, dict[_Port, None]] = {}
        self._methods: dict[str, Callable[..., Any]] = {
            "after": self._after,
            "before": self._before,
            "known": self._known,
            "subscribe": self._subscribe,
            "resubscribe": self._resubscribe,
            "unsubscribe": self._unsubscribe,
            "listen": self._listen,
            "unlisten": self._unlisten,
            "relay": self._relay,
        }

    def attach(self, link: Link) -> LinkEnd:
        """Begin to serve a node; return what takes the messages of its link."""
        port = _Port(self)
        port.link = link
        self._ports[port] = None
        return port

    def offer(self, method: str, function: Callable[..., Any]) -> None:
        """Let nodes call a method of another store. It may run twice for one call.

        Args:
            method: Its name.
            function: Returns the answer, or a future of it.
        """

        def called(port: _Port, *arguments: Any) -> Any:
            return function(*arguments)

        self._methods[method] = called

    def say(self, topic: str, value: Any) -> None:
        """Pass what another store says to all nodes that listen to a topic, in MessagePack."""
        ports = self._topics.get(topic)
        if ports:
            message = encode((Said.RELAYED, topic, encode(value)))
            for port in tuple(ports):
                port.send(message)

    def close(self) -> None:
        """End all links."""
        for node in self._nodes.values():
            if node.timer is not None:
                node.timer.cancel()
        for port in tuple(self._ports):
            if port.link is not None:
                port.link.close()

    def welcome(self, port: _Port, name: str) -> None:
        """Begin with a node, or go on with it."""
        node = self._nodes.get(name)
        known = node is not None
        if node is None:
            node = self._nodes[name] = _Node(name)
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        earlier, node.port, port.node = node.port, port, node
        if earlier is not None and earlier.link is not None:
            # The node has given it up.
            earlier.closed = True
            earlier.link.close()
        port.send(encode((Said.WELCOME, self._life, known)))

    def left(self, port: _Port) -> None:
        """Forget a link, and later its node."""
        if self._ports.pop(port, self) is self:
            return
        for room in tuple(port.rooms):
            self._unsubscribe(port, room)
        for topic in tuple(port.topics):
            self._unlisten(port, topic)
        node, port.link = port.node, None
        if node is not None and node.port is port:
            node.port = None
            node.timer = self._loop.call_later(_NODE_TIMEOUT, self._forget, node)

    def _forget(self, node: _Node) -> None:
        self._nodes.pop(node.name, None)

    def called(
        self, port: _Port, node: _Node, number: int, floor: int, method: str, arguments: Sequence[Any]
    ) -> None:
        """Carry out a call, unless it was carried out before."""
        answers = node.answers
        while answers and (oldest := next(iter(answers))) < floor:
            del answers[oldest]
        if method in ("publish", "deliver"):
            earlier = answers.get(number)
            if earlier is None:
                answers[number] = _PENDING
                if method == "publish":
                    self._publish(_Published(node, number), *arguments)
                else:
                    count = self._relay(port, *arguments)
                    node.answer(number, encode((Said.ANSWER, number, count)))
            elif earlier:
                port.send(earlier)
            return
        try:
            result = self._methods[method](port, *arguments)
        except Exception as error:
            if not number:
                raise
            node.answer(number, _error(number, error))
            return
        if isinstance(result, asyncio.Future):
            # If the link ends before, the node calls again.
            cast("asyncio.Future[Any]", result).add_done_callback(
                lambda done: port.send(encode((Said.ANSWER, number, done.result())))
            )
        elif number:
            port.send(encode((Said.ANSWER, number, result)))

    def _publish(self, source: _Published, room: str, *packed: Any) -> None:
        try:
            draft, history = unpack_draft(packed[:4], source), unpack_history(packed[4:])
            result = self._broker.publish(room, draft, history)
            if isinstance(result, asyncio.Future):
                result.add_done_callback(source.done)
            else:
                source.answer(_at_once(result.__await__()), None, is_new=False)
        except Exception as error:
            source.fail(error)

    def _published(self, room: str, record: Record) -> None:
        """Pass a publication to all nodes that subscribe to its room."""
        source = record.source
        publisher = None
        if isinstance(source, _Published):
            # In the order of all that is said: its node takes the publication from this.
            publisher = source.node.port
            source.answer(record.position, record.replaces, is_new=True)
        ports = [port for port in self._rooms.get(room, ()) if port is not publisher]
        if ports:
            message = encode((Said.PUBLISHED, room, *pack_record(record)))
            for port in ports:
                port.send(message)

    def _subscribe(self, port: _Port, room: str) -> tuple[str, int]:
        ports = self._rooms.get(room)
        if ports is None:
            ports = self._rooms[room] = {}
        ports[port] = None
        port.rooms.add(room)
        top = _at_once(self._broker.subscribe(room, partial(self._published, room)))
        return top.epoch, top.offset

    def _resubscribe(self, port: _Port, *rooms: str) -> list[tuple[str, int]]:
        return [self._subscribe(port, room) for room in rooms]

    def _unsubscribe(self, port: _Port, room: str) -> None:
        port.rooms.discard(room)
        ports = self._rooms.get(room)
        if ports is not None and ports.pop(port, self) is None and not ports:
            del self._rooms[room]
            self._broker.unsubscribe(room)

    def _after(self, port: _Port, room: str, position: Any, limit: int, max_bytes: int) -> Any:
        after = unpack_position(position)
        return pack_page(_at_once(self._broker.after(room, after, limit=limit, max_bytes=max_bytes)))

    def _before(self, port: _Port, room: str, position: Any, limit: int) -> Any:
        return pack_page(_at_once(self._broker.before(room, unpack_position(position), limit=limit)))

    def _known(self, port: _Port, room: str, *key: Any) -> Any:
        return pack_position(_at_once(self._broker.known(room, Key(*key))))

    def _listen(self, port: _Port, *topics: str) -> None:
        for topic in topics:
            self._topics.setdefault(topic, {})[port] = None
            port.topics.add(topic)

    def _unlisten(self, port: _Port, topic: str) -> None:
        port.topics.discard(topic)
        ports = self._topics.get(topic)
        if ports is not None:
            ports.pop(port, None)
            if not ports:
                del self._topics[topic]

    def _relay(self, port: _Port, topic: str, message: bytes) -> int:
        others = [other for other in self._topics.get(topic, ()) if other is not port]
        if others:
            relayed = encode((Said.RELAYED, topic, message))
            for other in others:
                other.send(relayed)
        return len(others)


def _at_once(work: Coroutine[Any, Any, T] | Generator[Any, Any, T]) -> T:
    """Return the result of what does not wait."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise TypeError("An engine that is shared over links must answer its reads at once.")


def _error(number: int, error: BaseException) -> bytes:
    if isinstance(error, QueueFullError):
        kind, text = "full", str(error)
    elif isinstance(error, BrokerUnavailableError):
        kind, text = "unavailable", str(error)
    elif isinstance(error, Reject):
        kind, text = "reject", str(error)
    else:
        logger.error("The broker failed at a call.", exc_info=error)
        kind, text = "unknown", f"The broker failed: {type(error).__name__}"
    return encode((Said.ERROR, number, kind, text))
