"""What runs for the messages of a raw route, compiled from its handler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from symphony.errors import Reject
from symphony.limits import Limits
from symphony.node.plans import RoutePlans
from symphony.protocol.annotations import bare
from symphony.protocol.bounds import SMALL, bounded
from symphony.protocol.reading import Reader
from symphony.protocol.unencodable import UnencodableError
from symphony.routing.handlers import Handler
from symphony.routing.plan import MESSAGE
from symphony.socket import Socket
from symphony.websocket.backpressure import TURN

__all__ = ("message_handler", "takes_no_messages")

_ITEMS_A_TURN: Final = 64


def message_handler(
    plans: RoutePlans, handler: Handler | None, limits: Limits
) -> tuple[Callable[[Socket[Any], Any], Any], bool, bool]:
    """Return how to handle a message, whether that is async, and whether it takes binary ones only."""
    if handler is None:
        return takes_no_messages, False, False
    plan = plans.plan(handler, f"on_message of {plans.where}", payload=MESSAGE)
    call, read, plain = plan.call, plan.reader, bare(plan.payload)
    if read is None:
        return partial(_stream, call, None) if plan.is_generator else call, plan.is_async, False
    decodes = plain not in (str, bytes)
    read_large = bounded(read, limits.max_elements, is_json=True) if decodes else read
    if plan.is_generator:
        return partial(_stream, call, read_large), True, plain is bytes
    harmless = min(SMALL, limits.max_elements)

    def receive(socket: Socket[Any], message: Any) -> Any:
        return call(socket, read(message))

    def receive_bounded(socket: Socket[Any], message: Any) -> Any:
        return call(socket, read(message) if len(message) <= harmless else read_large(message))

    return receive_bounded if decodes else receive, plan.is_async, plain is bytes


def takes_no_messages(socket: Socket[Any], message: Any) -> None:
    """Refuse a message, on a route without a handler."""
    raise Reject("invalid", "this route takes no messages")


async def _stream(
    call: Callable[[Any, Any], Any], read: Reader | None, socket: Socket[Any], message: Any
) -> None:
    items = call(socket, message if read is None else read(message))
    count = 0
    async with aclosing(items):
        async for item in items:
            try:
                sent = socket.send(item)
            except UnencodableError as error:
                error.given = "yielded"
                raise
            await sent
            if not socket.connected:
                # No client receives the rest: let the generator close what it holds.
                return
            count += 1
            if not count % _ITEMS_A_TURN:
                # If the items are small and the generator never waits, only this does.
                await TURN
