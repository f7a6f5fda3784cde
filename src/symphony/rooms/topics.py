"""The names by which nodes call what has sockets on several of them."""

from __future__ import annotations

from typing import Final

__all__ = ("EVERYONE_TOPIC", "socket_of", "topic_of")

EVERYONE_TOPIC: Final = "everyone"
"""The topic of what is sent to all sockets."""


def topic_of(room: str) -> str:
    """Return the topic of a room."""
    return f"room:{room}"


def socket_of(id: str) -> str:
    """Return the name of a socket."""
    return f"socket:{id}"
