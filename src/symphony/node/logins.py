"""The sockets of each user, from their login to their end."""

from __future__ import annotations

from typing import Any

from symphony.identity import Identity
from symphony.socket import Socket

__all__ = ("Logins",)


class Logins:
    """The sockets of the users who are logged in, by user id."""

    def __init__(self) -> None:
        self._sockets: dict[str, dict[Socket[Any], None]] = {}

    def add(self, socket: Socket[Any], identity: Identity) -> None:
        """Note that *socket* speaks for a user."""
        self._sockets.setdefault(identity.id, {})[socket] = None

    def remove(self, socket: Socket[Any], identity: Identity | None) -> None:
        """Note that it does so no more; without an identity it never did."""
        sockets = self._sockets.get(identity.id) if identity is not None else None
        if sockets is None or identity is None:
            return
        sockets.pop(socket, None)
        if not sockets:
            del self._sockets[identity.id]

    def sockets(self, id: str) -> tuple[Socket[Any], ...]:
        """Return the sockets of a user, in the order in which they logged in."""
        return tuple(self._sockets.get(id, ()))
