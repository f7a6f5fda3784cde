"""What a route compiles to: everything that runs one of its sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from symphony.socket import Socket
from symphony.transport.base import Close, Profile

__all__ = ("Endpoint",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route, compiled at start; shared by all of its sockets.

    Attributes:
        pattern: The route's path pattern, for logs.
        profile: What the route asks of the transport.
        subprotocols: What it speaks, in the order of its preference.
        origins: The cross-origin pages whose browsers may connect.
        state: Makes the state of a socket.
        connect: Middleware and connect handler.
        receive: Middleware and message handler: makes a coroutine from socket
            and message, or with *is_async* false handles it.
        is_async: Which of the two.
        disconnect: Middleware and disconnect handler.
    """

    pattern: str
    profile: Profile
    subprotocols: tuple[str, ...]
    origins: tuple[str, ...]
    state: Callable[[], Any]
    connect: Callable[[Socket[Any]], Awaitable[None]]
    receive: Callable[[Socket[Any], Any], Any]
    is_async: bool
    disconnect: Callable[[Socket[Any], Close], Awaitable[None]] | None
