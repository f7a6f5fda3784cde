"""How the handlers of one route are called: what fills their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from symphony.handshake import Handshake
from symphony.node.checks import NO_CLOSE, NO_LEAVE, NO_MEMBER, NO_ROOM, the_handshake, wrong_state
from symphony.node.routerooms import RouteRoom
from symphony.rooms.leave import Leave
from symphony.rooms.members import Member
from symphony.rooms.room import Room
from symphony.routing.handlers import Handler, Handlers
from symphony.routing.middleware import Middleware, Stage, given
from symphony.routing.plan import Plan, compile_middleware, compile_plan
from symphony.routing.stage import Filler, Known, the_socket, the_subject
from symphony.session.threads import run_in_thread
from symphony.socket import Socket
from symphony.transport.base import Close

__all__ = ("RoutePlans",)

_NOT_YET = "connect middleware runs before the room is joined; use on_connect"


class RoutePlans:
    """Compiles the handlers and the middleware of one route.

    Args:
        where: The route, for errors.
        names: The parameters of its path, with their converters.
        state: Its `state=`.
        room: The room that its sockets join, if there is one.
        overrides: What to call instead of dependencies.

    Attributes:
        where: The route, for errors.
    """

    def __init__(
        self,
        where: str,
        names: Mapping[str, str],
        state: Any,
        room: RouteRoom | None,
        overrides: Mapping[Callable[..., Any], Callable[..., Any]],
    ) -> None:
        self.where = where
        self._names = names
        self._state = state
        self._room = room
        self._overrides = overrides

    def plan(self, handler: Handler, where: str, *, stage: Stage = "message", **rules: Any) -> Plan:
        """Compile a handler.

        Args:
            handler: The handler.
            where: What it does, for errors.
            stage: When it is called.
            rules: Further arguments of `compile_plan`.
        """
        return compile_plan(
            handler.function,
            where=where,
            known=self._known(stage),
            path_names=self._names,
            overrides=self._overrides,
            thread=run_in_thread if handler.thread else None,
            **rules,
        )

    def middlewares(self, inside: Sequence[Handlers], stage: Stage) -> list[Middleware]:
        """Compile the middleware around a stage, the outermost first."""
        known = self._known(stage, is_middleware=True)
        return [
            compile_middleware(
                middleware,
                given(stage, middleware) or 0,
                where=f"{stage} stage of {self.where}",
                known=known,
                path_names=self._names,
                overrides=self._overrides,
            )
            for layer in inside
            for middleware in layer.middlewares[stage]
        ]

    def _known(self, stage: Stage, *, is_middleware: bool = False) -> Known:
        """Return the types that the parameters of a stage may have."""
        types: dict[type, Filler] = {Socket: the_socket, Handshake: the_handshake}
        refused: dict[type, str] = {Room: NO_ROOM, Member: NO_MEMBER, Leave: NO_LEAVE, Close: NO_CLOSE}
        if stage == "disconnect":
            types[Close] = the_subject
        if self._room is not None:
            if is_middleware and stage == "connect":
                refused[Room] = refused[Member] = _NOT_YET
            else:
                own, not_here = self._room.types(stage)
                types |= own
                refused |= not_here
        for kind in types:
            refused.pop(kind, None)
        return Known(types, refused, partial(_problem, self._state, self._room))


def _problem(state: Any, room: RouteRoom | None, annotation: Any) -> str | None:
    """Say what is wrong with the `T` of `Socket[T]`, or of `Room[T]` and `Member[T]`."""
    wrong = wrong_state(Socket, state, annotation, of="the route")
    return wrong or (room.problem(annotation) if room is not None else None)
