"""The exceptions that one node tells another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from symphony.errors import (
    BrokerUnavailableError,
    DisconnectedError,
    MessageTooLargeError,
    OutcomeUnknownError,
    QueueFullError,
    Reject,
    RemoteError,
    RequestTimeoutError,
    SymphonyError,
    WrongRouteError,
)

__all__ = ("is_told", "pack_error", "unpack_error")

_KINDS: Final[dict[str, type[SymphonyError]]] = {
    "unavailable": BrokerUnavailableError,
    "disconnected": DisconnectedError,
    "unknown": OutcomeUnknownError,
    "full": QueueFullError,
    "timeout": RequestTimeoutError,
    "route": WrongRouteError,
}


def is_told(error: BaseException) -> bool:
    """Return whether the other node gets an exception as it is. Otherwise it failed here."""
    return isinstance(error, (Reject, RemoteError, MessageTooLargeError, *_KINDS.values()))


def pack_error(error: BaseException) -> list[Any]:
    """Return an exception as plain values."""
    if isinstance(error, Reject | RemoteError):
        kind = "reject" if isinstance(error, Reject) else "remote"
        return [kind, error.code, error.message, error.retryable, error.details, error.retry_after]
    if isinstance(error, MessageTooLargeError):
        return ["large", str(error), error.size, error.limit]
    for kind, class_ in _KINDS.items():
        if isinstance(error, class_):
            return [kind, str(error)]
    return ["failed", type(error).__name__]


def unpack_error(packed: Sequence[Any]) -> Exception:
    """Return the exception that `pack_error` has packed."""
    kind, text, *more = packed
    if kind in ("reject", "remote"):
        message, retryable, details, retry_after = more
        class_ = Reject if kind == "reject" else RemoteError
        return class_(text, message, retryable=retryable, details=details, retry_after=retry_after)
    if kind == "large":
        size, limit = more
        return MessageTooLargeError(text, size=size, limit=limit)
    if kind in _KINDS:
        return _KINDS[kind](text)
    return OutcomeUnknownError(f"Another node failed ({text}); its log says why.")
