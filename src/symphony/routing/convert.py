"""Readers that convert one parameter of the query string."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from inspect import Parameter
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast, get_args, get_origin
from uuid import UUID

import msgspec

from symphony.errors import ConfigurationError, Reject
from symphony.protocol.annotations import bare, is_pydantic, is_union, metadata

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

__all__ = ("MISSING", "QueryReader", "query_reader")

QueryReader = Callable[["QueryParams"], Any]

MISSING: Final[Any] = Parameter.empty

_SHOWN: Final = 50
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_BOOLEANS: Final[Mapping[str, bool]] = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_COLLECTIONS: Final[tuple[type, ...]] = (list, set, frozenset, tuple)


class _Scalar(NamedTuple):
    """The conversion of one value; `convert` raises `ValueError`."""

    convert: Callable[[str], Any]
    expected: str


def query_reader(name: str, annotation: Any, default: Any = MISSING) -> QueryReader:
    """Compile the reader of one query parameter.

    If a key is repeated, a single value is the last one, and a collection
    contains all of them. `X | None` without a default is `None` if the key is
    missing. Bounds of `msgspec.Meta` are checked.

    Args:
        name: The key in the query string.
        annotation: `str`, `int`, `float`, `bool`, `UUID`, an `Enum`, a
            `Literal`, a `list`, `set`, `frozenset` or `tuple[X, ...]` of
            these, and any of them `| None`.
        default: The value if the key is missing. With `MISSING`, a request
            without the key is refused.

    Returns:
        A function that takes the query parameters and returns the value. It
        raises `Reject("invalid")`, which names the parameter.

    Raises:
        ConfigurationError: The type is not supported in a query string.
    """
    inner, optional = _without_none(annotation)
    fallback = None if optional and default is MISSING else default
    check = _bounds(name, annotation)
    origin = get_origin(inner) or inner
    if origin in _COLLECTIONS:
        collect = cast("type[list[Any]]", origin)
        convert = _converter(name, _scalar(_item_of(inner, annotation), annotation))

        def read_all(query: QueryParams) -> Any:
            values = query.getlist(name)
            if not values:
                return _missing(name, fallback)
            return check(collect([convert(value) for value in values]))

        return read_all
    convert = _converter(name, _scalar(inner, annotation))

    def read(query: QueryParams) -> Any:
        value = query.get(name)
        if value is None:
            return _missing(name, fallback)
        return check(convert(value))

    return read


def _missing(name: str, fallback: Any) -> Any:
    if fallback is MISSING:
        raise Reject("invalid", f"query parameter {name!r} is missing", details={"parameter": name})
    return fallback


def _converter(name: str, scalar: _Scalar) -> Callable[[str], Any]:
    convert, expected = scalar

    def convert_or_reject(value: str) -> Any:
        try:
            return convert(value)
        except ValueError:
            shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
            raise Reject(
                "invalid",
                f"query parameter {name!r} must be {expected}, not {shown!r}",
                details={"parameter": name},
            ) from None

    return convert_or_reject


def _bounds(name: str, annotation: Any) -> Callable[[Any], Any]:
    """Return a check of the `msgspec.Meta` bounds, if there are any."""
    marks = metadata(annotation)
    if any(map(is_pydantic, marks)):
        raise ConfigurationError(
            "write the bounds of query parameters with msgspec.Meta, not with pydantic's Field"
        )
    if not any(isinstance(mark, msgspec.Meta) for mark in marks):
        return lambda value: value
    try:
        msgspec.json.Decoder(annotation)
    except TypeError as error:
        raise ConfigurationError(str(error)) from None

    def check(value: Any) -> Any:
        try:
            return msgspec.convert(value, annotation)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at ")[0]
            raise Reject(
                "invalid", f"query parameter {name!r}: {reason}", details={"parameter": name}
            ) from None

    return check


def _without_none(annotation: Any) -> tuple[Any, bool]:
    inner = bare(annotation)
    if not is_union(inner):
        return inner, False
    options = [option for option in get_args(inner) if option is not type(None)]
    if len(options) > 1:
        raise _unsupported(annotation)
    return bare(options[0]), True


def _item_of(collection: Any, annotation: Any) -> Any:
    arguments = get_args(collection)
    if get_origin(collection) is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        raise _unsupported(annotation)
    return bare(arguments[0]) if arguments else str


def _scalar(kind: Any, annotation: Any) -> _Scalar:
    if kind in (str, Any, object, MISSING):
        return _Scalar(str, "text")
    if kind in _SCALARS:
        return _SCALARS[kind]
    if get_origin(kind) is Literal:
        return _choice({_text_of(choice, annotation): choice for choice in reversed(get_args(kind))})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _choice({_text_of(member, annotation): member for member in reversed(list(kind))})
    raise _unsupported(annotation)


def _text_of(choice: object, annotation: Any) -> str:
    value: object = choice.value if isinstance(choice, Enum) else choice
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int)):
        return str(value)
    raise _unsupported(annotation)


def _choice(choices: dict[str, Any]) -> _Scalar:
    def choose(value: str) -> Any:
        if value not in choices:
            raise ValueError
        return choices[value]

    return _Scalar(choose, "one of " + ", ".join(map(repr, reversed(choices))))


def _integer(value: str) -> int:
    # `int` alone would accept '1_000', ' 5 ' and digits of every script. It raises
    # ValueError itself above Python's limit of 4,300 digits.
    if not _INTEGER.fullmatch(value):
        raise ValueError
    return int(value)


def _number(value: str) -> float:
    if not _NUMBER.fullmatch(value) or not isfinite(number := float(value)):
        raise ValueError
    return number


def _boolean(value: str) -> bool:
    if value.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[value.lower()]


def _uuid(value: str) -> UUID:
    if not _UUID.fullmatch(value):
        raise ValueError
    return UUID(value)


_SCALARS: Final[Mapping[Any, _Scalar]] = {
    int: _Scalar(_integer, "an integer"),
    float: _Scalar(_number, "a number"),
    bool: _Scalar(_boolean, "true or false"),
    UUID: _Scalar(_uuid, "a UUID"),
}


def _unsupported(annotation: Any) -> ConfigurationError:
    return ConfigurationError(
        f"{annotation!r} is not supported in a query string; use str, int, float, bool, UUID, an Enum, "
        "a Literal, a list, set, frozenset or tuple[X, ...] of these, or any of them | None"
    )
