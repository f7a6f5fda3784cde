"""From what was registered to what runs, once, at start.

Only now are prefixes, forward references and overrides known. Every mistake
that can be found is found here, and names the handler and the parameter.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.datastructures import State

from symphony.errors import ConfigurationError, Reject
from symphony.handshake import Handshake
from symphony.limits import Limits
from symphony.misnamed import Misnamed
from symphony.node.checks import (
    NO_CLOSE,
    NO_LEAVE,
    NO_ROOM,
    answering,
    as_coroutine,
    check_options,
    check_state,
    resync_of,
    the_handshake,
    wrong_state,
)
from symphony.node.peruser import if_alone
from symphony.outgoing.encoding import V1_DIALECTS, Dialect
from symphony.protocol.actions import PUBLISH, Action
from symphony.protocol.annotations import bare
from symphony.protocol.bounds import SMALL, bounded, calm
from symphony.protocol.envelopes import MESSAGE as MESSAGE_EVENT
from symphony.protocol.envelopes import Protocol
from symphony.protocol.reading import Reader, event_readers, guarded
from symphony.protocol.unencodable import UnencodableError
from symphony.protocol.v1 import ERROR
from symphony.rooms.leave import Leave
from symphony.rooms.room import Room
from symphony.routing.events import EventTable, handler_names, names_in, payload_of
from symphony.routing.handlers import EVENT_SEPARATOR, Handler, Handlers
from symphony.routing.middleware import STAGES, Middleware, Stage, given, wrap
from symphony.routing.patterns import PathPattern
from symphony.routing.plan import MESSAGE, Plan, compile_middleware, compile_plan
from symphony.routing.route import Options, Route
from symphony.routing.stage import Filler, Known, the_socket, the_subject
from symphony.session.actions import client_actions, publish_by_client
from symphony.session.endpoint import Endpoint, EventHandlers, own_dialect
from symphony.session.threads import run_in_thread
from symphony.socket import Socket, begin
from symphony.transport.base import Close, Profile
from symphony.websocket.backpressure import TURN
from symphony.websocket.queued import Queued

__all__ = ("Compiler", "Defaults")

logger = logging.getLogger("symphony.app")

_ANYTHING: Final = {kind: guarded(calm(read)) for kind, read in event_readers(Any).items()}
_KINDS: Final = tuple(_ANYTHING)
_ITEMS_A_TURN: Final = 64


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
    """

    def __init__(
        self, defaults: Defaults, overrides: Mapping[Callable[..., Any], Callable[..., Any]]
    ) -> None:
        self._defaults = defaults
        self._overrides = overrides
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
        names = PathPattern(path).converters
        state = options.state
        check_state(state, where)
        connect = self._connect(_nearest(inside, "connect"), where, names, state)
        if options.on_conflict == "refuse":
            connect = if_alone(connect)
        disconnect = self._disconnect(_nearest(inside, "disconnect"), where, names, state)
        stack = {stage: self._stack(inside, stage, where, names, state) for stage in STAGES}
        receive, is_async, events, takes_bytes = _takes_no_messages, False, None, False
        message = _nearest(inside, "message")
        handlers = {"": message} if message is not None else {}
        if options.protocol is not None or options.events or _speaks_events(inside):
            events = self._event_handlers(inside, where, names, state, options.protocol, stack["message"])
            is_async, handlers = True, _events(inside)
            if options.errors is not None:
                raise ConfigurationError(
                    f"{where}: errors= is for raw routes. This route speaks events: errors are events too."
                )
        else:
            receive, is_async, takes_bytes = self._receive(message, where, names, state, limits)
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
            resync=resync_of(
                options,
                _nearest(inside, "resync"),
                where,
                lambda handler, here: self._plan(handler, here, names, state),
            ),
        )

    def _plan(self, handler: Handler, where: str, names: Mapping[str, str], state: Any, **rules: Any) -> Plan:
        return compile_plan(
            handler.function,
            where=where,
            known=_known(state, close=rules.pop("close", False)),
            path_names=names,
            overrides=self._overrides,
            thread=run_in_thread if handler.thread else None,
            **rules,
        )

    def _stack(
        self, inside: Sequence[Handlers], stage: Stage, where: str, names: Mapping[str, str], state: Any
    ) -> list[Middleware]:
        """Return the middleware around a stage of a route, the outermost first."""
        known = _known(state, close=stage == "disconnect")
        return [
            compile_middleware(
                middleware,
                given(stage, middleware) or 0,
                where=f"{stage} stage of {where}",
                known=known,
                path_names=names,
                overrides=self._overrides,
            )
            for layer in inside
            for middleware in layer.middlewares[stage]
        ]

    def _connect(
        self, handler: Handler | None, where: str, names: Mapping[str, str], state: Any
    ) -> Callable[[Socket[Any]], Awaitable[None]]:
        if handler is None:
            return _begin
        where = f"on_connect of {where}"
        plan = self._plan(handler, where, names, state, query=True)
        handle = answering(plan, where)

        async def connect(socket: Socket[Any]) -> None:
            # First: from here on, the disconnect handler runs in any case.
            begin(socket)
            result = await handle(socket, None)
            if result is not None:
                raise TypeError(
                    f"{where}: {plan.name} returned {result!r}. A connect handler returns nothing; "
                    "use `await socket.send(...)`."
                )

        return connect

    def _receive(
        self, handler: Handler | None, where: str, names: Mapping[str, str], state: Any, limits: Limits
    ) -> tuple[Callable[[Socket[Any], Any], Any], bool, bool]:
        """Return how to handle a message, whether that is async, and whether it takes binary ones only."""
        if handler is None:
            return _takes_no_messages, False, False
        plan = self._plan(handler, f"on_message of {where}", names, state, payload=MESSAGE)
        call, read, plain = plan.call, plan.reader, bare(plan.payload)
        if read is None:
            return partial(_stream, call, None) if plan.is_generator else call, plan.is_async, False
        decodes = plain not in (str, bytes)
        read_large = bounded(read, limits.max_elements, is_json=True) if decodes else read
        if plan.is_generator:
            return partial(_stream, call, read_large), True, plain is bytes
        harmless = min(SMALL, limits.max_elements)

        def receive(socket: Socket[Any], message: Any) -> Any:
            return call(socket, read(message))

        def receive_bounded(socket: Socket[Any], message: Any) -> Any:
            return call(socket, read(message) if len(message) <= harmless else read_large(message))

        return receive_bounded if decodes else receive, plan.is_async, plain is bytes

    def _event_handlers(
        self,
        inside: Sequence[Handlers],
        where: str,
        names: Mapping[str, str],
        state: Any,
        protocol: Callable[[], Protocol] | None,
        middlewares: Sequence[Middleware],
    ) -> EventHandlers:

        def unknown(event: str, events: Iterable[str]) -> None:
            self._misnamed.look(event, events, where)

        tables = {kind: EventTable(kind, unknown) for kind in _KINDS}
        for event, handler in _events(inside).items():
            here = f"on({event!r}) of {where}"
            if event == ERROR and protocol is None:
                raise ConfigurationError(
                    f"{here}: symphony.v1 reserves the event 'error' for errors. Use another name."
                )
            plan = self._plan(
                handler, here, names, state, payload=payload_of(event), pattern_names=names_in(event)
            )
            call = as_coroutine(plan.call, plan.is_async)
            try:
                for table in tables.values():
                    table.add(event, plan, call)
            except ConfigurationError as error:
                raise ConfigurationError(f"{here}: {error}") from None
        for kind, table in tables.items():
            for action, call in client_actions(kind).items():
                table.add_action(action, call)
        dialects = V1_DIALECTS if protocol is None else (own_dialect(protocol, where),)
        if not middlewares:
            if protocol is None:
                dialects = tuple(_typed(dialect, tables) for dialect in dialects)
            return EventHandlers(dialects, {kind: table.handle for kind, table in tables.items()})
        chains = {kind: wrap(middlewares, tables[kind].handle) for kind in ("plain", "unpacked")}
        publishes = {
            kind: wrap(middlewares, partial(publish_by_client, kind)) for kind in ("plain", "unpacked")
        }
        seen = {"json": "plain", "msgpack": "unpacked", "plain": "plain"}
        return EventHandlers(
            dialects,
            {
                kind: partial(_seen, chains[sees], publishes[sees], tables[kind].handle, _ANYTHING[kind])
                for kind, sees in seen.items()
            },
        )

    def _disconnect(
        self, handler: Handler | None, where: str, names: Mapping[str, str], state: Any
    ) -> Callable[[Socket[Any], Close], Awaitable[None]] | None:
        if handler is None:
            return None
        where = f"on_disconnect of {where}"
        plan = self._plan(handler, where, names, state, close=True)
        return answering(plan, where)


