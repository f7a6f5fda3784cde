"""One socket a user: `app.route(path, per_user=1)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from symphony.broker.attendance import Claimed
from symphony.errors import Reject
from symphony.rooms.topics import node_of
from symphony.socket import look_for_others

if TYPE_CHECKING:
    from symphony.session.session import Session
    from symphony.socket import Socket

__all__ = ("Claims", "LocalClaims", "PerUser", "if_alone")

_REPLACED: Final = "another connection of the same user has taken its place"
_CONFLICT: Final = "the user has another connection"


class Claims(Protocol):
    """Who has the right to be the only socket of a user: a part of `PresenceStore`."""

    async def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """See `PresenceStore.claim`."""
        ...

    async def claims(self, scope: str, user: str) -> int:
        """See `PresenceStore.claims`."""
        ...

    async def release(self, connection: str) -> None:
        """See `PresenceStore.release`."""
        ...


class LocalClaims:
    """The claims of one node. They have no leases: they end with their sockets."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[str, str]] = {}
        self._keys: dict[str, tuple[str, str]] = {}

    async def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """See `PresenceStore.claim`."""
        claims = self._claims.get((scope, user), {})
        evicted: list[tuple[str, str]] = []
        if connection not in claims and len(claims) >= most:
            if not replace:
                return Claimed(granted=False)
            evicted = list(claims.items())[: len(claims) - most + 1]
            for old, _ in evicted:
                await self.release(old)
        self._claims.setdefault((scope, user), {})[connection] = node
        self._keys[connection] = (scope, user)
        return Claimed(granted=True, evicted=tuple(evicted))

    async def claims(self, scope: str, user: str) -> int:
        """See `PresenceStore.claims`."""
        return len(self._claims.get((scope, user), ()))

    async def release(self, connection: str) -> None:
        """See `PresenceStore.release`."""
        key = self._keys.pop(connection, None)
        if key is not None:
            claims = self._claims[key]
            del claims[connection]
            if not claims:
                del self._claims[key]


class PerUser:
    """Lets only one socket of each user open on the routes that say so.

    Args:
        claims: Decides between sockets.
        node: The name of the node.
    """

    def __init__(self, claims: Claims, *, node: str = "") -> None:
        self._claims = claims
        self._node = node
        # The sockets that have the claim of their user, or ask for it.
        self._sessions: dict[str, Session] = {}

    async def look(self, session: Session) -> None:
        """Refuse a socket before its connect handler, if its user has another one.

        The claim decides. This keeps the handler from running for nothing.

        Raises:
            Reject: `conflict`.
        """
        user = session.socket.user
        if user is not None and await self._claims.claims(session.endpoint.pattern, user.id):
            raise Reject("conflict", _CONFLICT)

    async def admit(self, session: Session) -> list[str]:
        """Claim the place of the user's only socket.

        Returns:
            The sockets whose place it has taken. Close them when it is open.

        Raises:
            Reject: `unauthorized`: nobody is logged in. `conflict`: the user has another socket.
        """
        socket, endpoint = session.socket, session.endpoint
        if socket.user is None:
            raise Reject("unauthorized", "this route needs a user")
        replace = endpoint.on_conflict == "replace"
        scope, user = endpoint.pattern, socket.user.id
        # Before it asks: if it goes meanwhile, it gives up what it gets.
        self._sessions[socket.id] = session
        claimed = await self._claims.claim(scope, user, socket.id, self._node, most=1, replace=replace)
        if not claimed.granted:
            self._sessions.pop(socket.id, None)
            raise Reject("conflict", _CONFLICT)
        evicted = [old for old, _ in claimed.evicted]
        if session.is_over:
            # It went while it claimed.
            await self.give_back(session, evicted)
        return evicted

    async def give_back(self, session: Session, evicted: Sequence[str]) -> None:
        """Give the place that a socket has taken back to those before it, because it does not open."""
        user = session.socket.user
        await self.left(session)
        for old in evicted:
            if user is not None and (old in self._sessions or self.is_elsewhere(old)):
                scope, node = session.endpoint.pattern, node_of(old) or self._node
                again = await self._claims.claim(scope, user.id, old, node, most=1, replace=False)
                if not again.granted:
                    # A third one has it now.
                    self.replace((old,))

    def is_elsewhere(self, id: str) -> bool:
        """Return whether a socket is on another node."""
        return False

    def replace(self, evicted: Sequence[str]) -> None:
        """Close the sockets whose place was taken."""
        for id in evicted:
            session = self._sessions.pop(id, None)
            if session is not None and not session.is_over:
                session.refuse(Reject("replaced", _REPLACED))

    async def left(self, session: Session) -> None:
        """Free the place of a socket that has ended."""
        socket: Any = session.socket
        if self._sessions.pop(socket.id, None) is not None:
            await self._claims.release(socket.id)


def if_alone(
    connect: Callable[[Socket[Any]], Awaitable[None]],
) -> Callable[[Socket[Any]], Awaitable[None]]:
    """Call a connect handler only if the user has no other socket."""

    async def look_first(socket: Socket[Any]) -> None:
        await look_for_others(socket)
        await connect(socket)

    return look_first
