"""Hot path: compile the signature of a handler once, to a plan that calls it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, cast

from symphony.errors import ConfigurationError
from symphony.protocol.reading import event_readers
from symphony.routing.dependencies import Argument, Arguments, Dependencies, Step, resolve
from symphony.routing.parameters import (
    EMPTY,
    Parameter,
    located_name,
    qualified_name,
    read_parameters,
    refuse_unbound,
    remedy,
    underlying,
)
from symphony.routing.payload import payload_reader
from symphony.routing.results import is_awaitable, keeping
from symphony.routing.stage import Filler, Known, Rules, the_data, the_socket, the_subject
from symphony.routing.threads import ThreadRunner, in_thread

__all__ = (
    "EVENT",
    "MESSAGE",
    "NAMED_EVENT",
    "Payload",
    "Plan",
    "compile_middleware",
    "compile_plan",
)

_NO_NAMES: Final[Mapping[str, str]] = {}


class Payload(NamedTuple):
    """The source of the payload of a stage.

    Attributes:
        compile: Compiles the reader for the type of the parameter.
        filler: Returns the decoded payload during a call.
    """

    compile: Callable[[Any], Any]
    filler: Filler


MESSAGE: Final = Payload(payload_reader, the_subject)
"""A whole message."""
EVENT: Final = Payload(event_readers, the_subject)
"""The data of an event."""
NAMED_EVENT: Final = Payload(event_readers, the_data)
"""The data of an event whose name has parameters."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to call one handler.

    Attributes:
        call: Takes the socket and the subject of the call. For message handlers,
            the subject is the payload that `reader` has returned. Filling the
            arguments may raise `Reject` before there is a coroutine.
        is_async: Whether `call` returns a coroutine. This includes plain
            handlers that have dependencies or run in a thread. Otherwise its
            result may be awaitable: see `routing/results.py`.
        is_async_function: Whether the handler itself is `async def`.
        is_generator: Whether `call` returns an async generator.
        reader: The compiled reader of the payload. `None` if the payload is
            passed unchanged, or not at all.
        payload: The annotation of the payload, or `EMPTY`.
        thread: Whether the handler runs in a thread.
        name: The handler's qualified name, for logs.
        location: The same, with its file and line.
    """

    call: Callable[[Any, Any], Any]
    is_async: bool
    is_async_function: bool
    is_generator: bool
    reader: Any
    payload: Any
    thread: bool
    name: str
    location: str


def compile_plan(
    handler: Callable[..., Any],
    *,
    where: str,
    known: Known,
    path_names: Mapping[str, str] = _NO_NAMES,
    pattern_names: Mapping[str, str] = _NO_NAMES,
    payload: Payload | None = None,
    query: bool = False,
    overrides: Mapping[Callable[..., Any], Callable[..., Any]],
    thread: ThreadRunner | None = None,
    is_factory: bool = False,
) -> Plan:
    """Compile a handler's signature.

    A parameter is filled by the first rule that applies:

    1. its annotation: a known type, `Query()` or `Depends()`
    2. its name, if a pattern has a parameter of that name
    3. a query parameter or the payload, if the stage has these
    4. its default

    Args:
        handler: A function, method, partial or callable object; plain, async
            or an async generator.
        where: What the handler does, for errors: "on_message of route '/'".
        known: The annotations that are filled automatically.
        path_names: The parameters of the route's path with their converters,
            read from `socket.params`.
        pattern_names: The parameters of the subject's pattern, read from
            `subject.params`.
        payload: The source for the one remaining parameter, or `None`.
        query: Whether remaining parameters are query parameters.
        overrides: Functions to call instead of dependencies. They are applied
            now, so a later change has no effect on this plan.
        thread: Runs the handler in a thread, together with its plain
            dependencies. Everything else is filled and opened outside of it.
        is_factory: Whether it is a class or a function that creates something. It is
            called without the parameters that nothing fills, if these have defaults.

    Raises:
        ConfigurationError: A parameter cannot be filled, or this kind of
            handler cannot be called here. The message names the handler and
            the parameter, and says what to do.
    """
    if not callable(handler):
        raise ConfigurationError(f"{where}: a handler is a function, not {handler!r}.{remedy(handler)}")
    name = qualified_name(handler)
    where = f"{where}: handler {located_name(handler)}"
    is_async, is_generator = _kind(handler, where, in_thread=thread is not None)
    for twice in path_names.keys() & pattern_names.keys():
        raise ConfigurationError(f"{where}: {{{twice}}} is a parameter of two patterns. Rename one of them.")
    rules = Rules(known, path_names, pattern_names)
    dependencies = Dependencies(rules, overrides)
    compiler = _Compiler(rules, dependencies, where, payload=payload, query=query, is_factory=is_factory)
    parameters = read_parameters(handler, where=where, is_factory=is_factory)
    refuse_unbound(handler, parameters, {*path_names, *pattern_names}, where)
    arguments = compiler.arguments(parameters)
    steps = dependencies.steps
    if is_generator and steps:
        call = _streaming(handler, arguments, steps)
    elif thread is not None:
        call = in_thread(handler, arguments, steps, thread)
    elif steps:
        call = _running(handler, arguments, steps)
    else:
        call = _direct(handler, arguments)
    return Plan(
        call=call,
        is_async=not is_generator and (is_async or bool(steps) or thread is not None),
        is_async_function=is_async,
        is_generator=is_generator,
        reader=compiler.reader,
        payload=compiler.payload,
        thread=thread is not None,
        name=name,
        location=located_name(handler),
    )


def compile_middleware(
    middleware: Callable[..., Awaitable[Any]],
    given: int,
    *,
    where: str,
    known: Known,
    path_names: Mapping[str, str],
    overrides: Mapping[Callable[..., Any], Callable[..., Any]],
) -> Callable[..., Awaitable[Any]]:
    """Fill the parameters of a middleware that its stage does not.

    They are filled as those of a handler, but for the query string: a query
    parameter is marked with `Query()`. Dependencies stay open until the
    middleware returns, so while the handler runs.

    Args:
        middleware: An async function.
        given: How many arguments its stage gives, the socket first and
            `call_next` last.
        where: What it does, for errors.
        known: The annotations filled by themselves.
        path_names: The parameters of the route's path with their converters.
        overrides: What to call instead of dependencies.

    Returns:
        What is called with the *given* arguments.

    Raises:
        ConfigurationError: A parameter cannot be filled.
    """
    rest = partial(middleware, *[None] * given)
    remaining = inspect.signature(rest).parameters.values()
    if all(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in remaining):
        return middleware
    where = f"{where}: middleware {qualified_name(middleware)}"
    parameters = read_parameters(rest, where=where)
    rules = Rules(known, path_names, _NO_NAMES)
    dependencies = Dependencies(rules, overrides)
    compiler = _Compiler(rules, dependencies, where, payload=None, query=False)
    arguments, steps = compiler.arguments(parameters), dependencies.steps

    async def call(socket: Any, *rest: Any) -> Any:
        subject = rest[0]
        async with AsyncExitStack() as stack:
            values = await resolve(steps, socket, subject, stack)
            return await arguments.apply(partial(middleware, socket, *rest), socket, subject, values)

    return call


class _Compiler:
    """Chooses the source of each parameter of one handler, in order."""

    def __init__(
        self,
        rules: Rules,
        dependencies: Dependencies,
        where: str,
        *,
        payload: Payload | None,
        query: bool,
        is_factory: bool = False,
    ) -> None:
        self.reader: Any = None
        self.payload: Any = EMPTY
        self._rules = rules
        self._dependencies = dependencies
        self._where = where
        self._source = payload
        self._takes_query = query
        self._is_factory = is_factory
        self._payload_name: str | None = None

    def arguments(self, parameters: tuple[Parameter, ...]) -> Arguments:
        positional: list[Argument] = []
        keywords: list[tuple[str, Argument]] = []
        siblings = [parameter.name for parameter in parameters]
        left_out = False
        for parameter in parameters:
            argument = self._argument(parameter, siblings)
            if argument is None:
                left_out = True
            elif parameter.keyword_only or left_out:
                keywords.append((parameter.name, argument))
            else:
                positional.append(argument)
        return Arguments(tuple(positional), tuple(keywords))

    def _argument(self, parameter: Parameter, siblings: list[str]) -> Argument | None:
        where = f"{self._where}, parameter {parameter.name!r}"
        if parameter.depends is not None:
            return self._dependencies.add(parameter.depends, where)
        filler = self._rules.fill(parameter, where)
        if filler is not None:
            return filler
        required = parameter.default is EMPTY
        if self._is_factory and not required:
            # Not the default itself: what a signature shows may stand for a default factory.
            return None
        if self._takes_query:
            instead = f"For a query parameter of that name write {self._rules.shown_query(parameter)}."
            self._rules.refuse_misspelled(parameter, siblings, where, instead=instead, likely=required)
            return self._rules.read_query(parameter, where)
        is_payload = self._source is not None and self._payload_name is None
        instead = (
            "If it is the payload, give it another name." if is_payload else "If not, give it another name."
        )
        likely = required and not is_payload
        self._rules.refuse_misspelled(parameter, siblings, where, instead=instead, likely=likely)
        if self._source is not None and (required or self._payload_name is None):
            return self._payload(self._source, parameter, siblings, where)
        if not required:
            return lambda socket, subject: parameter.default
        raise ConfigurationError(f"{where}: nothing fills it. Either {self._rules.describe()}.")

    def _payload(self, source: Payload, parameter: Parameter, siblings: list[str], where: str) -> Argument:
        if self._payload_name is not None:
            raise ConfigurationError(
                f"{where}: {self._payload_name!r} is already the payload, and a handler has only one. "
                f"{self._rules.unused(siblings)}"
                f"For a query parameter, write {self._rules.shown_query(parameter)}. "
                "For several fields of the payload, use one type with these fields. "
                f"Otherwise {self._rules.describe()}."
            )
        self._payload_name = parameter.name
        self.payload = parameter.annotation
        self._rules.refuse_in_payload(parameter, where)
        try:
            self.reader = source.compile(parameter.annotation)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{where}: {error}. It is taken for the payload because nothing else fills it. "
                f"If that is wrong, {self._rules.describe()}."
            ) from None
        return source.filler


def _kind(handler: Callable[..., Any], where: str, *, in_thread: bool) -> tuple[bool, bool]:
    function = underlying(handler)
    if inspect.isgeneratorfunction(function):
        raise ConfigurationError(
            f"{where}: it is a plain generator. Write an async generator, with `async def`."
        )
    is_async = inspect.iscoroutinefunction(function)
    is_generator = inspect.isasyncgenfunction(function)
    if in_thread and (is_async or is_generator):
        raise ConfigurationError(f"{where}: thread=True is for a plain `def`, and this handler is async.")
    return is_async, is_generator


def _direct(handler: Callable[..., Any], arguments: Arguments) -> Callable[[Any, Any], Any]:
    """Return a function that calls a handler without dependencies.

    For the signatures of nearly all message handlers, it has no loop and
    builds no list during a call.
    """
    # Calling an async handler and stepping it to its end, best of 5 x 200,000 on a
    # busy 2-core machine (Python 3.11, 2026-11-23): 0.52 us without a plan, the same
    # with the plan for (socket, message) and (message,), 0.64 with one path parameter
    # between them, 1.7 with the list, 4.0 with a plain dependency, 7.4 with an async
    # generator as a dependency.
    fillers: list[Filler] = [filler for filler in arguments.positional if not isinstance(filler, int)]
    if arguments.keywords:
        return lambda socket, subject: arguments.apply(handler, socket, subject, [])
    match fillers:
        case [first, second] if first is the_socket and second is the_subject:
            return handler
        case [first, second] if first is the_subject and second is the_socket:
            return lambda socket, subject: handler(subject, socket)
        case [first] if first is the_subject:
            return lambda socket, subject: handler(subject)
        case [first] if first is the_socket:
            return lambda socket, subject: handler(socket)
        case []:
            return lambda socket, subject: handler()
        case [first, second, third] if first is the_socket and third is the_subject:
            return lambda socket, subject: handler(socket, second(socket, subject), subject)
        case _:
            return lambda socket, subject: handler(*[fill(socket, subject) for fill in fillers])


def _running(
    handler: Callable[..., Any], arguments: Arguments, steps: tuple[Step, ...]
) -> Callable[[Any, Any], Any]:
    async def call(socket: Any, subject: Any) -> Any:
        async with AsyncExitStack() as stack:
            values = await resolve(steps, socket, subject, stack)
            result = arguments.apply(handler, socket, subject, values)
            # Await here. Otherwise the dependencies of a plain handler that returns a
            # coroutine would be closed before the coroutine runs.
            if is_awaitable(result):
                result = await result
            if inspect.isasyncgen(result):
                result = keeping(stack.pop_all(), cast("AsyncGenerator[Any]", result))
                await anext(result)
            return result

    return call


def _streaming(
    handler: Callable[..., Any], arguments: Arguments, steps: tuple[Step, ...]
) -> Callable[[Any, Any], Any]:
    async def call(socket: Any, subject: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            values = await resolve(steps, socket, subject, stack)
            async with aclosing(arguments.apply(handler, socket, subject, values)) as items:
                async for item in items:
                    yield item

    return call
