"""From what was registered to what runs, once, at start.

Only now are prefixes, forward references and overrides known. Every mistake
that can be found is found here, and names the handler and the parameter.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import State

from symphony.errors import ConfigurationError
from symphony.limits import Limits
from symphony.misnamed import Misnamed
from symphony.node.checks import answering, as_coroutine, check_options, check_state, resync_of
from symphony.node.eventroutes import event_handlers, events_of, speaks_events
from symphony.node.peruser import if_alone
from symphony.node.plans import RoutePlans
from symphony.node.rawroutes import message_handler, takes_no_messages
from symphony.node.routerooms import RouteRoom
from symphony.rooms.family import Families
from symphony.rooms.places import prepare_place
from symphony.routing.events import handler_names
from symphony.routing.handlers import EVENT_SEPARATOR, Handler, Handlers
from symphony.routing.middleware import STAGES, wrap
from symphony.routing.patterns import PathPattern
from symphony.routing.route import Options, Route
from symphony.session.endpoint import Endpoint
from symphony.socket import Socket, begin
from symphony.transport.base import Close, Profile
from symphony.websocket.queued import Queued

__all__ = ("Compiler", "Defaults")

logger = logging.getLogger("symphony.app")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for routes that do not say otherwise.

    Attributes:
        limits: The app's bounds.
        options: The app's options.
    """

    limits: Limits
    options: Options


class Compiler:
    """Compiles routes.

    Args:
        defaults: What holds for routes that do not say otherwise.
        overrides: What to call instead of dependencies.
        families: The rooms of the app.
    """

    def __init__(
        self,
        defaults: Defaults,
        overrides: Mapping[Callable[..., Any], Callable[..., Any]],
        families: Families,
    ) -> None:
        self._defaults = defaults
        self._overrides = overrides
        self._families = families
        self._queued = Queued(defaults.limits.max_queued_bytes)
        text = "No handler for the event '%s' in %s. Did you mean '%s'?"
        self._misnamed = Misnamed(logger, text, EVENT_SEPARATOR)

    def endpoint(self, path: str, route: Route | None, inside: Sequence[Handlers]) -> Endpoint:
        """Compile one route, or with none the app's own handlers for every path.

        Args:
            path: The whole path pattern.
            route: The route.
            inside: What the route is in, itself last, the app first.

        Raises:
            ConfigurationError: A handler, an origin or a subprotocol is wrong.
        """
        where = f"route {path!r}" if route is not None else "the app"
        own = route.options if route is not None else Options()
        options = own.over(self._defaults.options)
        check_options(options)
        limits = options.limits or self._defaults.limits
        state = options.state
        check_state(state, where)
        names = PathPattern(path).converters
        room = None if options.room is None else RouteRoom(options.room, names, self._families, where)
        plans = RoutePlans(where, names, state, room, self._overrides)
        connect = _connect(plans, _nearest(inside, "connect"), room)
        if options.on_conflict == "refuse":
            connect = if_alone(connect)
        disconnect = _disconnect(plans, _nearest(inside, "disconnect"))
        stack = {stage: plans.middlewares(inside, stage) for stage in STAGES}
        receive, is_async, events, takes_bytes = takes_no_messages, False, None, False
        message = _nearest(inside, "message")
        handlers = {"": message} if message is not None else {}
        if options.protocol is not None or options.events or speaks_events(inside):

            def unknown(event: str, events: Iterable[str]) -> None:
                self._misnamed.look(event, events, where)

            events = event_handlers(plans, inside, options.protocol, stack["message"], unknown)
            is_async, handlers = True, events_of(inside)
            if options.errors is not None:
                raise ConfigurationError(
                    f"{where}: errors= is for raw routes. This route speaks events: errors are events too."
                )
        else:
            receive, is_async, takes_bytes = message_handler(plans, message, limits)
            if stack["message"]:
                receive, is_async = wrap(stack["message"], as_coroutine(receive, is_async)), True
        return Endpoint(
            pattern=path,
            profile=Profile(
                limits,
                options.slow_consumer or "disconnect",
                options.compression,
                self._queued,
            ),
            subprotocols=tuple(options.subprotocols or ()),
            origins=tuple(options.origins or ()),
            state=state or State,
            connect=wrap(stack["connect"], connect),
            receive=receive,
            is_async=is_async,
            handler_of=handler_names(handlers),
            events=events,
            checks=tuple(check for layer in inside for check in layer.checks),
            concurrency=options.concurrency or 1,
            closes_on_error=takes_bytes if options.errors is None else options.errors == "close",
            everyone=not takes_bytes if options.everyone is None else options.everyone,
            per_user=options.per_user is not None,
            on_conflict=options.on_conflict or "replace",
            inside=tuple(inside),
            disconnect=wrap(stack["disconnect"], disconnect or _nothing)
            if stack["disconnect"]
            else disconnect,
            resync=resync_of(options, _nearest(inside, "resync"), where, plans.plan),
            room=room.name if room is not None else None,
        )


def _connect(
    plans: RoutePlans, handler: Handler | None, room: RouteRoom | None
) -> Callable[[Socket[Any]], Awaitable[None]]:
    """Return the connect handler of a route."""
    where = f"on_connect of {plans.where}"
    plan = plans.plan(handler, where, stage="connect", query=True) if handler is not None else None
    if plan is None and room is None:
        return _begin
    handle = answering(plan, where) if plan is not None else None

    async def connect(socket: Socket[Any]) -> None:
        if room is not None:
            await prepare_place(socket, room.name(socket.params))
        # Before the handler: from here on, the disconnect handler runs in any case.
        begin(socket)
        if plan is None or handle is None:
            return
        result = await handle(socket, None)
        if result is not None:
            raise TypeError(
                f"{where}: {plan.name} returned {result!r}. A connect handler returns nothing; "
                "use `await socket.send(...)`."
            )

    return connect


def _disconnect(
    plans: RoutePlans, handler: Handler | None
) -> Callable[[Socket[Any], Close], Awaitable[None]] | None:
    if handler is None:
        return None
    where = f"on_disconnect of {plans.where}"
    return answering(plans.plan(handler, where, stage="disconnect"), where)


async def _begin(socket: Socket[Any]) -> None:
    begin(socket)


async def _nothing(socket: Socket[Any], close: Close) -> None:
    """Stand inside disconnect middleware where there is no handler."""


def _nearest(inside: Sequence[Handlers], stage: str) -> Handler | None:
    return next((layer.handlers[stage] for layer in reversed(inside) if stage in layer.handlers), None)
