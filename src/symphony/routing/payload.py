"""Readers that turn a message into the payload type of a handler."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Any, Final, get_args

import msgspec

from symphony.errors import ConfigurationError, ProtocolError, Reject
from symphony.routing.annotations import bare, is_pydantic, is_union, metadata

__all__ = ("Reader", "payload_reader")

Reader = Callable[[str | bytes], Any]

_UNSUPPORTED_DATA: Final = 1003  # RFC 6455 §7.4.1: a type of data the endpoint cannot accept
_SHOWN: Final = 200
_PATH: Final = re.compile(r"(.*) - at (?:`key` in )?`([^`]*)`", re.DOTALL)


def payload_reader(annotation: Any) -> Reader | None:
    """Compile the reader of a payload type.

    `str` takes text messages only and `bytes` binary ones only; the other kind
    is a `ProtocolError` with close code 1003. Every other type is decoded from
    JSON, text and binary alike, and validated; what fails is
    `Reject("invalid")` whose details hold the `path` of the fault.

    Args:
        annotation: The type. `str | bytes`, `Any`, `object` and nothing at
            all (`inspect.Parameter.empty`) take every message as it is.

    Returns:
        The reader, or `None` where the message is passed unchanged.

    Raises:
        ConfigurationError: Neither msgspec nor pydantic can decode the type.
    """
    plain = bare(annotation)
    if plain in (Any, object, Parameter.empty):
        return None
    if is_union(plain) and set(get_args(plain)) == {str, bytes}:
        if _has_bounds(annotation):
            raise ConfigurationError("bounds cannot be put on str | bytes; put them on str or on bytes")
        return None
    if plain is str or plain is bytes:
        return _message_reader(plain, annotation)
    types = list(_types_in(annotation))
    if any(map(is_pydantic, (*types, *metadata(annotation)))):
        return _pydantic_reader(annotation)
    return _msgspec_reader(annotation)


def _message_reader(kind: type[Any], annotation: Any) -> Reader:
    """Return the reader of a message that is the payload itself."""
    refusal = f"this route takes {'text' if kind is str else 'binary'} messages only"

    def read(message: str | bytes) -> Any:
        if not isinstance(message, kind):
            raise ProtocolError(_UNSUPPORTED_DATA, refusal)
        return message

    if not _has_bounds(annotation):
        return read

    def read_bounded(message: str | bytes) -> Any:
        try:
            return msgspec.convert(read(message), annotation)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from None

    return read_bounded


def _has_bounds(annotation: Any) -> bool:
    marks = metadata(annotation)
    if any(map(is_pydantic, marks)):
        raise ConfigurationError(
            "bounds of text and bytes are written with msgspec.Meta, not pydantic's Field"
        )
    return any(isinstance(mark, msgspec.Meta) for mark in marks)


def _msgspec_reader(annotation: Any) -> Reader:
    try:
        decode = msgspec.json.Decoder(annotation).decode
        info = msgspec.inspect.type_info(annotation)
    except (TypeError, NameError) as error:
        raise ConfigurationError(str(error)) from None
    # msgspec leaves classes it does not know to a hook, so that without one
    # they fail at the first message instead of here.
    for foreign in _foreign_classes(info, set()):
        if is_pydantic(foreign):
            return _pydantic_reader(annotation)
        raise ConfigurationError(
            f"{foreign!r} cannot be decoded from JSON; a payload is a msgspec Struct, a dataclass, "
            "a TypedDict, a pydantic model, a builtin type, or made of these"
        )

    def read(message: str | bytes) -> Any:
        try:
            return decode(message)
        except msgspec.MsgspecError as error:
            raise _invalid(str(error)) from None
        except UnicodeError:
            raise _invalid("JSON is not valid UTF-8") from None
        except RecursionError:
            raise _invalid("JSON is nested too deeply") from None

    return read


def _pydantic_reader(annotation: Any) -> Reader:
    try:
        from pydantic import PydanticUserError, TypeAdapter, ValidationError
        from pydantic.errors import PydanticUndefinedAnnotation
    except ImportError:
        raise ConfigurationError(f"{annotation!r} needs pydantic 2, which is not installed") from None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        adapter.rebuild(raise_errors=True)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise ConfigurationError(str(error).partition("\n")[0]) from None
    validate = adapter.validate_json

    def read(message: str | bytes) -> Any:
        try:
            return validate(message)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise _reject(first["msg"], _path(first["loc"])) from None
        except RecursionError:
            raise _invalid("JSON is nested too deeply") from None

    return read


def _invalid(problem: str) -> Reject:
    found = _PATH.fullmatch(problem)
    return _reject(found[1], found[2]) if found else _reject(problem, "$")


def _reject(reason: str, path: str) -> Reject:
    # Both can quote the peer's own message, which may be as long as the limit.
    return Reject("invalid", _shortened(reason), details={"path": _shortened(path)})


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _path(location: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)


def _types_in(annotation: Any) -> Iterator[Any]:
    annotation = bare(annotation)
    yield annotation
    for argument in get_args(annotation):
        yield from _types_in(argument)


def _foreign_classes(info: Any, seen: set[int]) -> Iterator[Any]:
    """Walk what msgspec knows of a type, yielding the classes it cannot decode itself."""
    # Recursive types refer to themselves by the same object.
    if id(info) in seen:
        return
    seen.add(id(info))
    is_custom = isinstance(info, msgspec.inspect.CustomType)
    if is_custom or (isinstance(info, msgspec.inspect.DataclassType) and is_pydantic(info.cls)):
        yield info.cls
    elif isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)):
        for name in info.__struct_fields__:
            yield from _foreign_classes(getattr(info, name), seen)
    elif isinstance(info, tuple):
        for part in info:  # pyright: ignore[reportUnknownVariableType]
            yield from _foreign_classes(part, seen)
