"""Gives each worker its own listening socket, where the system spreads connections over them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from symphony.transport.native.listen import ListenError, addresses

__all__ = ("Slots", "close", "spread")

Slots = list[list[socket.socket]]
"""The listening sockets of each worker. All of them have the same addresses."""


def spread(bound: Sequence[socket.socket], count: int) -> Slots:
    """Return the sockets of *count* workers.

    Linux spreads new connections evenly over sockets with SO_REUSEPORT, but not
    over processes that accept from one socket: then the busiest process of four got
    three times as many as the idlest one. On other systems, and for Unix sockets,
    the workers share the bound sockets.

    Args:
        bound: Bound sockets. The first worker gets these.
        count: The number of workers.

    Raises:
        ListenError: The system has no further sockets.
    """
    if sys.platform != "linux" or any(each.family == socket.AF_UNIX for each in bound):
        return [list(bound) for _ in range(count)]
    for each in bound:
        # Only now. A socket that is bound without the option is refused if another
        # server has the address: two servers would silently share their clients.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    slots: Slots = [list(bound)]
    try:
        for _ in range(1, count):
            slots.append([])
            for each in bound:
                slots[-1].append(_again(each))
    except OSError as error:
        close(slots[1:])
        raise ListenError(f"{addresses(bound, tls=False)[0]} cannot have {count} sockets: {error}.") from None
    return slots


def close(slots: Slots) -> None:
    """Close all sockets. Idempotent."""
    for sockets in slots:
        for each in sockets:
            each.close()


def _again(bound: socket.socket) -> socket.socket:
    """Return one more socket that is bound to the same address."""
    again = socket.socket(bound.family, bound.type, bound.proto)
    try:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
        if bound.family == socket.AF_INET6:
            again.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
        again.bind(bound.getsockname())
    except OSError:
        again.close()
        raise
    return again
