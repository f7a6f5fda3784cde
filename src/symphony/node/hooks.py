"""From the hooks of rooms, and the error handlers, to what runs: once, at start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from symphony.handshake import Handshake
from symphony.node.checks import NO_CLOSE, NO_ROOM, as_coroutine, check_state, refuse_generator, the_handshake
from symphony.rooms.family import ROOM_SEPARATOR, Family, Hook
from symphony.rooms.policy import Rooms
from symphony.rooms.room import Room
from symphony.routing.patterns import NamePattern
from symphony.routing.plan import compile_plan
from symphony.routing.stage import Filler, Known, the_socket, the_subject
from symphony.socket import Socket
from symphony.transport.base import Close

__all__ = ("HookCompiler",)

_NO_SOCKET: Final = "this hook is not called for one socket"
_SOCKET_HOOKS: Final = ("authorize", "on_join", "on_leave")


class HookCompiler:
    """Compiles the hooks of rooms and the error handlers.

    Args:
        overrides: What to call instead of dependencies.
    """

    def __init__(self, overrides: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        self._overrides = overrides

    def family(self, rooms: Rooms) -> Family:
        """Compile the hooks of a family of rooms."""
        check_state(rooms.state, f"rooms {rooms.pattern!r}")
        hooks = {
            kind: self._hook(hook, f"{kind} of rooms {rooms.pattern!r}", rooms.pattern, kind in _SOCKET_HOOKS)
            for kind, hook in rooms.hooks.items()
        }
        return Family(
            pattern=rooms.pattern,
            max_members=rooms.max_members,
            linger=rooms.linger,
            state=rooms.state,
            **hooks,
        )

    def error_handler(self, function: Callable[..., Any]) -> Hook:
        """Compile the app's error handler."""
        types: dict[type, Filler] = {Socket: the_socket, Exception: the_subject, BaseException: the_subject}
        known = Known(types, {Room: NO_ROOM, Close: NO_CLOSE, Handshake: "take the Socket: it has it"})
        plan = compile_plan(function, where="on_error of the app", known=known, overrides=self._overrides)
        refuse_generator(plan, "on_error of the app")
        return as_coroutine(plan.call, plan.is_async)

    def _hook(self, function: Callable[..., Any], where: str, pattern: str, socket: bool) -> Hook:
        types: dict[type, Filler] = {Room: the_subject}
        refused = {Close: NO_CLOSE}
        if socket:
            known = Known({**types, Socket: the_socket, Handshake: the_handshake}, refused)
        else:
            known = Known(types, {**refused, Socket: _NO_SOCKET, Handshake: _NO_SOCKET})
        plan = compile_plan(
            function,
            where=where,
            known=known,
            pattern_names=NamePattern(pattern, separator=ROOM_SEPARATOR).converters,
            overrides=self._overrides,
        )
        refuse_generator(plan, where)
        return as_coroutine(plan.call, plan.is_async)
