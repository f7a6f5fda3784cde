"""Reads the parameters of a function, with resolved annotations and marks."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from types import FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args, get_origin, get_type_hints

from symphony.errors import ConfigurationError
from symphony.protocol.annotations import unalias
from symphony.routing.markers import Depends, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = (
    "EMPTY",
    "Parameter",
    "located_name",
    "qualified_name",
    "read_parameters",
    "refuse_unbound",
    "remedy",
    "returned_type",
    "underlying",
)

EMPTY: Final[Any] = inspect.Parameter.empty
_OBJECTS: Final = ("self", "cls")
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_AWAITED: Final = (Awaitable, Coroutine)
_REMEDY: Final = (
    " Register the method of an object, `app.on('say')(chat.say)` after `chat = Chat()`, or move the "
    "function out of the class."
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter to fill.

    Attributes:
        name: Its name.
        annotation: Its resolved annotation, including marks, or `EMPTY`.
        default: Its default, or `EMPTY`.
        keyword_only: Whether it must be passed by name.
        is_first: Whether it is the first parameter of the function.
        depends: Its `Depends` mark.
        query: Its `Query` mark.
    """

    name: str
    annotation: Any
    default: Any
    keyword_only: bool
    is_first: bool
    depends: Depends | None
    query: Query | None


def qualified_name(call: Callable[..., Any]) -> str:
    """Return the full name of a callable for messages: `chat.handlers.say`."""
    while isinstance(call, functools.partial):
        call = cast("Callable[..., Any]", call.func)
    named = call if hasattr(call, "__qualname__") else type(call)
    return f"{named.__module__}.{named.__qualname__}"


def located_name(call: Callable[..., Any]) -> str:
    """Name a callable and say where it stands: `chat.handlers.say (/app/chat/handlers.py:12)`."""
    name = qualified_name(call)
    function: Any = inspect.unwrap(underlying(call))
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name


