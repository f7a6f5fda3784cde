"""The handlers that a program registers for events, compiled once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, get_type_hints

from symphony.client.arrivals import Publication
from symphony.client.payload import Decoding, check_type, message_reader, reader
from symphony.errors import ConfigurationError
from symphony.protocol.positions import Position
from symphony.protocol.v1 import MAX_NAME

__all__ = ("ANY", "Handler", "Handlers", "check_name")

ANY: Final = "*"
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler:
    """One registered handler.

    Attributes:
        function: The function, as it was registered.
        name: Its qualified name, for messages.
    """

    __slots__ = ("_annotation", "_publication", "_takes", "function", "name")

    def __init__(self, event: str, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = _name(function)
        self._publication = _publication_in(function, self.name)
        self._takes, data = _shape(event, function, self.name, self._publication)
        self._annotation = Any if data is None else _annotation(function, data, self.name)
        try:
            check_type(self._annotation)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.name}: {error}.") from None

    @property
    def located_name(self) -> str:
        """The name, and where the function stands."""
        code = getattr(_plain(self.function), "__code__", None)
        return f"{self.name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else self.name

    def call(
        self,
        event: str,
        data: Any,
        decoding: Decoding,
        position: Position | None = None,
        replaces: Position | None = None,
    ) -> Any:
        """Call it with the data of an event; return its result, perhaps an awaitable.

        Args:
            event: The name of the event.
            data: Its data, still encoded.
            decoding: How it is decoded.
            position: Where it stands in the history of a room, if it does.
            replaces: What it replaces there.

        Raises:
            InvalidError: The data does not have the annotated type.
        """
        more: dict[str, Publication] = {}
        if self._publication is not None:
            plain = reader(Any, decoding)(data)
            more[self._publication] = Publication(event, plain, position, replaces)
        if self._takes == 0:
            return self.function(**more)
        value = reader(self._annotation, decoding)(data)
        return self.function(event, value, **more) if self._takes == 2 else self.function(value, **more)

    def call_with_message(self, event: str, message: str | bytes, max_elements: int) -> Any:
        """Call it with a message of a raw connection; otherwise like `call`."""
        if self._takes == 0:
            return self.function()
        value = message_reader(self._annotation, max_elements)(message)
        return self.function(event, value) if self._takes == 2 else self.function(value)


class Handlers:
    """The handlers of one client, by the name of their event."""

    __slots__ = ("_by_event",)

    def __init__(self) -> None:
        self._by_event: dict[str, tuple[Handler, ...]] = {}

    def add(self, event: str, function: Callable[..., Any]) -> None:
        """Register a function, after those already registered.

        Raises:
            ConfigurationError: It cannot be called with an event's data, or its
                annotation is not a type that can be decoded.
            ValueError: The name is not valid.
        """
        check_name(event)
        if not callable(function):
            raise ConfigurationError(f"A handler must be a function, not {function!r}.")
        self._by_event[event] = (*self._by_event.get(event, ()), Handler(event, function))

    def remove(self, event: str, function: Callable[..., Any]) -> None:
        """Remove a function; if it is not registered, nothing happens."""
        left = tuple(one for one in self._by_event.get(event, ()) if one.function != function)
        self._by_event[event] = left

    @property
    def events(self) -> list[str]:
        """The names that have a handler."""
        return [event for event, handlers in self._by_event.items() if handlers]

    def of(self, event: str) -> tuple[Handler, ...]:
        """Return the handlers of an event, or those of `"*"` if it has none."""
        return self._by_event.get(event) or self._by_event.get(ANY, ())


def check_name(event: str) -> None:
    """Check the name of an event.

    Raises:
        TypeError: It is not text.
        ValueError: It is empty or too long.
    """
    if not isinstance(event, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        hint = " Write @client.on('said')." if callable(event) else ""
        raise TypeError(f"The name of an event is text, not {event!r}.{hint}")
    if not 0 < len(event) <= MAX_NAME:
        raise ValueError(f"The name of an event must have 1 to {MAX_NAME} characters, not {event!r}.")


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    named: Any = function if hasattr(function, "__qualname__") else type(function)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return f"{getattr(named, '__module__', '')}.{named.__qualname__}".lstrip(".")


def _publication_in(function: Callable[..., Any], name: str) -> str | None:
    """Return the parameter that is annotated with `Publication`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    for parameter in parameters:
        given = parameter.annotation
        if isinstance(given, str) and "Publication" in given:
            given = _annotation(function, parameter, name)
        if given is Publication:
            return parameter.name
    return None


def _shape(
    event: str, function: Callable[..., Any], name: str, publication: str | None
) -> tuple[int, inspect.Parameter | None]:
    """Return the number of arguments of a handler, and the parameter for the data."""
    try:
        parameters = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name != publication
        ]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name}: its signature cannot be read.") from None
    most = 2 if event == ANY else 1
    taking = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return most, taking[most - 1] if len(taking) >= most else None
    required = [
        parameter
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    if 0 < len(taking) < most or any(one not in taking[:most] for one in required):
        wanted = "(event, data)" if event == ANY else "(data)"
        raise ConfigurationError(
            f"{name}: a handler of {event!r} is called with {wanted}, or without arguments. "
            "A parameter that is annotated with Publication gets the publication of a room."
        )
    return min(len(taking), most), taking[most - 1] if taking else None


def _annotation(function: Any, parameter: inspect.Parameter, name: str) -> Any:
    if parameter.annotation is inspect.Parameter.empty:
        return Any
    holder = type("holder", (), {"__annotations__": {parameter.name: parameter.annotation}})
    try:
        return get_type_hints(holder, _namespace(function), {}, include_extras=True)[parameter.name]
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise ConfigurationError(
            f"{name}, parameter {parameter.name!r}: its annotation {parameter.annotation!r} cannot be "
            f"resolved ({error}). Define it at the module's top level, outside `if TYPE_CHECKING:`."
        ) from None


def _namespace(function: Any) -> dict[str, Any]:
    """Return the namespace in which a function's string annotations are resolved."""
    function = _plain(function)
    if not isinstance(function, FunctionType):
        return {}
    names: dict[str, Any] = dict(function.__globals__)
    # A local class is in the closure if the body uses it, too.
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def _plain(function: Any) -> Any:
    """Return the function inside of partials, methods, callable objects and decorators."""
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(function, FunctionType) and not hasattr(function, "__func__"):  # pyright: ignore[reportUnknownArgumentType]
        function = type(function).__call__  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return inspect.unwrap(getattr(function, "__func__", function))  # pyright: ignore[reportUnknownArgumentType]
