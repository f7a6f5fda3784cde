"""A room, as handlers see it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal

from typing_extensions import TypeVar

from symphony.errors import Reject, check_close_code
from symphony.protocol.invalid import shortened
from symphony.protocol.positions import Position
from symphony.rooms.target import RoomTarget

if TYPE_CHECKING:
    from symphony.rooms.listener import Publications
    from symphony.rooms.members import Member, Presence
    from symphony.rooms.publishing import Publication

__all__ = ("Room", "check_room_name")

# Control characters, and the halves of characters that no codec writes.
_UNUSABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

StateT = TypeVar("StateT", default=Any)
MemberT = TypeVar("MemberT", default=Any)


def check_room_name(name: object, most: int) -> None:
    """Refuse what cannot be the name of a room.

    Args:
        name: The name.
        most: `Limits.max_room_name`.

    Raises:
        Reject: `invalid`, because a client may have chosen the name.
    """
    problem = ""
    if not isinstance(name, str):
        problem = "it must be text"
    elif not 1 <= len(name) <= most:
        problem = f"it must have 1 to {most} characters"
    elif "{" in name or "}" in name:
        problem = "braces are for patterns, as in app.rooms()"
    elif found := _UNUSABLE.search(name):
        surrogate = found[0] >= "\ud800"
        problem = "it is not valid Unicode" if surrogate else "it contains a control character"
    if problem:
        shown = shortened(repr(name))
        raise Reject("invalid", f"{shown} is not the name of a room: {problem}", details={"room": shown})


class Room(RoomTarget, Generic[StateT, MemberT]):
    """A named set of sockets that share what is sent to it.

    Two handles of one name are the same room.
    """

    __slots__ = ()

    def open(self, *, state: StateT | EllipsisType = ..., ttl: float = 30.0) -> Awaitable[bool]:
        """Make the room before anybody is in it: with its state, and with its tasks at work.

        If nobody joins, it ends after *ttl* seconds. If it exists already, this changes
        nothing. Rooms that only this call may make have a `state=` that refuses.

        Args:
            state: Its state. By default, the `state=` of the family creates it.
            ttl: How many seconds it waits for its first member, above 0.

        Returns:
            When awaited, whether this call has made it.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            ValueError: *ttl* is not above 0, or the family has no `state=` and *state* is given.
            Exception: What the `state=` of the family raised.
            Reject: `unavailable`: a hook that runs at the end of the room called this.
        """
        self._check_thread("open")
        if not ttl > 0:
            raise ValueError(f"ttl is a number of seconds above 0, not {ttl!r}.")
        return self._table.open_room(self.name, state, ttl)

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """End the room, and all memberships in it.

        Its members get everything that was published before. Their clients are told that
        they have left, with the code `closed` and *reason*. `on_leave` runs for each of
        them, and then `on_empty`, without a linger. A join meanwhile waits, and makes the
        room anew. The history stays.

        A hook or a task of the room may call this. That task is not cancelled at once: it
        has `Limits.finish_timeout` to finish. If the room does not exist, nothing happens.

        Args:
            code: What `Leave.code` is in the hooks.
            reason: For the clients.

        Returns:
            When awaited, waits until the `on_leave` hooks have ended.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            ValueError: No side may send this close code.
        """
        self._check_thread("close")
        check_close_code(code)
        return self._table.close_room(self.name, code, reason)

    def listen(
        self,
        *,
        since: Position | Literal["start"] | None = None,
        conflate: bool | Callable[[Publication], str | None] = False,
    ) -> AbstractAsyncContextManager[Publications]:
        """Listen to what is published to the room, in a task or an HTTP endpoint.

            async with room.listen() as publications:
                async for publication in publications:
                    print(publication.event, publication.data)

        A listener is not a member: it is not counted, hooks do not run for it, and it keeps
        no state of the room alive. It gets all publications from when the block begins, of all
        nodes, in the order in which members get them. It ends when the room is closed, and
        when the app stops.

        At most `Limits.max_listener_bytes` wait for it. A listener that is slower gets
        publications that the room keeps from its history, later. Others are dropped, the
        oldest first, unless the family has another `slow_consumer=`. It is told: see
        `Publications.on_dropped`.

        Args:
            since: Begin after this position, or with the oldest publication that is kept
                (`"start"`). If something after it is no longer kept, the listener gets none
                of the earlier ones, and is told: see `Publications.on_lost`.
            conflate: Of the publications that wait and have the same key, give only the
                newest. With `True`, this is the key that `emit` or `send` was given. A
                function returns the key of a publication. Those without a key are all given.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            ValueError: *since* in a room without a history.
            TypeError: An option has another type.
            Reject: At the beginning of the block: `unavailable`: the broker cannot be reached.
            RuntimeError: At the beginning of the block: the app stops.
        """
        self._check_thread("listen")
        if since is not None:
            if since != "start" and not isinstance(since, Position):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"since is a Position or 'start', not {since!r}.")
            if not self._table.keeps(self.name):
                raise ValueError(
                    f"since= needs a history, and the room {self.name!r} has none. "
                    "Give its family one: app.rooms(…, history=100)."
                )
        if not isinstance(conflate, bool) and not callable(conflate):
            raise TypeError(f"conflate is True, False or a function, not {conflate!r}.")
        return self._table.listen(self.name, since, conflate)

    def touch(self) -> None:
        """Say that the state has changed, so that the `save` hooks of the family are called.

        If the room does not exist, or has no such hook, nothing happens.

        Raises:
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("touch")
        self._table.touch(self.name)

    @property
    def state(self) -> StateT:
        """The room's state, created by the `state=` of `app.rooms` at the first join.

        `None` if the rooms have no `state=`, or while the room does not exist.
        """
        return self._table.state(self.name)

    def count(self) -> Awaitable[int]:
        """Return how many members it has on all nodes, those who are away included.

        In rooms without members, it is the number of sockets.

        Raises:
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("count")
        return self._table.count(self.name)

    @property
    def members(self) -> Mapping[str, Member[MemberT]]:
        """The members on this node, by id: users, or sockets without a user.

        It changes when they come and go. Members who are away are there, too. `presence`
        has those of all nodes.

        Raises:
            RuntimeError: The rooms have no members: see `app.rooms`.
        """
        return self._table.members(self.name)

    def presence(self) -> Awaitable[list[Presence]]:
        """Return the members on all nodes, in the order of their arrivals.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            RuntimeError: The rooms have no members.
        """
        self._check_thread("presence")
        return self._table.presence(self.name)

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters in its name, converted as the family's pattern says."""
        return self._table.params(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Room) and other.name == self.name and other._table is self._table

    def __hash__(self) -> int:
        return hash(self.name)
