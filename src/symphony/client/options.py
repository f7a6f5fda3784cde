"""The options of a client."""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from symphony.client.opening import bad_names, check_headers
from symphony.client.payload import MAX_ELEMENTS

__all__ = ("Options", "Token", "bearer", "check_number", "tls_context")

Token: TypeAlias = str | Callable[[], str | Awaitable[str | None] | None] | None

_PROTOCOLS: Final = ("json", "msgpack")
_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `symphony.connect` that are not about the socket; see there."""

    token: Token = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    protocol: Literal["json", "msgpack"] = "json"
    connect_timeout: float = 10.0
    request_timeout: float = 10.0
    reconnect: bool = True
    backoff: float = 0.5
    max_backoff: float = 30.0
    max_queue: int = 1000
    max_queue_bytes: int = 16 * 1024 * 1024
    max_elements: int = MAX_ELEMENTS
    give_up_after: float | None = 300.0
    subprotocols: Sequence[str] = ()
    raw: bool = False
    uniform: Callable[[float, float], float] = random.uniform

    def __post_init__(self) -> None:
        if self.protocol not in _PROTOCOLS:
            raise ValueError(f"protocol must be 'json' or 'msgpack', not {self.protocol!r}.")
        if self.token is not None and not isinstance(self.token, str) and not callable(self.token):
            raise TypeError(
                f"token must be a string or a function that returns one, not {type(self.token).__name__}."
            )
        for name in ("connect_timeout", "request_timeout", "max_queue", "max_queue_bytes", "max_elements"):
            check_number(name, getattr(self, name))
        for name in ("backoff", "max_backoff"):
            check_number(name, getattr(self, name), zero=True)
        check_number("give_up_after", self.give_up_after, zero=True, none=True)
        if isinstance(self.subprotocols, str):
            raise ValueError(f"subprotocols must be a list: write [{self.subprotocols!r}].")
        if bad := bad_names(self.subprotocols):
            raise ValueError(f"{bad[0]!r} cannot be a subprotocol: use one word without spaces.")
        check_headers(self.headers)
        if self.raw and isinstance(self.token, str):
            check_headers(bearer(self.token))


def check_number(name: str, value: object, *, zero: bool = False, none: bool = False) -> None:
    """Check an option that is a number.

    Args:
        name: The name of the option, for the error.
        value: Its value.
        zero: Whether it may be 0.
        none: Whether it may be `None`.

    Raises:
        TypeError: It is not a number.
        ValueError: It is below 0, or 0 and may not be.
    """
    if value is None and none:
        return
    least = f"{'0 or more' if zero else 'above 0'}{', or None' if none else ''}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number {least}, not {value!r}.")
    if not (value >= 0 if zero else value > 0):
        raise ValueError(f"{name} must be {least}, not {value!r}.")


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token to servers other than Symphony."""
    return {"Authorization": f"Bearer {token}"}


def tls_context(secure: bool, ssl_option: ssl.SSLContext | bool | None) -> ssl.SSLContext | None:
    """Return the TLS context, or `None` for a plain connection.

    Raises:
        ValueError: The option is for TLS, but the URL is not.
    """
    if not secure:
        if ssl_option:
            raise ValueError("ssl= is for TLS, but the URL is ws://: write wss://.")
        return None
    if isinstance(ssl_option, ssl.SSLContext):
        return ssl_option
    return _context(ssl_option is not False)


@lru_cache(maxsize=2)
def _context(verify: bool) -> ssl.SSLContext:
    # Loading the system's certificates takes 10-20 ms and some MiB, so do it once a process.
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
