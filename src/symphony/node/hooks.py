"""From the hooks of rooms, and the error handlers, to what runs: once, at start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final

from symphony.errors import ConfigurationError
from symphony.handshake import Handshake
from symphony.identity import Identity
from symphony.node.checks import (
    NO_CLOSE,
    NO_LEAVE,
    NO_ROOM,
    answering,
    in_one_step,
    the_handshake,
    wrong_state,
)
from symphony.protocol.bounds import calm
from symphony.protocol.reading import event_readers
from symphony.rooms.clients import OnPublish
from symphony.rooms.family import MEMBER_HOOKS, Families, Family, Hook, have_members
from symphony.rooms.leave import Leave
from symphony.rooms.members import Member
from symphony.rooms.policy import ROOM_SEPARATOR, RoomPolicy, Rooms
from symphony.rooms.room import Room
from symphony.rooms.snapshots import Snapshot
from symphony.rooms.ticking import DT
from symphony.routing.patterns import NamePattern
from symphony.routing.plan import NAMED_EVENT, Payload, Plan, compile_plan
from symphony.routing.stage import Filler, ForCall, Known, OfSubject, the_socket, the_subject
from symphony.socket import Socket
from symphony.transport.base import Close

__all__ = ("HookCompiler",)

_NO_SOCKET: Final = "this hook is not called for one socket"
_SOCKET_HOOKS: Final = ("authorize", "on_join", "on_leave", "on_arrive", "on_back")
_LEAVE_HOOKS: Final = ("on_leave", "on_away", "on_depart")
_TAKE_LEAVE: Final = "annotate it with Leave: it has the reason and the close code"
_HOOKS_IN_THE_ROOM: Final = ("on_join", "on_publish")
_NO_MEMBER: Final = (
    "a Member is for on_join, on_publish and the hooks of members, and here the socket is no member; "
    "use room.members"
)
_NONE_HAS_MEMBERS: Final = (
    "the rooms have no members. Give them members=, presence=True or another option of members"
)


class HookCompiler:
    """Compiles the hooks of rooms and the error handlers.

    Args:
        overrides: What to call instead of dependencies.
    """

    def __init__(self, overrides: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        self._overrides = overrides

    def families(self, declared: Iterable[Rooms]) -> tuple[Families, bool]:
        """Compile families of rooms; return them, and whether one has a history."""
        families = Families()
        keeps_history = False
        for rooms in declared:
            families.add(self.family(rooms))
            keeps_history |= rooms.policy.history is not None
        return families, keeps_history

    def family(self, rooms: Rooms) -> Family:
        """Compile the hooks of a family of rooms."""
        policy = rooms.policy
        has_members = have_members(policy, rooms.hooks)
        hooks = {
            kind: [self._hook(hook, kind, policy, has_members=has_members) for hook in registered]
            for kind, registered in rooms.hooks.items()
            if kind != "snapshot"
        }
        return Family(
            policy,
            state=None if policy.state is None else self.factory(policy.state, "state", policy),
            authorize=_while_allowed(hooks.get("authorize", [])),
            on_join=_in_turn(hooks.get("on_join", [])),
            on_leave=tuple(hooks.get("on_leave", [])),
            on_empty=tuple(hooks.get("on_empty", [])),
            tasks=tuple(hooks.get("task", [])),
            snapshot=self._snapshot(rooms.hooks.get("snapshot", ()), policy),
            publishes={
                event: self._on_publish(hook, event, policy, has_members=has_members)
                for event, hook in rooms.publishes.items()
            },
            ticks=tuple((seconds, self._hook(hook, "every", policy)) for seconds, hook in rooms.ticks),
            saves=tuple((every, self._hook(hook, "save", policy)) for every, hook in rooms.saves),
            member_state=self._of_socket(policy.members, "members", policy),
            counts=self._of_socket(policy.counts, "counts", policy),
            on_arrive=_in_turn(hooks.get("on_arrive", [])),
            on_back=_in_turn(hooks.get("on_back", [])),
            on_away=tuple(hooks.get("on_away", [])),
            on_depart=tuple(hooks.get("on_depart", [])),
        )

    def _snapshot(self, hooks: Sequence[Callable[..., Any]], policy: RoomPolicy) -> Snapshot | None:
        if not hooks:
            return None
        where = f"snapshot of rooms {policy.pattern!r}"
        plan = self._plan(hooks[0], where, policy, for_socket=True)
        if plan.is_async_function and policy.history is None:
            raise ConfigurationError(
                f"{where}: an `async def` needs a history, because publications come while it runs. Give the "
                "rooms one, history=100, or write a plain function."
            )
        call = answering(plan, where)
        if plan.is_async_function:
            return Snapshot(call, None)
        if plan.is_async:
            raise ConfigurationError(
                f"{where}: a plain function cannot have dependencies, which may have to wait. Write an "
                "`async def`, and give the rooms a history."
            )
        return Snapshot(None, in_one_step(plan, where))

    def _on_publish(
        self, function: Callable[..., Any], event: str, policy: RoomPolicy, *, has_members: bool
    ) -> OnPublish:
        where = f"on_publish({event!r}) of rooms {policy.pattern!r}"
        plan = self._plan(
            function,
            where,
            policy,
            for_socket=True,
            kind="on_publish",
            payload=NAMED_EVENT,
            has_members=has_members,
        )
        readers: Mapping[str, Callable[[Any], Any]] = plan.reader or event_readers(Any)
        calm_readers = {kind: calm(readers[kind]) for kind in ("json", "msgpack", "plain", "unpacked")}
        return OnPublish(calm_readers, answering(plan, where))

    def factory(
        self, make: Callable[..., Any], option: str, policy: RoomPolicy, *, for_socket: bool = False
    ) -> Hook:
        """Compile a class or a function that creates the state of a room or of a member.

        Its parameters are filled as those of a hook. Those that nothing fills keep their
        defaults. What it returns is awaited, if that is necessary.

        Args:
            make: The class or the function.
            option: The option that it was given for, for errors.
            policy: The options of the family.
            for_socket: Whether it is called for a socket, so that it may ask for it.
        """
        where = f"{option}= of rooms {policy.pattern!r}"
        plan = self._plan(make, where, policy, for_socket=for_socket, is_factory=True)
        return answering(plan, where)

    def error_handler(self, function: Callable[..., Any]) -> Hook:
        """Compile the app's error handler."""
        types: dict[type, Filler] = {Socket: the_socket, Exception: the_subject, BaseException: the_subject}
        take_socket = "take the Socket: it has it"
        refused = {
            Room: NO_ROOM,
            Close: NO_CLOSE,
            Leave: NO_LEAVE,
            Handshake: take_socket,
            Identity: take_socket,
        }
        known = Known(types, refused)
        plan = compile_plan(function, where="on_error of the app", known=known, overrides=self._overrides)
        return answering(plan, "on_error of the app")

    def _of_socket(self, make: Callable[..., Any] | None, option: str, policy: RoomPolicy) -> Hook | None:
        return None if make is None else self.factory(make, option, policy, for_socket=True)

    def _hook(
        self, function: Callable[..., Any], kind: str, policy: RoomPolicy, *, has_members: bool = False
    ) -> Hook:
        where = f"{kind} of rooms {policy.pattern!r}"
        for_socket = kind in _SOCKET_HOOKS
        plan = self._plan(function, where, policy, for_socket=for_socket, kind=kind, has_members=has_members)
        return answering(plan, where)

    def _plan(
        self,
        function: Callable[..., Any],
        where: str,
        policy: RoomPolicy,
        *,
        for_socket: bool,
        is_factory: bool = False,
        kind: str = "",
        payload: Payload | None = None,
        has_members: bool = False,
    ) -> Plan:
        types: dict[type, Filler] = {Room: the_subject}
        refused = {Close: NO_CLOSE, Member: _NO_MEMBER, Leave: NO_LEAVE}
        if kind in MEMBER_HOOKS:
            types = {Room: OfSubject("room"), Member: OfSubject("member")}
            del refused[Member]
        if kind == "on_publish":
            types = {Room: OfSubject("room")}
        if kind in _HOOKS_IN_THE_ROOM:
            if has_members:
                types[Member] = ForCall(_publisher if kind == "on_publish" else _member)
                del refused[Member]
            else:
                refused[Member] = _NONE_HAS_MEMBERS
        if kind in _LEAVE_HOOKS:
            types |= {Room: OfSubject("room"), Leave: OfSubject("leave")}
            del refused[Leave]
            refused[Close] = _TAKE_LEAVE
        names = dict(_converters(policy.pattern))
        if kind == "every":
            types = {Room: OfSubject("room")}
            if DT in names:
                raise ConfigurationError(f"{where}: {{dt}} is the name of the seconds since the last tick.")
            names[DT] = "float"
        if for_socket:
            types |= {Socket: the_socket, Handshake: the_handshake}
        else:
            refused |= {Socket: _NO_SOCKET, Handshake: _NO_SOCKET}
        return compile_plan(
            function,
            where=where,
            known=Known(types, refused, partial(_wrong_room_state, policy)),
            pattern_names=names,
            overrides=self._overrides,
            is_factory=is_factory,
            payload=payload,
        )


