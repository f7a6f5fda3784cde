"""A network between nodes and a hub in one event loop, with faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from symphony.broker.hub import Hub
from symphony.broker.links import Link, LinkEnd, decode
from symphony.broker.remote import RemoteBroker
from symphony.websocket.backpressure import READY

# What becomes of a message, given its direction and its content: after how many seconds it arrives, each
# time that it does.
Fate = Callable[[str, Sequence[Any]], Sequence[float]]


def delivered(direction: str, message: Sequence[Any]) -> Sequence[float]:
    return (0.0,)


class _HalfLink:
    def __init__(self, network: Network, direction: str) -> None:
        self._network = network
        self._direction = direction
        self.other: _HalfLink | None = None
        self.end: LinkEnd | None = None
        self.closed = False
        self.unsent = 0

    @property
    def size(self) -> int:
        return self.unsent

    def send(self, message: bytes) -> None:
        network = self._network
        network.sent.append((self._direction, decode(message)))
        if network.stalled:
            self.unsent += len(message)
            return
        for delay in network.fate(self._direction, decode(message)):
            if delay:
                network.loop.call_later(delay, self._arrive, message)
            else:
                network.loop.call_soon(self._arrive, message)

    def drained(self) -> Awaitable[None]:
        return READY

    def finish(self) -> None:
        # After what was sent.
        self._network.loop.call_soon(self.close)

    def close(self) -> None:
        other = self.other
        for half in (self, other):
            if half is not None and not half.closed:
                half.closed = True
                self._network.loop.call_soon(half.lost)

    def lost(self) -> None:
        end, self.end = self.end, None
        if end is not None:
            end.lost()

    def _arrive(self, message: bytes) -> None:
        other = self.other
        if not self.closed and other is not None and other.end is not None:
            other.end.received(message)


class Network:
    """Connects nodes with a hub.

    Attributes:
        fate: Decides what becomes of each message.
        refuses: Whether no new link can be made.
        stalled: Whether all that is sent waits, unread.
        sent: All messages: `("up", …)` those of nodes, and `("down", …)` those of the hub.
    """

    def __init__(self, hub: Hub, fate: Fate = delivered) -> None:
        self.hub = hub
        self.fate = fate
        self.refuses = False
        self.stalled = False
        self.sent: list[tuple[str, Sequence[Any]]] = []
        self.loop = asyncio.get_running_loop()
        self._links: list[_HalfLink] = []

    async def dial(self, end: LinkEnd) -> Link:
        if self.refuses:
            raise ConnectionRefusedError
        up, down = _HalfLink(self, "up"), _HalfLink(self, "down")
        up.other, down.other = down, up
        up.end, down.end = end, self.hub.attach(down)
        self._links.append(up)
        return up

    def cut(self) -> None:
        """End all links."""
        links, self._links = self._links, []
        for link in links:
            link.close()

    def methods(self) -> list[str]:
        """Return the names of the calls that nodes have sent."""
        return [message[2] for direction, message in self.sent if direction == "up"]

    async def node(self, **options: Any) -> RemoteBroker:
        """Return the broker of one more node, which is connected."""
        given = {"timeout": 5.0, "max_calls": 10_000, "max_bytes": 1_000_000, "random": lambda: 0.5}
        broker = RemoteBroker(self.dial, **{**given, **options})
        await broker.connect()
        return broker
