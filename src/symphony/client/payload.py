"""Decodes messages and data of events to Python types, and encodes values to send."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from types import UnionType
from typing import Any, Final, Literal, TypeAlias, Union, cast, get_args, get_origin

import msgspec
from msgspec import Raw

from symphony.errors import ConfigurationError, RemoteError
from symphony.protocol.codec import encode_foreign, fail_to_encode
from symphony.protocol.invalid import details_of, faults, reason_and_path

__all__ = (
    "ErrorData",
    "InvalidError",
    "Kind",
    "check_type",
    "error_said",
    "fit",
    "message_reader",
    "reader",
    "snapshot",
    "to_json_text",
)

Kind: TypeAlias = Literal["json", "msgpack"]
Reader: TypeAlias = Callable[[Any], Any]

_UNTYPED: Final = (Any, object, inspect.Parameter.empty)
_ENCODERS: Final = {
    "json": msgspec.json.Encoder(enc_hook=encode_foreign).encode,
    "msgpack": msgspec.msgpack.Encoder(enc_hook=encode_foreign).encode,
}


class ErrorData(msgspec.Struct):
    """The data of an error envelope, of an event `error`, and of Symphony's HTTP refusals."""

    code: str
    message: str = ""
    retryable: bool = False
    details: Any = None
    retry_after: float | None = None

    def error(self) -> RemoteError:
        """Return the error that is raised for it."""
        return RemoteError(
            self.code,
            self.message,
            retryable=self.retryable,
            details=self.details,
            retry_after=self.retry_after,
        )


class InvalidError(Exception):
    """Data that does not fit a type.

    Attributes:
        reason: What is wrong.
        details: Where in the data: `path`, and with pydantic all `errors` if there are several.
    """

    def __init__(self, reason: str, details: dict[str, Any]) -> None:
        path = details["path"]
        more = len(details.get("errors", ())) - 1
        also = f", and {more} more" if more > 0 else ""
        super().__init__(f"{reason} (at {path}){also}" if path != "$" else f"{reason}{also}")
        self.reason = reason
        self.details = details


def check_type(annotation: Any) -> None:
    """Check that data can be decoded to a type.

    Raises:
        ConfigurationError: Neither msgspec nor pydantic supports the type.
    """
    if _takes_messages(annotation):
        return
    try:
        msgspec.json.Decoder(annotation)
        info = msgspec.inspect.type_info(annotation)
    except (TypeError, NameError) as error:
        raise ConfigurationError(str(error)) from None
    if isinstance(info, msgspec.inspect.CustomType) and not hasattr(info.cls, "model_validate"):
        raise ConfigurationError(
            f"{annotation!r} cannot be decoded; use a msgspec Struct, a dataclass, a TypedDict, "
            "a pydantic model, a builtin type, or a combination of these"
        )


def reader(annotation: Any, kind: Kind) -> Reader:
    """Return a function that decodes data to a type; compiled once for each type.

    The reader raises `InvalidError` for data that does not fit.
    """
    # msgspec does not support `str | bytes`; message handlers use it to accept anything.
    plain = annotation if annotation in (str, bytes) or not _takes_messages(annotation) else Any
    try:
        return _reader(plain, kind)
    except TypeError:
        if _hashable(plain):
            raise
        return _compile(plain, kind)


def error_said(data: Any, kind: Kind) -> RemoteError | None:
    """Return the error in the data of an envelope; `None`: it is not one."""
    try:
        said: ErrorData = reader(ErrorData, kind)(data)
    except InvalidError:
        return None
    return said.error()


def fit(read: Reader, data: Any, what: str) -> Any:
    """Return an answer, decoded.

    Raises:
        RemoteError: It does not fit (code `invalid`).
    """
    try:
        return read(data)
    except InvalidError as error:
        message = f"{what} does not match response_type: {error.reason}"
        raise RemoteError("invalid", message, details=error.details) from None


def message_reader(annotation: Any) -> Reader:
    """Return a function that converts a raw message to a handler's type.

    Text and bytes are unchanged if the handler accepts them or has no
    annotation. Any other type is decoded from JSON.
    """
    return _unchanged if _takes_messages(annotation) else reader(annotation, "json")


def snapshot(value: Any, kind: Kind) -> Raw:
    """Return *value*, encoded now, so that later changes have no effect.

    Raises:
        UnencodableError: The value cannot be encoded.
    """
    try:
        return Raw(_ENCODERS[kind](value))
    except Exception as error:
        fail_to_encode(error, value)


def to_json_text(data: bytes | Raw, kind: Kind) -> str:
    """Return already encoded data as JSON text."""
    if kind == "json":
        return bytes(data).decode()
    return _ENCODERS["json"](msgspec.msgpack.decode(data)).decode()


@lru_cache(maxsize=512)
def _reader(annotation: Any, kind: Kind) -> Reader:
    return _compile(annotation, kind)


def _compile(annotation: Any, kind: Kind) -> Reader:
    module = msgspec.json if kind == "json" else msgspec.msgpack
    decode = cast("Any", module).Decoder(annotation, dec_hook=_decode_foreign).decode

    def read(data: Any) -> Any:
        try:
            return decode(data)
        except msgspec.MsgspecError as error:
            raise _invalid(error) from None
        except UnicodeError:
            raise InvalidError("text that is not UTF-8", {"path": "$"}) from None
        except RecursionError:
            raise InvalidError("nested too deeply", {"path": "$"}) from None

    return read


def _invalid(error: msgspec.MsgspecError) -> InvalidError:
    reason, path = reason_and_path(str(error))
    if hasattr(error.__cause__, "errors"):  # pydantic's, out of `_decode_foreign`
        # Its own message has several lines, which msgspec's path stands behind.
        found = faults(error.__cause__, path)
        return InvalidError(found[0].message, details_of(found))
    return InvalidError(reason, {"path": path})


def _decode_foreign(kind: Any, value: Any) -> Any:
    if hasattr(kind, "model_validate"):  # pydantic decodes its own models
        return kind.model_validate(value)
    raise TypeError(f"{kind!r} cannot be decoded")


def _takes_messages(annotation: Any) -> bool:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return all(option in (str, bytes, *_UNTYPED) for option in options)


def _unchanged(message: Any) -> Any:
    return message


def _hashable(annotation: Any) -> bool:
    try:
        hash(annotation)
    except TypeError:
        return False
    return True