def underlying(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside a callable, whose kind can be inspected.

    For a partial or a static method this is its function, and for an object its
    `__call__`. A class is returned unchanged.
    """
    while isinstance(call, (functools.partial, staticmethod)):
        inner = call.func if isinstance(call, functools.partial) else call.__func__
        call = cast("Callable[..., Any]", inner)
    if isinstance(call, (type, FunctionType, MethodType)):
        return call
    method = type(call).__call__
    return method if isinstance(method, FunctionType) else call


def read_parameters(
    call: Callable[..., Any], *, where: str, is_factory: bool = False
) -> tuple[Parameter, ...]:
    """Return the parameters to fill, in order.

    Parameters that a `functools.partial` has bound by name are left out.

    Args:
        call: A function, method, partial, class or callable object.
        where: The name of the function in errors.
        is_factory: Whether `*args` and `**kwargs` stay empty, and a class without a
            readable signature, such as `dict`, has no parameters.

    Raises:
        ConfigurationError: The signature cannot be read, an annotation does
            not resolve, or a parameter is of a kind that cannot be filled.
    """
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        if is_factory and isinstance(call, type):
            return ()
        raise ConfigurationError(f"{where}: its signature cannot be read.") from None
    namespace = _namespace(call)
    bound: dict[str, Any] = call.keywords if isinstance(call, functools.partial) else {}
    parameters = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.name not in bound and not (is_factory and parameter.kind in _VARIADIC)
    ]
    return tuple(
        _read(parameter, namespace, is_first=index == 0, where=where)
        for index, parameter in enumerate(parameters)
    )


def returned_type(call: Callable[..., Any]) -> Any:
    """Return what a class or a function creates; `EMPTY` if its annotation does not tell."""
    function = underlying(call)
    if isinstance(function, type):
        return function
    annotation = getattr(inspect.unwrap(function), "__annotations__", {}).get("return", EMPTY)
    if annotation is EMPTY:
        return EMPTY
    holder = SimpleNamespace(__annotations__={"return": annotation})
    try:
        returned = unalias(get_type_hints(holder, _namespace(call))["return"])
    except Exception:
        # It may be importable for type checkers only.
        return EMPTY
    return get_args(returned)[-1] if get_origin(returned) in _AWAITED else returned


def refuse_unbound(
    call: Callable[..., Any], parameters: tuple[Parameter, ...], names: Collection[str], where: str
) -> None:
    """Refuse a method that was registered without its object, as in the body of a class.

    Args:
        call: The handler.
        parameters: Its parameters.
        names: The parameters that patterns fill.
        where: The name of the function in errors.

    Raises:
        ConfigurationError: It is such a method.
    """
    first = parameters[0] if parameters else None
    if first is None or isinstance(call, staticmethod) or first.annotation is not EMPTY:
        return
    function: Any = inspect.unwrap(underlying(call))
    if not isinstance(function, FunctionType):
        return
    owner = function.__qualname__.rpartition(".")[0]
    in_class = bool(owner) and not owner.endswith("<locals>")
    if first.name in _OBJECTS or (in_class and first.name != "socket" and first.name not in names):
        raise ConfigurationError(f"{where}: it is a method without its object.{_REMEDY}")


def remedy(call: object) -> str:
    """Return what to do about something that is not callable: a sentence, or nothing."""
    return _REMEDY if isinstance(call, classmethod) else ""


def _read(
    parameter: inspect.Parameter, namespace: dict[str, Any], *, is_first: bool, where: str
) -> Parameter:
    name = parameter.name
    if parameter.kind in _VARIADIC:
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise ConfigurationError(f"{where}: {star}{name} cannot be filled; name each parameter.")
    where = f"{where}, parameter {name!r}"
    _refuse_marked_default(name, parameter.default, where)
    annotation = _resolve(parameter, namespace, where)
    marks = _marks(annotation)
    for mark in marks:
        _refuse_foreign_mark(mark, where)
    found = [mark for mark in marks if isinstance(mark, (Depends, Query))]
    if len(found) > 1:
        raise ConfigurationError(f"{where}: it has {len(found)} of Depends() and Query(). Use only one.")
    mark = found[0] if found else None
    return Parameter(
        name=name,
        annotation=annotation,
        default=parameter.default,
        keyword_only=parameter.kind is parameter.KEYWORD_ONLY,
        is_first=is_first,
        depends=mark if isinstance(mark, Depends) else None,
        query=mark if isinstance(mark, Query) else None,
    )


def _marks(annotation: Any) -> tuple[Any, ...]:
    """Return the metadata of the outermost `Annotated`."""
    annotation = unalias(annotation)
    if get_origin(annotation) is not Annotated:
        return ()
    inner, *marks = get_args(annotation)
    return (*_marks(inner), *marks)


def _resolve(parameter: inspect.Parameter, namespace: dict[str, Any], where: str) -> Any:
    if parameter.annotation is EMPTY:
        return EMPTY
    # One parameter at a time: the error can name it, and the return annotation may
    # be importable for type checkers only.
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return get_type_hints(holder, namespace, include_extras=True)[parameter.name]
    except NameError as error:
        missing = f"the name {error.name!r} in it" if error.name else str(error)
        raise ConfigurationError(
            f"{where}: its annotation {parameter.annotation!r} cannot be resolved, because {missing} "
            "is not known at run time. Define it at the module's top level, and import it outside "
            "`if TYPE_CHECKING:`."
        ) from None
    except (AttributeError, SyntaxError, TypeError) as error:
        raise ConfigurationError(
            f"{where}: its annotation {parameter.annotation!r} cannot be resolved ({error})."
        ) from None


def _namespace(call: Callable[..., Any]) -> dict[str, Any]:
    """Return the names that a callable's string annotations may use."""
    function: Any = inspect.unwrap(underlying(call))
    if isinstance(function, type):
        init = vars(function).get("__init__") or vars(function).get("__new__")
        module = sys.modules.get(function.__module__)
        names: dict[str, Any] = dict(vars(module)) if module else {}
        function = init if isinstance(init, FunctionType) else None
    else:
        names = {}
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        return names
    names.update(function.__globals__)
    # A local class is in the closure if the body of the function uses it as well.
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def _refuse_marked_default(name: str, default: Any, where: str) -> None:
    _refuse_foreign_mark(default, where)
    if isinstance(default, (Depends, Query)):
        kind = type(default).__name__
        inner = qualified_name(default.call).rpartition(".")[2] if isinstance(default, Depends) else ""
        raise ConfigurationError(
            f"{where}: {kind}() is not a default value here. "
            f"Write `{name}: Annotated[<type>, {kind}({inner})]`."
        )


def _refuse_foreign_mark(mark: object, where: str) -> None:
    if mark is Depends or mark is Query:
        raise ConfigurationError(f"{where}: write {cast('type', mark).__name__}() with parentheses.")
    # Compare the name of the module, because FastAPI may not be installed. Its marks
    # look the same to a reader, and would be ignored silently.
    names = [base.__name__ for base in type(mark).__mro__ if base.__module__ == "fastapi.params"]
    if not names:
        return
    ours = next((name for name in names if name in ("Depends", "Query")), None)
    hint = f"Use Symphony's: `from symphony import {ours}`." if ours else "Symphony has Depends and Query."
    raise ConfigurationError(f"{where}: {names[0]} is FastAPI's and has no effect here. {hint}")
