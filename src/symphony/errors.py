"""The exceptions of Symphony, and the closed list of error codes.

```
SymphonyError
├── ConfigurationError     an app is configured incorrectly; raised at start
├── WrongThreadError       a socket or room was used outside the thread of its event loop
├── WrongRouteError        the route cannot do this: a raw route has no requests, for example
├── Reject                 a refusal with a code, at any stage
├── RemoteError            the peer answered a request with an error
├── RequestTimeoutError    the peer did not answer in time (also a TimeoutError)
├── QueueFullError         a queue is full
├── BrokerUnavailableError the broker of the rooms cannot be reached; nothing was published
├── OutcomeUnknownError    it may or may not have been published (also a TimeoutError)
├── MessageTooLargeError   a message is larger than the peer accepts (also a ValueError)
└── DisconnectedError      the connection has ended
    └── RefusedError       the server refused the connection
ProtocolError              the peer violated RFC 6455 or RFC 7692; handlers never see it
```

The attributes of exceptions are plain values, so every layer may import this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from symphony.printable import escaped, printable

__all__ = (
    "CODES",
    "BrokerUnavailableError",
    "Code",
    "ConfigurationError",
    "DisconnectedError",
    "KnownCode",
    "MessageTooLargeError",
    "OutcomeUnknownError",
    "ProtocolError",
    "QueueFullError",
    "RefusedError",
    "Reject",
    "RemoteError",
    "RequestTimeoutError",
    "SymphonyError",
    "WrongRouteError",
    "WrongThreadError",
    "check_close_code",
    "valid_close_code",
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
    "replaced",
    "room_full",
    "too_many",
    "elsewhere",
    "internal",
    "unavailable",
]
"""The keys of `CODES`, which editors complete."""


class Code(NamedTuple):
    """What an error code means on the wire.

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
    "replaced": Code(410, 4410, retryable=False),
    "room_full": Code(409, 4409, retryable=True),
    "too_many": Code(429, 4429, retryable=True),
    "elsewhere": Code(421, 4421, retryable=True),
    "internal": Code(500, 1011, retryable=True),
    "unavailable": Code(503, 4503, retryable=True),
}
_APP_CODE: Final = Code(400, 4400, retryable=False)
# RFC 6455 §7.4 and the IANA registry: the codes below 3000 that a close frame may have.
_CLOSE_CODES: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
_ONLY_REPORTED: Final = {
    1005: "it reports that a close frame had no code",
    1006: "it reports that a connection was lost",
    1015: "it reports that TLS failed",
}
_RETRY_AFTER: Final = "retry-after"


def valid_close_code(code: int) -> bool:
    """Return whether a close frame may have *code*."""
    return code in _CLOSE_CODES or 3000 <= code <= 4999


def check_close_code(code: Any) -> None:
    """Check the close code that an app has chosen.

    Raises:
        ValueError: A close frame must not have it. The message says why.
    """
    if isinstance(code, int) and valid_close_code(code) and not isinstance(code, bool):
        return
    if not isinstance(code, int) or not 1000 <= code <= 4999:
        why = "close codes are integers from 1000 to 4999"
    else:
        why = _ONLY_REPORTED.get(code, "it is reserved by RFC 6455")
    raise ValueError(
        f"The close code {code!r} may not be sent: {why}. Use 1000 or 3000-4999, or another code of RFC 6455."
    )


class SymphonyError(Exception):
    """The base class of the exceptions that Symphony raises for its users."""


class ConfigurationError(SymphonyError):
    """An app is configured incorrectly; the message says what is wrong and where."""


class WrongThreadError(SymphonyError):
    """A socket, room or client was used outside the thread, loop or process that it belongs to."""


class WrongRouteError(SymphonyError):
    """The route cannot do this.

    A raw route has no requests, and you cannot iterate over the messages of an
    event route.
    """


