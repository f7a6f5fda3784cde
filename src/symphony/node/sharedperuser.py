"""One socket a user, on all nodes: claims in the presence store, which the node renews."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from symphony.broker.attendance import REFRESH
from symphony.errors import Reject, SymphonyError
from symphony.node.peruser import PerUser
from symphony.rooms.topics import node_of

if TYPE_CHECKING:
    from symphony.broker.peers import Peers
    from symphony.broker.presence import PresenceStore
    from symphony.session.session import Session

__all__ = ("SharedPerUser",)

logger = logging.getLogger("symphony.app")

# The most claims in one call of `touch`.
_SLICE: Final = 500


class SharedPerUser(PerUser):
    """Lets only one socket of each user open on the routes that say so, whatever the node.

    The store decides. A node whose socket was replaced is told so after the new one is open. If
    it is not, because the message was lost, it finds out when it renews its claims. The
    claims of a node that has died end with their leases.

    Args:
        store: Has the claims.
        peers: The other nodes.
        background: Starts a task of the app's whose exception is reported.
    """

    def __init__(
        self,
        store: PresenceStore,
        peers: Peers,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ) -> None:
        super().__init__(store, node=peers.node)
        self._store = store
        self._peers = peers
        self._background = background
        # Those whose claim was granted. Others may still ask for theirs.
        self._held: set[str] = set()
        self._renewing: asyncio.Task[Any] | None = None
        peers.offer("replaced", super().replace)

    async def look(self, session: Session) -> None:
        """See `PerUser.look`."""
        try:
            await super().look(session)
        except SymphonyError as error:
            raise _refusal(error) from None

    async def admit(self, session: Session) -> list[str]:
        """See `PerUser.admit`."""
        id = session.socket.id
        try:
            evicted = await super().admit(session)
        except SymphonyError as error:
            if not isinstance(error, Reject):
                # It may have happened. The client does not wait for that.
                self._background(self.left(session))
            raise _refusal(error) from None
        if id in self._sessions:
            self._held.add(id)
            if self._renewing is None:
                self._renewing = self._background(self._renew_often())
        return evicted

    async def left(self, session: Session) -> None:
        """See `PerUser.left`."""
        self._held.discard(session.socket.id)
        # If the store is out of reach, the lease ends the claim.
        with suppress(SymphonyError):
            await super().left(session)

    def is_elsewhere(self, id: str) -> bool:
        """See `PerUser.is_elsewhere`."""
        return node_of(id) not in (None, self._node)

    def replace(self, evicted: Sequence[str]) -> None:
        """See `PerUser.replace`: tell the nodes of those that are not here."""
        super().replace(evicted)
        for id in evicted:
            self._held.discard(id)
            if self.is_elsewhere(id):
                self._peers.tell(node_of(id) or "", "replaced", [id])

    async def renew(self) -> None:
        """Renew the claims of this node."""
        held = list(self._held)
        for first in range(0, len(held), _SLICE):
            touched = await self._store.touch(self._node, (), held[first : first + _SLICE])
            for id in touched.lost:
                await self._claim_again(id)

    async def _claim_again(self, id: str) -> None:
        """Claim for a socket whose claim is lost, without replacing another one."""
        session = self._sessions.get(id)
        if session is None or id not in self._held or session.socket.user is None:
            return
        scope, user = session.endpoint.pattern, session.socket.user.id
        claimed = await self._store.claim(scope, user, id, self._node, most=1, replace=False)
        if id not in self._held:
            # It has gone meanwhile.
            await self._store.release(id)
        elif not claimed.granted:
            super().replace((id,))
            self._held.discard(id)

    async def _renew_often(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            try:
                await self.renew()
            except SymphonyError as error:
                logger.warning("The claims of users could not be renewed: %s", error)


def _refusal(error: SymphonyError) -> Reject:
    """Return what a client is told if the store is out of reach."""
    if isinstance(error, Reject):
        return error
    return Reject("unavailable", "it is not known whether the user has another connection")
