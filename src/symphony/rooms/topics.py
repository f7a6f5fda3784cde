"""The names by which nodes call what has sockets on several of them."""

from __future__ import annotations

from typing import Final

__all__ = ("EVERYONE_TOPIC", "node_of", "socket_id", "socket_of", "topic_of")

EVERYONE_TOPIC: Final = "everyone"
"""The topic of what is sent to all sockets."""

# Neither a random text nor the name of a node has it.
_SEPARATOR: Final = "."


def topic_of(room: str) -> str:
    """Return the topic of a room."""
    return f"room:{room}"


def socket_of(id: str) -> str:
    """Return the name of a socket."""
    return f"socket:{id}"


def socket_id(random: str, node: str | None) -> str:
    """Return the id of a socket. If there are other nodes, it names the *node* of the socket."""
    return random if node is None else f"{random}{_SEPARATOR}{node}"


def node_of(id: str) -> str | None:
    """Return the node of a socket by its id; `None`: the id names none."""
    _, separator, node = id.rpartition(_SEPARATOR)
    return node if separator else None