class Reject(SymphonyError):
    """Refuse a connection, a message or a request, with a code.

    Before the socket is open, a `Reject` becomes an HTTP response. In a connect
    handler after that, it closes the socket. In a message handler, it becomes an
    error message to the sender, and the socket stays open.

    Args:
        code: One of Symphony's codes (`CODES`), or your own code with a
            namespace, such as `"shop.sold_out"`.
        message: A message for the peer. Never put secrets here.
        details: Any JSON value that helps the peer.
        retryable: Whether trying again later can help. `None` means the default
            of the code.
        retry_after: How many seconds the peer should wait before it tries again.
            It is part of the error, and the `Retry-After` of the HTTP response
            (rounded up). Clients reconnect after this time. `None`: not set.
        status: The HTTP status before the upgrade, instead of the default of
            the code.
        close_code: The close code, instead of the default of the code: your own
            (3000-4999), or a code of RFC 6455 that may be sent.
        headers: Additional headers of the HTTP response. A `Retry-After` in
            seconds sets *retry_after*, unless you pass that.

    Raises:
        TypeError: The code is not text.
        ValueError: The code is neither Symphony's nor namespaced, the status
            is not 400-599, the close code must not be sent, or *retry_after*
            is negative or infinite.
    """

    def __init__(
        self,
        code: KnownCode | str,
        message: str = "",
        *,
        details: Any = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        close_code: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"The code of a Reject is text, such as 'not_found' or 'shop.sold_out', not {code!r}. "
                "For an HTTP status, write Reject('not_found', status=404)."
            )
        known = CODES.get(code)
        if known is None:
            if "." not in code:
                raise ValueError(
                    f"Reject code {code!r} is not one of Symphony's ({', '.join(CODES)}). "
                    f"Give your own codes a namespace, such as 'shop.{'_'.join(code.split()) or 'sold_out'}'."
                )
            known = _APP_CODE
        if status is not None and not 400 <= status <= 599:
            raise ValueError(f"Reject status {status} is not an HTTP error (400-599).")
        if close_code is not None:
            check_close_code(close_code)
        if retry_after is not None and not 0 <= retry_after < math.inf:
            raise ValueError(f"Reject retry_after must be 0 or more seconds, not {retry_after!r}.")
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = details
        self.retryable = known.retryable if retryable is None else retryable
        self.status = known.status if status is None else status
        self.close_code = known.close if close_code is None else close_code
        self._own_close_code = close_code
        self.headers = dict(headers or {})
        if retry_after is None:
            retry_after = _seconds(self.headers)
        else:
            self.headers = {
                name: value for name, value in self.headers.items() if name.lower() != _RETRY_AFTER
            }
            # RFC 9110 §10.2.3: whole seconds.
            self.headers["Retry-After"] = str(math.ceil(retry_after))
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return code and message on one line, so that a peer cannot forge log lines."""
        message = escaped(self.message)
        return f"{self.code}: {message}" if message else self.code

    def payload(self) -> dict[str, Any]:
        """Return the error as it is sent: code, message, retryable, details, and retry_after if set."""
        payload = {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "details": self.details,
        }
        if self.retry_after is not None:
            payload["retry_after"] = self.retry_after
        return payload

    @property
    def _raw_close_code(self) -> int:
        """The close code on a raw route, whose clients do not know the codes of Symphony."""
        if self._own_close_code is not None:
            return self._own_close_code
        if self.code == "internal":
            return 1011
        return 1013 if self.retryable else 1008


class RemoteError(SymphonyError):
    """The peer answered a request with an error.

    Attributes:
        code: One of `CODES`, or an app's own code with a namespace.
        message: The message of the peer, for people.
        retryable: Whether the same request may succeed later.
        details: Further data of the peer, or `None`.
        retry_after: How many seconds to wait before trying again, or `None`.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        retryable: bool = False,
        details: Any = None,
        retry_after: float | None = None,
    ) -> None:
        # The attributes keep what the peer has sent; the text of the exception ends up in logs.
        shown = printable(code)
        super().__init__(f"{shown}: {printable(message)}" if message else shown)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.details = details
        self.retry_after = retry_after


class RequestTimeoutError(SymphonyError, TimeoutError):
    """A request was not answered in time. It may or may not have been handled."""


class QueueFullError(SymphonyError):
    """The queue is full. Nothing was added to it."""


class BrokerUnavailableError(SymphonyError):
    """The broker of the rooms cannot be reached, or cannot store anything. Nothing was published."""


class OutcomeUnknownError(SymphonyError, TimeoutError):
    """The answer did not come in time: it may or may not have been published.

    Only a publication with a `key` can be repeated without being published twice.
    """


class MessageTooLargeError(SymphonyError, ValueError):
    """A message is larger than the peer accepts. Nothing was sent.

    Attributes:
        size: The bytes of the message.
        limit: The bytes that the peer accepts.
    """

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class DisconnectedError(SymphonyError):
    """The connection has ended: nothing can be sent or received.

    Attributes:
        code: The close code; 1006 if the connection was lost.
        reason: The reason that was sent with the code.
        refusal: The error with which the server refused the client, with
            `code`, `message`, `retryable` and `details`. `None` if the server
            sent no error, or is not a Symphony server.
    """

    def __init__(
        self, message: str, code: int = 1006, reason: str = "", *, refusal: RemoteError | None = None
    ) -> None:
        super().__init__(escaped(message, keep="\n"))
        self.code = code
        self.reason = reason
        self.refusal = refusal


class RefusedError(DisconnectedError):
    """The server refused the connection before it was open.

    `code` is the close code. If the server answered with an HTTP status, `code`
    is 4000 plus the status.

    Attributes:
        status: The HTTP status, or `None` if the client was refused with a
            close code.
        retry_after: How many seconds to wait before trying again, or `None`.
    """

    def __init__(
        self,
        message: str,
        code: int = 1006,
        reason: str = "",
        *,
        refusal: RemoteError | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code, reason, refusal=refusal)
        self.status = status
        self.retry_after = retry_after


class ProtocolError(Exception):
    """The peer violated the WebSocket protocol, and the connection must fail.

    Attributes:
        code: The close code to send (RFC 6455 §7.4.1).
        reason: One line for the close frame and the log.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def _seconds(headers: Mapping[str, str]) -> float | None:
    text = next((value for name, value in headers.items() if name.lower() == _RETRY_AFTER), "")
    return float(text) if text.isascii() and text.isdigit() else None
