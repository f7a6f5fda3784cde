"""What runs for the events of a route, compiled from its handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from symphony.errors import ConfigurationError
from symphony.node.checks import as_coroutine
from symphony.node.plans import RoutePlans
from symphony.outgoing.encoding import V1_DIALECTS, Dialect
from symphony.protocol.actions import PUBLISH, Action
from symphony.protocol.bounds import calm
from symphony.protocol.envelopes import MESSAGE as MESSAGE_EVENT
from symphony.protocol.envelopes import Protocol
from symphony.protocol.reading import Reader, event_readers, guarded
from symphony.protocol.v1 import ERROR
from symphony.routing.events import EventTable, names_in, payload_of
from symphony.routing.handlers import Handler, Handlers
from symphony.routing.middleware import Middleware, wrap
from symphony.session.actions import client_actions, publish_by_client
from symphony.session.endpoint import EventHandlers, own_dialect

__all__ = ("event_handlers", "events_of", "speaks_events")

_ANYTHING: Final = {kind: guarded(calm(read)) for kind, read in event_readers(Any).items()}
_KINDS: Final = tuple(_ANYTHING)


def speaks_events(inside: Sequence[Handlers]) -> bool:
    """Tell whether the nearest that has handlers of messages has any of events."""
    for layer in reversed(inside):
        if layer.events:
            return True
        if "message" in layer.handlers:
            return False
    return False


def events_of(inside: Sequence[Handlers]) -> dict[str, Handler]:
    """Return the nearest handler of each event; a message handler is one of `message`."""
    found: dict[str, Handler] = {}
    for layer in inside:
        found.update(layer.events)
        if "message" in layer.handlers:
            found[MESSAGE_EVENT] = layer.handlers["message"]
    return found


def event_handlers(
    plans: RoutePlans,
    inside: Sequence[Handlers],
    protocol: Callable[[], Protocol] | None,
    middlewares: Sequence[Middleware],
    unknown: Callable[[str, Iterable[str]], None],
) -> EventHandlers:
    """Compile the event handlers of a route.

    Args:
        plans: Compiles the handlers.
        inside: What the route is in, itself last, the app first.
        protocol: The protocol of the app for this route; `None`: `symphony.v1`.
        middlewares: The message middleware, the outermost first.
        unknown: Called with an event that has no handler, and those that have one.
    """
    where = plans.where
    tables = {kind: EventTable(kind, unknown) for kind in _KINDS}
    for event, handler in events_of(inside).items():
        here = f"on({event!r}) of {where}"
        if event == ERROR and protocol is None:
            raise ConfigurationError(
                f"{here}: symphony.v1 reserves the event 'error' for errors. Use another name."
            )
        plan = plans.plan(handler, here, payload=payload_of(event), pattern_names=names_in(event))
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
    publishes = {kind: wrap(middlewares, partial(publish_by_client, kind)) for kind in ("plain", "unpacked")}
    seen = {"json": "plain", "msgpack": "unpacked", "plain": "plain"}
    return EventHandlers(
        dialects,
        {
            kind: partial(_seen, chains[sees], publishes[sees], tables[kind].handle, _ANYTHING[kind])
            for kind, sees in seen.items()
        },
    )


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
