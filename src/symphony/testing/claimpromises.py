"""Checks what a simulated cluster promises about users who may have one socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from symphony.broker.attendance import Claimed, Tracked, Untracked

if TYPE_CHECKING:
    from symphony.testing.clusternodes import ClusterNode
    from symphony.testing.promises import Trace

__all__ = ("ClaimPromises", "check_claims", "socket_of")


class ClaimPromises:
    """What has to hold for all claims of sockets, in one life of the presence store.

    Args:
        trace: Notes what happens.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._held: dict[tuple[str, str], dict[str, None]] = {}
        # By the id of a socket: the one that has taken its place.
        self._heirs: dict[str, str] = {}
        self._tracked: set[tuple[str, str]] = set()
        self._granted: set[str] = set()
        self._released: set[str] = set()
        # Rooms that a replaced socket has left before the one in its place was in them.
        self._too_early: dict[tuple[str, str], str] = {}

    def claimed(self, scope: str, user: str, socket: str, result: Claimed) -> None:
        """Check the answer to a claim."""
        held = self._held.setdefault((scope, user), {})
        require = self._trace.require
        self._trace.note(f"store: claim of {scope} by {socket} for {user}: {result}")
        if not result.granted:
            return
        require(
            socket not in self._released,
            lambda: f"{socket} of {user} has ended, and has a place in {scope} again.",
        )
        # A node claims again what it has lost. By then, another socket may have the place.
        require(
            socket not in self._granted or not result.evicted,
            lambda: f"{socket} of {user} takes its place in {scope} again from {result.evicted}.",
        )
        self._granted.add(socket)
        for old, _ in result.evicted:
            require(old in held, lambda old=old: f"{socket} of {user} replaces {old}, which has no place.")
            heir = self._heirs.get(socket)
            require(
                heir is None,
                lambda old=old, heir=heir: f"{socket} of {user} was replaced by {heir}, and replaces {old}.",
            )
            held.pop(old, None)
            self._heirs[old] = socket
        self._heirs.pop(socket, None)
        held[socket] = None

    def check_most(self, scope: str, user: str, count: int, most: int) -> None:
        """Check how many claims of one user the store has."""
        self._trace.require(
            count <= most, lambda: f"{user} has {count} places in {scope}, and may have {most}."
        )

    def released(self, socket: str) -> None:
        """Note the end of a claim."""
        self._released.add(socket)
        for held in self._held.values():
            held.pop(socket, None)

    def tracked(self, room: str, connection: str, result: Tracked) -> None:
        """Note that a socket has entered a room."""
        socket = socket_of(connection)
        if result.arrival is None:
            return
        self._tracked.add((room, socket))
        before = self._too_early.pop((room, socket), None)
        self._trace.require(
            before is None,
            lambda: f"{before} was told to leave {room} before {socket}, which has replaced it, was there.",
        )

    def untracked(self, room: str, connection: str, result: Untracked) -> None:
        """Note that a socket has left a room."""
        socket = socket_of(connection)
        heir = self._heirs.get(socket)
        if heir is not None and result.kind in ("away", "departed") and (room, heir) not in self._tracked:
            self._too_early[room, heir] = socket


def check_claims(
    nodes: Sequence[ClusterNode], held: dict[tuple[str, str], Any], require: Callable[..., None]
) -> None:
    """Check that no user has more sockets than allowed, when nothing happens any more.

    Args:
        nodes: The nodes that run.
        held: The claims that the store has, by scope and user.
        require: Notes what is broken.
    """
    open_now: Counter[tuple[str, str]] = Counter()
    lost: list[str] = []
    for node in nodes:
        for session in node.app._core.node._sessions:  # pyright: ignore
            user = session.socket.user
            if session.endpoint.per_user and user is not None and not session.is_over:
                key: tuple[str, str] = session.endpoint.pattern, user.id
                open_now[key] += 1
                claims = held.get(key, {})
                if session.socket.id not in claims:
                    lost.append(f"{session.socket.id} of {key}")
    require(not lost, lambda: f"In the end, sockets are open, and the store has no claim of them: {lost}.")
    twice = {key: count for key, count in open_now.items() if count > 1}
    require(not twice, lambda: f"In the end, users have more than one open socket: {twice}.")


def socket_of(connection: str) -> str:
    """Return the id of the socket of a membership, see `Seating`."""
    return connection.rpartition(".")[0]