def _speaks_events(inside: Sequence[Handlers]) -> bool:
    """Tell whether the nearest that has handlers of messages has any of events."""
    for layer in reversed(inside):
        if layer.events:
            return True
        if "message" in layer.handlers:
            return False
    return False


def _events(inside: Sequence[Handlers]) -> dict[str, Handler]:
    """Return the nearest handler of each event; a message handler is one of `message`."""
    found: dict[str, Handler] = {}
    for layer in inside:
        found.update(layer.events)
        if "message" in layer.handlers:
            found[MESSAGE_EVENT] = layer.handlers["message"]
    return found


def _typed(dialect: Dialect, tables: Mapping[str, EventTable]) -> Dialect:
    """Let a dialect of `symphony.v1` read the data of the route's events as it decodes them."""
    protocol = tables[dialect.make().payload].protocol()
    return dialect if protocol is None else dialect.decoded_by(protocol)


def _seen(
    chain: Callable[[Any, Any], Any],
    publish: Callable[[Any, Any], Any],
    handle: Callable[[Any, Any], Any],
    read: Reader,
    socket: Any,
    event: Any,
) -> Any:
    """Call message middleware, which sees the data of an event decoded."""
    if event.event is PUBLISH:
        chain, event = publish, event.data
    elif isinstance(event.event, Action):
        # `authorize` decides about joins, and middleware is for events.
        return handle(socket, event)
    event.data = read(event.data)
    return chain(socket, event)


