"""Decodes messages and data of events to Python types, and encodes values to send."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from types import UnionType
from typing import Any, Final, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import Raw

from symphony.errors import ConfigurationError, Reject, RemoteError
from symphony.protocol.bounds import bounded
from symphony.protocol.codec import encode_json, encode_msgpack
from symphony.protocol.reading import event_readers, guarded
from symphony.protocol.unencodable import fail_to_encode

__all__ = (
    "MAX_ELEMENTS",
    "Decoding",
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

MAX_ELEMENTS: Final = 100_000
"""The default of the option `max_elements`."""

_UNTYPED: Final = (Any, object, inspect.Parameter.empty)
_ENCODERS: Final = {"json": encode_json, "msgpack": encode_msgpack}


class Decoding(NamedTuple):
    """How received data is decoded.

    Attributes:
        kind: Its encoding.
        max_elements: How many values, items and keys it may contain.
    """

    kind: Kind
    max_elements: int = MAX_ELEMENTS


class ErrorData(msgspec.Struct):
    """The data of an error envelope, of an event `error`, and of Symphony's HTTP refusals."""

    code: str
    message: str = ""
    retryable: bool = False
    details: Any = None
    retry_after: float | None = None

    def __post_init__(self) -> None:
        """Drop an invalid delay: msgpack has NaN and infinity."""
        if self.retry_after is not None and not (isfinite(self.retry_after) and self.retry_after >= 0):
            self.retry_after = None

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
    event_readers(annotation)


def reader(annotation: Any, decoding: Decoding) -> Reader:
    """Return a function that decodes data to a type; compiled once for each type.

    The reader raises `InvalidError` for data that does not fit, or has too many elements.
    """
    # msgspec does not support `str | bytes`; message handlers use it to accept anything.
    plain = annotation if annotation in (str, bytes) or not _takes_messages(annotation) else Any
    try:
        return _reader(plain, decoding)
    except TypeError:
        if _hashable(plain):
            raise
        return _compile(plain, decoding)


def error_said(data: Any, decoding: Decoding) -> RemoteError | None:
    """Return the error in the data of an envelope, or `None` if it is not an error."""
    try:
        said: ErrorData = reader(ErrorData, decoding)(data)
    except InvalidError:
        return None
    return said.error()


def fit(read: Reader, data: Any, what: str) -> Any:
    """Return data, decoded to a type.

    Args:
        read: The reader of the type.
        data: The data, still encoded.
        what: What it is, for the error.

    Raises:
        RemoteError: It does not have the type (code `invalid`).
    """
    try:
        return read(data)
    except InvalidError as error:
        message = f"{what} does not match response_type: {error.reason}"
        raise RemoteError("invalid", message, details=error.details) from None


def message_reader(annotation: Any, max_elements: int) -> Reader:
    """Return a function that converts a raw message to a handler's type.

    Text and bytes are unchanged if the handler accepts them or has no
    annotation. Any other type is decoded from JSON.
    """
    return _unchanged if _takes_messages(annotation) else reader(annotation, Decoding("json", max_elements))


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
def _reader(annotation: Any, decoding: Decoding) -> Reader:
    return _compile(annotation, decoding)


def _compile(annotation: Any, decoding: Decoding) -> Reader:
    kind, most = decoding
    try:
        decode = guarded(bounded(event_readers(annotation)[kind], most, is_json=kind == "json"))
    except ConfigurationError as error:
        raise TypeError(str(error)) from None

    def read(data: Any) -> Any:
        try:
            return decode(data)
        except Reject as error:
            raise InvalidError(error.message, error.details) from None

    return read


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
