"""What a hub knows of its nodes: the answers and messages that they may not have yet."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from symphony.broker.links import Said, encode, pack_position
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError, QueueFullError, Reject

if TYPE_CHECKING:
    from symphony.protocol.positions import Position

__all__ = ("NODE_TIMEOUT", "Answered", "KnownNode", "Order", "Orders", "Published", "error_message")

logger = logging.getLogger("symphony.app")

# How many messages are kept for nodes whose link has ended. See docs/limits.md.
_MAX_ORDERS: Final = 10_000

NODE_TIMEOUT: Final = 60.0
"""For how many seconds a node without a link is known, and what it may not have is kept."""


class Answered(Protocol):
    """What can be told an answer: the end of a link."""

    def send(self, message: bytes) -> None:
        """Send a message."""
        ...


class KnownNode:
    """What is known of a node, whatever its link.

    Attributes:
        name: Its name.
        process: The id of its process.
        port: The end of its link, if it has one.
        topics: What it had listened to when its link ended.
        answers: The answers that it may not have yet, of calls that must not run twice.
        timer: Forgets it.
        has_ended: Whether its process has ended, so that it is forgotten with its link.
    """

    __slots__ = ("answers", "has_ended", "name", "port", "process", "timer", "topics")

    def __init__(self, name: str, process: int) -> None:
        self.name = name
        self.process = process
        self.port: Answered | None = None
        self.topics: set[str] = set()
        self.answers: dict[int, bytes] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.has_ended = False

    def answer(self, number: int, message: bytes) -> None:
        """Answer a call, on the link that it has now."""
        if number in self.answers:
            self.answers[number] = message
        if self.port is not None:
            self.port.send(message)

    def is_cut(self) -> bool:
        """Return whether it has no link, and may come back."""
        return self.port is None and not _is_gone(self.process)


class Published:
    """The source of a publication: the call that has published it."""

    __slots__ = ("answered", "node", "number")

    def __init__(self, node: KnownNode, number: int) -> None:
        self.node = node
        self.number = number
        self.answered = False

    def answer(self, position: Position, replaces: Position | None, *, is_new: bool) -> None:
        """Answer with the position, unless that was done before."""
        if not self.answered:
            self.answered = True
            result = position.epoch, position.offset, pack_position(replaces), is_new
            self.node.answer(self.number, encode((Said.ANSWER, self.number, result)))

    def done(self, result: asyncio.Future[Position]) -> None:
        """Answer with the result of a publication that no subscriber here has received."""
        if result.cancelled():
            self.fail(OutcomeUnknownError("The broker stops."))
        elif (error := result.exception()) is not None:
            self.fail(error)
        else:
            self.answer(result.result(), None, is_new=False)

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        if not self.answered:
            self.answered = True
            self.node.answer(self.number, error_message(self.number, error))


class Order(NamedTuple):
    """A message that each node gets, also one whose link is interrupted.

    Attributes:
        number: Its number. Those of later ones are higher.
        topic: The topic of the message.
        at: When it was sent.
        message: The message, as it is sent to nodes.
        sender: The name of its node, which does not get it.
    """

    number: int
    topic: str
    at: float
    message: bytes
    sender: str


class Orders:
    """The messages that nodes without a link get when they come back.

    Attributes:
        last: The number of the last one.
    """

    def __init__(self) -> None:
        self.last = 0
        self._orders: deque[Order] = deque()

    def add(self, topic: str, message: bytes, sender: str, now: float) -> bytes:
        """Keep a message for `NODE_TIMEOUT` seconds; return it as it is sent."""
        orders = self._orders
        while orders and (orders[0].at <= now - NODE_TIMEOUT or len(orders) >= _MAX_ORDERS):
            orders.popleft()
        self.last += 1
        relayed = encode((Said.RELAYED, topic, message, self.last))
        orders.append(Order(self.last, topic, now, relayed, sender))
        return relayed

    def after(self, number: int, name: str, topics: set[str]) -> list[bytes] | None:
        """Return what a node has missed; `None`: that is not known any more.

        Args:
            number: The number of the last message that it has.
            name: The name of the node.
            topics: What it listens to.
        """
        orders = self._orders
        if number < self.last and (not orders or orders[0].number > number + 1):
            return None
        return [
            order.message
            for order in orders
            if order.number > number and order.topic in topics and order.sender != name
        ]


def error_message(number: int, error: BaseException) -> bytes:
    """Return the answer to a call that has failed."""
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


def _is_gone(process: int) -> bool:
    """Return whether it is known that there is no such process."""
    if sys.platform == "win32" or not process:
        # `os.kill` would do something else there.
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
