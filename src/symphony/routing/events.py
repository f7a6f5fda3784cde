"""Hot path: find the handler of an event, and call it with its arguments."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Literal, cast

from msgspec import Raw

from symphony.errors import Reject
from symphony.protocol.actions import Action
from symphony.protocol.bounds import calm
from symphony.protocol.invalid import shortened
from symphony.protocol.reading import UNREADABLE, type_read_by, unreadable
from symphony.protocol.v1 import TypedV1
from symphony.routing.handlers import ANY_EVENT, EVENT_SEPARATOR, Handler
from symphony.routing.parameters import located_name
from symphony.routing.patterns import NamePattern, NameTable
from symphony.routing.plan import EVENT, NAMED_EVENT, Payload, Plan

__all__ = ("EventTable", "handler_names", "names_in", "payload_of")

Work = Coroutine[Any, Any, Any]

_ANY_NAMES: Final[Mapping[str, str]] = {"event": "str"}


class _Named:
    """The subject of a handler whose event has parameters."""

    __slots__ = ("data", "params")

    def __init__(self, data: Any, params: Mapping[str, Any]) -> None:
        self.data = data
        self.params = params


# Asked several times for each event when a route is compiled.
@lru_cache(maxsize=1024)
def names_in(event: str) -> Mapping[str, str]:
    """Return the parameters in the name of an event, with their converters."""
    return _ANY_NAMES if event == ANY_EVENT else NamePattern(event, separator=EVENT_SEPARATOR).converters


def handler_names(handlers: Mapping[str, Handler]) -> Callable[[str], str]:
    """Return what names the handler of an event, and where it stands.

    Args:
        handlers: By event or pattern; that of the messages of a raw route by `""`.
    """
    patterns = NameTable[Handler](separator=EVENT_SEPARATOR)
    for event, handler in handlers.items():
        if event and event != ANY_EVENT and names_in(event):
            patterns.add(event, handler)

    def name(event: str) -> str:
        matched = None if event in handlers else patterns.match(event)
        found = matched[0] if matched is not None else handlers.get(event) or handlers.get(ANY_EVENT)
        # Without a handler, middleware has answered.
        return f"handler {located_name(found.function)}" if found is not None else "message middleware"

    return name


def payload_of(event: str) -> Payload:
    """Return the source of the payload of an event's handler."""
    return NAMED_EVENT if names_in(event) else EVENT


class EventTable:
    """The event handlers of a route, for data of one kind.

    Args:
        kind: The value of `Protocol.payload`.
        unknown: Called with the name of an event without a handler, and the
            names and patterns of those that have one.
    """

    __slots__ = ("_any", "_exact", "_is_exact", "_kind", "_patterns", "_typed", "_types", "_unknown")

    def __init__(self, kind: str, unknown: Callable[[str, Iterable[str]], None]) -> None:
        self._kind = kind
        self._unknown = unknown
        # The reader of the data, and the function to call with the result. A closure
        # over both would add one call, which is 2 % of a request.
        self._exact: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Work]]] = {}
        self._patterns = NameTable[Callable[[Any, Any, Mapping[str, Any]], Work]](separator=EVENT_SEPARATOR)
        self._any: Callable[[Any, Any, Mapping[str, Any]], Work] | None = None
        self._is_exact = True
        self._typed: dict[Any, Callable[[Any, Any], Work]] = {}
        self._types: dict[str, Any] = {}

    def add(self, event: str, plan: Plan, call: Callable[[Any, Any], Work]) -> None:
        """Add a handler.

        Args:
            event: Its name or pattern.
            plan: Its compiled signature, for `payload_of(event)`.
            call: Calls the handler. The result is awaited.

        Raises:
            ConfigurationError: Another pattern matches the same names.
        """
        read: Callable[[Any], Any] = plan.reader[self._kind] if plan.reader is not None else _nothing
        if not names_in(event):
            self._exact[event] = (calm(read), call)
            self._types[event] = type_read_by(read)
            return

        self._is_exact = False
        read_calmly = calm(read)

        def run(socket: Any, data: Any, params: Mapping[str, Any]) -> Work:
            return call(socket, _Named(read_calmly(data), params))

        if event == ANY_EVENT:
            self._any = run
        else:
            self._patterns.add(event, run, f"handler {plan.location}")

    def add_action(self, action: Action, call: Callable[[Any, Any], Work]) -> None:
        """Add what runs for an action, called with the socket and the action's data."""
        self._exact[action] = (_unchanged, call)

    def protocol(self) -> TypedV1 | None:
        """Return the protocol that decodes these events and their data in one pass.

        Call it after all handlers have been added.

        Returns:
            The protocol, or `None` if names have parameters. The type of the
            data is then not known before the handler is found.
        """
        if not self._is_exact or not self._types:
            return None
        types = self._types
        protocol = TypedV1(cast("Literal['json', 'msgpack']", self._kind), types)
        for event, kind in protocol.classes.items():
            if types[event] is not Raw:
                self._typed[kind] = self._exact[event][1]
        return protocol

    def handle(self, socket: Any, event: Any) -> Work:
        """Call the handler of an event, and return its awaitable result.

        Args:
            socket: The socket of the client.
            event: An `Event`, or an object decoded by the table's `protocol`.

        Raises:
            Reject: There is no handler, or the data does not match its type.
        """
        typed = self._typed
        if type(event) in typed:
            return typed[type(event)](socket, event.data)
        try:
            found = self._exact.get(event.event)
            if found is None:
                return self._other(socket, event)
            read, call = found
            return call(socket, read(event.data))
        except UNREADABLE as error:
            # Only the reader raises these, because the handler has not started.
            raise unreadable(error) from None

    def _other(self, socket: Any, event: Any) -> Work:
        name = event.event
        found = self._patterns.match(name)
        if found is not None:
            return found[0](socket, event.data, found[1])
        if self._any is not None:
            return self._any(socket, event.data, {"event": name})
        self._unknown(name, chain(self._types, self._patterns.texts))
        shown = shortened(name)
        raise Reject("not_found", f"no handler for the event {shown!r}", details={"event": shown})


def _unchanged(data: Any) -> Any:
    """Return what is decoded already."""
    return data


def _nothing(data: Any) -> None:
    """Ignore the data, because the handler takes no payload."""
