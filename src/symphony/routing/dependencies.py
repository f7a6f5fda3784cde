"""Dependencies: compiled to a list of steps, and resolved for each call."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from symphony.errors import ConfigurationError
from symphony.routing.parameters import EMPTY, Parameter, qualified_name, read_parameters, underlying
from symphony.routing.results import is_awaitable
from symphony.routing.stage import Filler, Rules, belongs_to_call

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from symphony.routing.markers import Depends, Scope

__all__ = (
    "Argument",
    "Arguments",
    "Dependencies",
    "Step",
    "close_context",
    "resolve",
)

Argument = Filler | int
"""A filler, or the index of the step that provides the value."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The sources of the arguments of one function.

    Attributes:
        positional: The arguments passed by position.
        keywords: The arguments passed by name.
    """

    positional: tuple[Argument, ...]
    keywords: tuple[tuple[str, Argument], ...]

    def apply(self, call: Callable[..., Any], socket: Any, subject: Any, values: list[Any]) -> Any:
        """Fill the arguments and call the function."""
        positional = [
            values[argument] if isinstance(argument, int) else argument(socket, subject)
            for argument in self.positional
        ]
        if not self.keywords:
            return call(*positional)
        keywords = {
            name: values[argument] if isinstance(argument, int) else argument(socket, subject)
            for name, argument in self.keywords
        }
        return call(*positional, **keywords)

    def bind(self, call: Callable[..., Any], socket: Any, subject: Any) -> Callable[[list[Any]], Any]:
        """Fill all arguments but the values of steps; what is returned takes these, and calls *call*."""
        given = [None if isinstance(fill, int) else fill(socket, subject) for fill in self.positional]
        named = {
            name: None if isinstance(fill, int) else fill(socket, subject) for name, fill in self.keywords
        }

        def run(values: list[Any]) -> Any:
            for index, argument in enumerate(self.positional):
                if isinstance(argument, int):
                    given[index] = values[argument]
            for name, argument in self.keywords:
                if isinstance(argument, int):
                    named[name] = values[argument]
            return call(*given, **named)

        return run


@dataclass(frozen=True, slots=True)
class Step:
    """One dependency of a plan.

    Attributes:
        key: The key of its value in a `SocketScope`.
        call: Returns the value, or a context manager that provides it.
        kind: The kind of result of `call`: the value (or an awaitable of it),
            or a context manager.
        scope: How long the value lives.
        arguments: The arguments of `call`.
    """

    key: Hashable
    call: Callable[..., Any]
    kind: Literal["value", "context", "async context"]
    scope: Scope
    arguments: Arguments

    @property
    def is_plain(self) -> bool:
        """Whether it can be opened in the thread of a handler: a plain function that lives for one call."""
        is_async = self.kind == "async context" or inspect.iscoroutinefunction(underlying(self.call))
        return self.scope == "call" and not is_async

    async def provide(self, socket: Any, subject: Any, values: list[Any], stack: AsyncExitStack) -> Any:
        """Return the value: of scope `"socket"` that of the socket, else a new one."""
        if self.scope == "socket":
            return await socket._scope.provide(self.key, partial(self.open, socket, subject, values))
        return await self.open(socket, subject, values, stack)

    async def open(self, socket: Any, subject: Any, values: list[Any], stack: AsyncExitStack) -> Any:
        """Create the value, and register its cleanup on *stack*."""
        made = self.arguments.apply(self.call, socket, subject, values)
        if self.kind == "context":
            value = made.__enter__()
            stack.push(partial(close_context, made))
            return value
        if self.kind == "async context":
            value = await made.__aenter__()
            stack.push_async_exit(partial(_exit_async, made))
            return value
        # Check the result, not the function: a plain function, such as a lambda,
        # may return the coroutine of an async function.
        return await made if is_awaitable(made) else made


# Not `enter_context`: a dependency sees the handler's error and may raise another
# one, but it must not suppress it. Otherwise the outer dependencies would commit a
# failed call, and the client would be told that it succeeded.
def close_context(manager: Any, *error: Any) -> None:
    """Leave a context manager, which cannot suppress the error."""
    manager.__exit__(*error)


async def _exit_async(manager: Any, *error: Any) -> None:
    await manager.__aexit__(*error)


async def resolve(steps: tuple[Step, ...], socket: Any, subject: Any, stack: AsyncExitStack) -> list[Any]:
    """Create the values of all steps, in order.

    Args:
        steps: The steps of a plan. Each step comes after the steps it needs.
        socket: The socket of the call.
        subject: The subject of the call.
        stack: Cleans up the values of scope `"call"`.

    Returns:
        The values, at the indexes of their steps.
    """
    values: list[Any] = []
    for step in steps:
        values.append(await step.provide(socket, subject, values, stack))
    return values


class Dependencies:
    """Collects the dependencies of one plan, each of them once.

    Args:
        rules: Fill the parameters of dependencies.
        overrides: Functions to call instead of dependencies. They are read
            while plans are compiled, so a later change has no effect.
    """

    def __init__(self, rules: Rules, overrides: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        self._rules = rules
        self._overrides = overrides
        self._steps: list[Step] = []
        self._indexes: dict[tuple[Hashable, Scope], int] = {}
        self._path: list[Depends] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far. Each step comes after the steps it needs."""
        return tuple(self._steps)

    def add(self, depends: Depends, where: str) -> int:
        """Compile a dependency and the dependencies it needs.

        Args:
            depends: The mark of the parameter.
            where: The name of that parameter in errors.

        Returns:
            The index of its step.

        Raises:
            ConfigurationError: A parameter cannot be filled, the dependency
                needs itself, or it would outlive a dependency that it needs.
        """
        key = _key(depends.call)
        index = self._indexes.get((key, depends.scope))
        if index is not None:
            return index
        self._refuse_circle(depends, where)
        if depends.scope == "socket":
            self._rules.require_socket(where)
        call = self._overrides.get(key, depends.call)
        where = f"{where}: dependency {qualified_name(call)}"
        self._path.append(depends)
        arguments = self._arguments(call, depends.scope, where)
        self._path.pop()
        opened, kind = _opened(call, where)
        self._steps.append(Step(key, opened, kind, depends.scope, arguments))
        index = self._indexes[key, depends.scope] = len(self._steps) - 1
        return index

    def _arguments(self, call: Callable[..., Any], scope: Scope, where: str) -> Arguments:
        positional: list[Argument] = []
        keywords: list[tuple[str, Argument]] = []
        parameters = read_parameters(call, where=where)
        siblings = [parameter.name for parameter in parameters]
        for parameter in parameters:
            argument = self._argument(parameter, siblings, scope, f"{where}, parameter {parameter.name!r}")
            if parameter.keyword_only:
                keywords.append((parameter.name, argument))
            else:
                positional.append(argument)
        return Arguments(tuple(positional), tuple(keywords))

    def _argument(self, parameter: Parameter, siblings: list[str], scope: Scope, where: str) -> Argument:
        if parameter.depends is not None:
            if scope == "socket" and parameter.depends.scope == "call":
                raise ConfigurationError(
                    f"{where}: a dependency with scope='socket' outlives one with scope='call', and cannot "
                    f"use {qualified_name(parameter.depends.call)}. Give both the same scope."
                )
            return self.add(parameter.depends, where)
        filler = self._rules.fill(parameter, where)
        if filler is None:
            instead = f"For a query parameter of that name write {self._rules.shown_query(parameter)}."
            likely = parameter.default is EMPTY
            self._rules.refuse_misspelled(parameter, siblings, where, instead=instead, likely=likely)
            return self._rules.read_query(parameter, where)
        if scope == "socket" and belongs_to_call(filler):
            raise ConfigurationError(
                f"{where}: a dependency with scope='socket' outlives this call, and cannot use its "
                "values. Give it scope='call'."
            )
        return filler

    def _refuse_circle(self, depends: Depends, where: str) -> None:
        key = _key(depends.call)
        for start, earlier in enumerate(self._path):
            if _key(earlier.call) == key:
                circle = " -> ".join(qualified_name(each.call) for each in (*self._path[start:], depends))
                raise ConfigurationError(f"{where}: these dependencies form a cycle: {circle}.")


def _key(call: Callable[..., Any]) -> Any:
    try:
        hash(call)
    except TypeError:
        return id(call)
    return call


def _opened(
    call: Callable[..., Any], where: str
) -> tuple[Callable[..., Any], Literal["value", "context", "async context"]]:
    function = underlying(call)
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(call), "async context"
    if inspect.isgeneratorfunction(function):
        return contextmanager(call), "context"
    wrapped = inspect.unwrap(function)
    if wrapped is not function and (
        inspect.isasyncgenfunction(wrapped) or inspect.isgeneratorfunction(wrapped)
    ):
        raise ConfigurationError(
            f"{where}: a decorator hides that it is a generator. Depends opens and closes generators itself. "
            "Remove @asynccontextmanager or @contextmanager."
        )
    return call, "value"
