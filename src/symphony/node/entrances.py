"""What is decided about a socket between its connect handler and its opening."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from symphony.rooms.places import place_of, prepare_place

if TYPE_CHECKING:
    from symphony.node.peruser import PerUser
    from symphony.rooms.membership import Membership
    from symphony.session.session import Session

__all__ = ("Entrances",)


class Entrances:
    """Lets sockets into the rooms of their user and of their route, before they open.

    Args:
        rooms: The rooms of the node.
        per_user: Lets only one socket of a user open, on the routes that say so.
        background: Starts a task of the app's whose exception is reported.
    """

    def __init__(
        self, rooms: Membership, per_user: PerUser, background: Callable[[Coroutine[Any, Any, Any]], object]
    ) -> None:
        self._rooms = rooms
        self._per_user = per_user
        self._background = background

    async def admit(self, session: Session) -> list[str]:
        """Decide about a socket; return the sockets that it replaces.

        Raises:
            Reject: It may not open.
        """
        socket, endpoint = session.socket, session.endpoint
        user = socket.user
        if user is not None and self._rooms.is_slow_for_user(user.id):
            await self._rooms.join_as_user(socket, user.id)
        if endpoint.room is None:
            # Last: it opens in the step in which it has the claim.
            return await self._per_user.admit(session) if endpoint.per_user else []
        if (place := place_of(socket)) is None:
            # Connect middleware has not called the next one. That must not let anybody in
            # who is not allowed to join.
            await prepare_place(socket, endpoint.room(socket.params))
            place = place_of(socket)
            assert place is not None
        evicted: list[str] = []

        async def claim() -> None:
            evicted.extend(await self._per_user.admit(session))

        most = endpoint.profile.limits.max_rooms
        try:
            await self._rooms.enter(socket, place, most, claim if endpoint.per_user else None)
        except BaseException:
            if evicted:
                self._background(self._per_user.give_back(session, evicted))
            raise
        return evicted
