"""The errors of Symphony, and the closed list of codes a peer can be told.

```
SymphonyError
├── ConfigurationError    a mistake in how an app was put together; raised at start
├── WrongThreadError      a socket or room was used outside its event loop's thread
├── Reject                a refusal with a code, at any stage
├── RemoteError           the peer answered a request with an error
├── RequestTimeoutError   it did not answer in time (also a TimeoutError)
├── QueueFullError        more is waiting already than may
└── DisconnectedError     the connection has ended
    └── RefusedError      it never opened: the server said no
ProtocolError             a peer broke RFC 6455 or RFC 7692; never reaches a handler
```

Exceptions carry plain values, so that every layer may import this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

__all__ = (
    "CODES",
    "Code",
    "ConfigurationError",
    "DisconnectedError",
    "KnownCode",
    "ProtocolError",
    "QueueFullError",
    "RefusedError",
    "Reject",
    "RemoteError",
    "RequestTimeoutError",
    "SymphonyError",
    "WrongThreadError",
)


KnownCode: TypeAlias = Literal[
    "invalid",
    "unauthorized",
    "forbidden",
    "not_found",
    "request_required",
    "cancelled",
    "timeout",
    "conflict",
    "room_full",
    "too_many",
    "internal",
    "unavailable",
]
"""The keys of `CODES`, which editors complete."""


class Code(NamedTuple):
    """What one error code becomes on the wire.

    Attributes:
        status: The HTTP status before the upgrade.
        close: The WebSocket close code after it.
        retryable: Whether trying again later can help.
    """

    status: int
    close: int
    retryable: bool


CODES: Final[Mapping[KnownCode | str, Code]] = {
    "invalid": Code(400, 4400, retryable=False),
    "unauthorized": Code(401, 4401, retryable=False),
    "forbidden": Code(403, 4403, retryable=False),
    "not_found": Code(404, 4404, retryable=False),
    "request_required": Code(400, 4400, retryable=False),
    "cancelled": Code(400, 4400, retryable=False),
    "timeout": Code(408, 4408, retryable=True),
    "conflict": Code(409, 4409, retryable=False),
    "room_full": Code(409, 4409, retryable=True),
    "too_many": Code(429, 4429, retryable=True),
    "internal": Code(500, 1011, retryable=True),
    "unavailable": Code(503, 4503, retryable=True),
}
_APP_CODE: Final = Code(400, 4400, retryable=False)


class SymphonyError(Exception):
    """The root of what Symphony raises at its users."""


class ConfigurationError(SymphonyError):
    """An app was put together wrongly; the message names what and where."""


class WrongThreadError(SymphonyError):
    """A socket or room was used from a thread that is not its event loop's."""


class Reject(SymphonyError):
    """Refuse what a peer asked for, with a code it can act on.

    Raised before the socket is open it is an HTTP answer; from a connect
    handler after that, a close; from a message handler, an error message to
    the sender, whose socket stays open.

    Args:
        code: One of Symphony's codes (`CODES`), or an app's own with a
            namespace, as in `"shop.sold_out"`.
        message: For the peer to read. Never put secrets here.
        details: Any JSON value that helps the peer.
        retryable: Whether trying again later can help; `None` takes the
            code's own answer.
        status: The HTTP status before the upgrade, instead of the code's own.
        headers: Headers of that HTTP answer, such as `Retry-After`.

    Raises:
        ValueError: The code is neither Symphony's nor namespaced, or the
            status is not 400-599.
    """

    def __init__(
        self,
        code: KnownCode | str,
        message: str = "",
        *,
        details: Any = None,
        retryable: bool | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        known = CODES.get(code)
        if known is None:
            if "." not in code:
                raise ValueError(
                    f"Reject code {code!r} is not one of Symphony's ({', '.join(CODES)}). "
                    f"Give an app's own code a namespace, as in 'shop.{code or 'sold_out'}'."
                )
            known = _APP_CODE
        if status is not None and not 400 <= status <= 599:
            raise ValueError(f"Reject status {status} is not an HTTP error (400-599).")
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = details
        self.retryable = known.retryable if retryable is None else retryable
        self.status = known.status if status is None else status
        self.close_code = known.close
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        """Give code and message on one line: a peer must not write lines of its own into a log."""
        message = self.message if self.message.isprintable() else ascii(self.message)
        return f"{self.code}: {message}" if message else self.code

    def payload(self) -> dict[str, Any]:
        """Return the error as a peer sees it: code, message, retryable, details."""
        return {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "details": self.details,
        }


class RemoteError(SymphonyError):
    """The peer answered a request with an error.

    Attributes:
        code: One of `CODES`, or an app's own with a namespace.
        message: What the peer says, for people.
        retryable: Whether the same request may succeed later.
        details: What else the peer says, or `None`.
    """

    def __init__(self, code: str, message: str = "", *, retryable: bool = False, details: Any = None) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.details = details


class RequestTimeoutError(SymphonyError, TimeoutError):
    """A request was not answered in time; whether it was handled is unknown."""


class QueueFullError(SymphonyError):
    """As much waits to be sent already as may; nothing was added."""


class DisconnectedError(SymphonyError):
    """The connection has ended, so that nothing can be sent or received on it.

    Attributes:
        code: The close code; 1006 if the connection was lost.
        reason: What was said with it.
    """

    def __init__(self, message: str, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class RefusedError(DisconnectedError):
    """The server refused the connection; `code` says why, as a close code."""


class ProtocolError(Exception):
    """A peer broke the WebSocket protocol and the connection must fail.

    Attributes:
        code: The close code that says how (RFC 6455 §7.4.1).
        reason: One line for the close frame and the log.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
