"""The broker that several nodes share: it serves an engine of this process over links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from symphony.broker.base import Broker, Key, Record
from symphony.broker.hubnodes import NODE_TIMEOUT, KnownNode, Orders, Published, error_message
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

__all__ = ("Hub",)

logger = logging.getLogger("symphony.app")

T = TypeVar("T")

# The most that may wait for a node that does not read. Above it, the link is closed. The node
# connects again, and reads what it has missed from the histories.
_MAX_UNSENT_BYTES: Final = 64 * 1024 * 1024

_PENDING: Final = b""


class _Port:
    """The broker's end of one link."""

    __slots__ = ("_hub", "closed", "link", "node", "rooms", "topics")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.link: Link | None = None
        self.node: KnownNode | None = None
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
            elif method == "bye":
                self._hub.ended(self)
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
        self._nodes: dict[str, KnownNode] = {}
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
            "listeners": self._listeners,
        }

        self._orders = Orders()
        self._when_ended: list[Callable[[str], object]] = []

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

    def when_ended(self, function: Callable[[str], object]) -> None:
        """Call a function with the name of each node that has ended: it does not come back."""
        self._when_ended.append(function)

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

    def welcome(self, port: _Port, name: str, process: int = 0, last: int = -1) -> None:
        """Begin with a node, or go on with it.

        Args:
            port: The end of its link.
            name: Its name.
            process: The id of its process.
            last: The number of the last message that it has of those that are kept; below 0:
                it has had no link before.
        """
        node = self._nodes.get(name)
        known = node is not None
        if node is None:
            node = self._nodes[name] = KnownNode(name, process)
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        earlier, node.port, port.node = node.port, port, node
        if isinstance(earlier, _Port) and earlier.link is not None:
            # The node has given it up.
            node.topics = set(earlier.topics)
            earlier.closed = True
            earlier.link.close()
        # It listens on, so that it hears what follows what it has missed.
        self._listen(port, *node.topics)
        missed = self._orders.after(last, name, node.topics) if known and last >= 0 else None
        port.send(encode((Said.WELCOME, self._life, known, missed is not None, self._orders.last)))
        for message in missed or ():
            port.send(message)

    def left(self, port: _Port) -> None:
        """Forget a link, and later its node."""
        if self._ports.pop(port, self) is self:
            return
        topics = set(port.topics)
        for room in tuple(port.rooms):
            self._unsubscribe(port, room)
        for topic in tuple(port.topics):
            self._unlisten(port, topic)
        node, port.link = port.node, None
        if node is not None and node.port is port:
            node.port, node.topics = None, topics
            if node.has_ended:
                self._end(node)
            else:
                node.timer = self._loop.call_later(NODE_TIMEOUT, self._forget, node)

    def ended(self, port: _Port) -> None:
        """Forget a node that has stopped, as it says."""
        if port.node is not None:
            port.node.has_ended = True
        link = port.link
        self.left(port)
        if link is not None:
            # Otherwise it stays open if the broker stops before the node has ended it.
            link.close()

    def process_ended(self, process: int) -> None:
        """Forget the nodes of a process that has ended, when everything that they have sent is read."""
        for node in tuple(self._nodes.values()):
            if node.process == process:
                node.has_ended = True
                if node.port is None:
                    self._end(node)

    def _end(self, node: KnownNode) -> None:
        self._forget(node)
        for function in self._when_ended:
            function(node.name)

    def _forget(self, node: KnownNode) -> None:
        if node.timer is not None:
            node.timer.cancel()
        if self._nodes.get(node.name) is node:
            del self._nodes[node.name]

    def called(
        self, port: _Port, node: KnownNode, number: int, floor: int, method: str, arguments: Sequence[Any]
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
                    self._publish(Published(node, number), *arguments)
                else:
                    count = self._deliver(port, node, *arguments)
                    node.answer(number, encode((Said.ANSWER, number, count)))
            elif earlier:
                port.send(earlier)
            return
        try:
            result = self._methods[method](port, *arguments)
        except Exception as error:
            if not number:
                raise
            node.answer(number, error_message(number, error))
            return
        if isinstance(result, asyncio.Future):
            # If the link ends before, the node calls again.
            cast("asyncio.Future[Any]", result).add_done_callback(
                lambda done: port.send(encode((Said.ANSWER, number, done.result())))
            )
        elif number:
            port.send(encode((Said.ANSWER, number, result)))

    def _publish(self, source: Published, room: str, *packed: Any) -> None:
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
        if isinstance(source, Published):
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
        return self._pass_on(port, topic, encode((Said.RELAYED, topic, message)))

    def _deliver(self, port: _Port, node: KnownNode, topic: str, message: bytes, keeps: bool) -> int:
        if not keeps:
            return self._relay(port, topic, message)
        relayed = self._orders.add(topic, message, node.name, self._loop.time())
        return self._pass_on(port, topic, relayed) + self._cut(node, topic)

    def _pass_on(self, port: _Port, topic: str, relayed: bytes) -> int:
        others = [other for other in self._topics.get(topic, ()) if other is not port]
        for other in others:
            other.send(relayed)
        return len(others)

    def _cut(self, node: KnownNode, topic: str) -> int:
        """Return how many other nodes listen to a topic, and have no link at this moment."""
        nodes = self._nodes.values()
        return sum(topic in each.topics and each.is_cut() for each in nodes if each is not node)

    def _listeners(self, port: _Port, topic: str) -> int:
        assert port.node is not None
        others = [other for other in self._topics.get(topic, ()) if other is not port]
        return len(others) + self._cut(port.node, topic)


def _at_once(work: Coroutine[Any, Any, T] | Generator[Any, Any, T]) -> T:
    """Return the result of what does not wait."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise TypeError("An engine that is shared over links must answer its reads at once.")