async def _begin(socket: Socket[Any]) -> None:
    begin(socket)


async def _nothing(socket: Socket[Any], close: Close) -> None:
    """Stand inside disconnect middleware where there is no handler."""


def _takes_no_messages(socket: Socket[Any], message: Any) -> None:
    raise Reject("invalid", "this route takes no messages")


async def _stream(
    call: Callable[[Any, Any], Any], read: Reader | None, socket: Socket[Any], message: Any
) -> None:
    items = call(socket, message if read is None else read(message))
    count = 0
    async with aclosing(items):
        async for item in items:
            try:
                sent = socket.send(item)
            except UnencodableError as error:
                error.given = "yielded"
                raise
            await sent
            if not socket.connected:
                # No client receives the rest: let the generator close what it holds.
                return
            count += 1
            if not count % _ITEMS_A_TURN:
                # If the items are small and the generator never waits, only this does.
                await TURN


def _nearest(inside: Sequence[Handlers], stage: str) -> Handler | None:
    return next((layer.handlers[stage] for layer in reversed(inside) if stage in layer.handlers), None)


def _known(state: Any, *, close: bool) -> Known:
    """Return the types that parameters may have; *close*: a `Close` is one of them."""
    types: dict[type, Filler] = {Socket: the_socket, Handshake: the_handshake}
    refused: dict[type, str] = {Room: NO_ROOM, Leave: NO_LEAVE}
    if close:
        types[Close] = the_subject
    else:
        refused[Close] = NO_CLOSE
    return Known(types, refused, partial(wrong_state, Socket, state, of="the route"))
