"""Values that msgspec cannot encode: what is sent in their place, and the error for the rest."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from typing import Any, Final, NoReturn, cast

import msgspec

from symphony.protocol.models import dumped

__all__ = ("UnencodableError", "encode_foreign", "fail_to_encode")

_ENCODABLE: Final = (
    "Use str, int, float, bool, None, a list, a dict, a date, a UUID, an Enum, "
    "a dataclass, a msgspec Struct or a pydantic model"
)


class UnencodableError(TypeError):
    """A value that cannot be encoded.

    Args:
        what: What cannot be encoded, as in "a coroutine".
        hint: What to do about it, a sentence.

    Attributes:
        given: What a handler did with the value: `"returned"` or `"yielded"`. Empty where
            the app's own code sent it: then the traceback shows the line.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"Cannot encode {what}. {hint}".rstrip())
        self.given = ""
        self._what = what
        self._hint = hint

    def blame(self, handler: str) -> None:
        """Name the handler in the message, if it was a handler that gave the value.

        The error is raised after the handler has ended, so that the traceback has no line of it.
        """
        if self.given:
            what = f"Cannot encode what {handler} {self.given}: {self._what}. {self._hint}"
            self.args = (what.rstrip(),)


def encode_foreign(value: Any) -> Any:
    """Return a value to encode in place of one that msgspec does not know.

    Raises:
        UnencodableError: The value cannot be encoded.
    """
    if hasattr(value, "model_dump") and not isinstance(value, type):  # pydantic encodes its own models
        try:
            return dumped(value)
        except ValueError as error:  # pydantic's own, for a field that it does not know
            raise UnencodableError(str(error)) from error
    raise UnencodableError(*_described(value))


def fail_to_encode(error: Exception, value: Any, given: str = "") -> NoReturn:
    """Raise the error of a value that could not be encoded.

    Coroutines in *value* are closed: Python would warn of each that it was never awaited, after
    the error has said so.

    Args:
        error: What the encoder raised.
        value: What it was to encode.
        given: See `UnencodableError`.
    """
    with suppress(Exception):
        msgspec.to_builtins(value, enc_hook=_close)
    if not isinstance(error, UnencodableError):
        kept = error
        error = UnencodableError(str(error) or type(error).__name__)
        error.__cause__ = kept
    error.given = error.given or given
    try:
        raise error
    finally:
        # An error waits for the garbage collector if a frame in its traceback refers to it.
        del error


def _described(value: Any) -> tuple[str, str]:
    """Return what a value is, and what to do about it."""
    if inspect.iscoroutine(value):
        call = f"{value.__qualname__.rpartition('.')[2]}()"
        return f"the coroutine {value.__qualname__}", f"An `await` is missing: write `await {call}`."
    if isinstance(value, Awaitable):
        name = _name(type(cast("object", value)))
        return f"an object of type {name}", "An `await` is missing: it is awaitable."
    if inspect.isasyncgen(value):
        hint = "Iterate over it with `async for`, and yield its items from an async generator."
        return f"the async generator {value.__qualname__}", hint
    if isinstance(value, Iterator):
        return (
            f"an object of type {_name(type(cast('object', value)))}",
            "Make a list of it, or yield its items from an async generator.",
        )
    if isinstance(value, tuple | frozenset):  # as a value, msgspec would have encoded it
        return f"a dict with a key of type {_name(type(cast('object', value)))}", "The keys of JSON are text."
    if isinstance(value, type):
        return f"the class {_name(cast('type[Any]', value))}", "Use an instance of it."
    return (
        f"an object of type {_name(type(cast('object', value)))}",
        f"{_ENCODABLE}, or convert it to one of these.",
    )


def _name(kind: type[Any]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _close(value: Any) -> None:
    if inspect.iscoroutine(value):
        value.close()