@lru_cache(maxsize=1)
def _converters(pattern: str) -> dict[str, str]:
    """Return the parameters in the names of a family; it is asked for each of its hooks."""
    return NamePattern(pattern, separator=ROOM_SEPARATOR).converters


def _member(socket: Any, room: Room) -> Member[Any]:
    """Return the member of a socket that is in the room."""
    return room.members[socket.user.id if socket.user is not None else socket.id]


def _publisher(socket: Any, said: Any) -> Member[Any]:
    return _member(socket, said.room)


def _wrong_room_state(policy: RoomPolicy, annotation: Any) -> str | None:
    """Say what is wrong with the `T` of `Room[T]` or `Member[T]` in a hook of rooms."""
    wrong = wrong_state(Room, policy.state, annotation, of="the family")
    return wrong or wrong_state(Member, policy.members, annotation, of="a member of the family")


def _while_allowed(hooks: Sequence[Hook]) -> Hook | None:
    """Return one hook for several: it ends at the first that raises or returns `False`."""
    if len(hooks) < 2:
        return hooks[0] if hooks else None

    async def run(socket: Any, room: Any) -> Any:
        for hook in hooks:
            if await hook(socket, room) is False:
                return False
        return None

    return run


def _in_turn(hooks: Sequence[Hook]) -> Hook | None:
    """Return one hook for several: it ends at the first that raises."""
    if len(hooks) < 2:
        return hooks[0] if hooks else None

    async def run(socket: Any, room: Any) -> None:
        for hook in hooks:
            await hook(socket, room)

    return run
