"""The simulated network between the nodes of a cluster and their broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from symphony.broker.links import Link, LinkEnd, Said, decode
from symphony.testing.simulation import Host
from symphony.websocket.backpressure import READY

__all__ = ("CALM", "Disturbances", "Network", "Pipe")

_PUSHED: Final = (Said.PUBLISHED, Said.RELAYED)


@dataclass(frozen=True, slots=True)
class Disturbances:
    """How likely it is that something happens to one message, each from 0 to 1.

    Attributes:
        lost: A publication, or what nodes tell each other, does not arrive from the broker.
        repeated: It arrives twice.
        late: It arrives up to 2 s later, after others.
        slow: It arrives up to 1.5 s later, and so does all that is sent after it, in either direction.
        unanswered: The answer of the broker to a call is lost. The call was carried out.
        again: The presence store carries out a call once more, up to 8 s later.
    """

    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    unanswered: float = 0.0
    again: float = 0.0


CALM: Final = Disturbances()


class Pipe:
    """Carries values in one direction, in order, and each after a delay.

    Args:
        loop: The event loop.
        arrive: Called with each value.
        random: Decides about the delays.
        context: That of the receiver.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arrive: Callable[[Any], object],
        random: Random,
        context: Context,
    ) -> None:
        self._loop = loop
        self._arrive = arrive
        self._random = random
        self._context = context
        self._under_way: deque[tuple[float, Any]] = deque()
        self._last = 0.0

    def send(self, value: Any, delay: float = 0.0) -> None:
        """Send a value. It does not overtake the values before it."""
        at = self._loop.time() + delay + self._random.uniform(0.0001, 0.003)
        self._last = at = max(at, self._last)
        self._under_way.append((at, value))
        if len(self._under_way) == 1:
            self._loop.call_at(at, self._deliver, context=self._context)

    def _deliver(self) -> None:
        under_way = self._under_way
        while under_way and under_way[0][0] <= self._loop.time():
            self._arrive(under_way.popleft()[1])
        if under_way:
            self._loop.call_at(under_way[0][0], self._deliver, context=self._context)


class _HalfLink:
    """One end of a link."""

    def __init__(self, network: Network, sender: Host, receiver: Host) -> None:
        self._network = network
        self.other: _HalfLink | None = None
        self.end: LinkEnd | None = None
        self.host = sender
        self._closed = False
        self._receiver = receiver
        self._pipe = Pipe(network.loop, self._arrive, network.random, receiver.context)

    @property
    def size(self) -> int:
        return 0

    def send(self, message: bytes) -> None:
        if self._closed:
            return
        for delay, in_order in self._network.fate(self, message):
            if in_order:
                self._pipe.send(message, delay)
            else:
                self._network.loop.call_later(delay, self._arrive, message, context=self._receiver.context)

    def drained(self) -> Awaitable[None]:
        return READY

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        for half in (self, self.other):
            if half is not None and not half._closed:
                half._closed = True
                half._network.loop.call_soon(half._lost, context=half.host.context)

    def _lost(self) -> None:
        end, self.end = self.end, None
        if end is not None:
            end.lost()

    def _arrive(self, message: bytes) -> None:
        other = self.other
        if not self._closed and other is not None and other.end is not None:
            other.end.received(message)


class Network:
    """Connects the nodes of a cluster with their broker.

    Args:
        loop: The event loop.
        random: Decides what happens to messages.
        broker: Returns the process of the broker.
        attach: Begins a link at the broker.

    Attributes:
        disturbances: How likely it is that something happens to a message.
        cut_off: The processes that can make no link.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        random: Random,
        broker: Callable[[], Host],
        attach: Callable[[Link], LinkEnd],
    ) -> None:
        self.loop = loop
        self.random = random
        self.disturbances = CALM
        self.cut_off: dict[Host, None] = {}
        self._broker = broker
        self._attach = attach
        self._links: dict[Host, _HalfLink] = {}

    def dial_of(self, host: Host) -> Callable[[LinkEnd], Awaitable[Link]]:
        """Return what connects a node to the broker."""

        async def dial(end: LinkEnd) -> Link:
            await asyncio.sleep(self.random.uniform(0.0001, 0.003))
            broker = self._broker()
            if host in self.cut_off or broker in self.cut_off:
                raise ConnectionRefusedError
            up, down = _HalfLink(self, host, broker), _HalfLink(self, broker, host)
            up.other, down.other = down, up
            up.end = end
            down.end = broker.context.run(self._attach, down)
            self._links[host] = up
            return up

        return dial

    def cut(self, host: Host) -> None:
        """End the link of a node."""
        if (link := self._links.pop(host, None)) is not None:
            link.close()

    def cut_all(self) -> None:
        """End the links of all nodes, because their broker has ended."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    def fate(self, half: _HalfLink, message: bytes) -> list[tuple[float, bool]]:
        """Return after which delays a message arrives, and whether in order."""
        now, random = self.disturbances, self.random
        if now is CALM:
            return [(0.0, True)]
        takes = random.uniform(0.0, 1.5) if now.slow and random.random() < now.slow else 0.0
        if half.host is not self._broker():
            # What a node says arrives in order, or its link ends.
            return [(takes, True)]
        kind = decode(message)[0]
        if kind in _PUSHED:
            if random.random() < now.lost:
                return []
            if random.random() < now.repeated:
                return [(takes, True), (random.uniform(0.0, 2.0), False)]
            if random.random() < now.late:
                return [(random.uniform(0.0, 2.0), False)]
        elif random.random() < now.unanswered:
            return []
        return [(takes, True)]
