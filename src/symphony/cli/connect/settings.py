"""Parse the options of `symphony connect`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

__all__ = ("Settings", "UsageError", "complete_url", "cookie_headers", "parse_answers", "parse_headers")

_LOCAL: Final = "127.0.0.1"


class UsageError(Exception):
    """The command line is invalid; the message is one line and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of `symphony connect`; `command.py` documents them."""

    url: str
    headers: Mapping[str, str]
    token: str | None
    protocol: Literal["json", "msgpack"]
    subprotocols: tuple[str, ...]
    origin: str | None
    insecure: bool
    reconnect: bool
    timeout: float
    as_json: bool
    answers: Mapping[str, Any]
    wait: float | None


def complete_url(url: str) -> str:
    """Add `ws://` to a URL without a scheme, and 127.0.0.1 to one without a host."""
    url = url.strip()
    if "://" in url:
        return url
    return f"ws://{_LOCAL}{url}" if url.startswith(":") else f"ws://{url}"


def parse_headers(given: Iterable[str]) -> dict[str, str]:
    """Parse headers given as `NAME:VALUE`; a repeated name keeps all its values.

    Raises:
        UsageError: A header has no name.
    """
    headers: dict[str, str] = {}
    names: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name:
            # The text may be a secret, so the message does not repeat it.
            raise UsageError("--header takes NAME:VALUE, for example --header 'X-Room: lobby'.")
        name = names.setdefault(name.lower(), name)
        # RFC 9110 §5.3; RFC 6265 §5.4 for cookies.
        separator = "; " if name.lower() == "cookie" else ", "
        headers[name] = f"{headers[name]}{separator}{value}" if name in headers else value
    return headers


def cookie_headers(given: Iterable[str]) -> list[str]:
    """Return cookies, given as `NAME=VALUE`, as headers.

    Raises:
        UsageError: A cookie has no name.
    """
    cookies = [text.strip() for text in given]
    for cookie in cookies:
        name, equals, _ = cookie.partition("=")
        if not equals or not name.strip():
            # The text may be a secret, so the message does not repeat it.
            raise UsageError("--cookie takes NAME=VALUE, for example --cookie 'session=abc'.")
    return [f"Cookie: {cookie}" for cookie in cookies]


def parse_answers(given: Iterable[str]) -> dict[str, Any]:
    """Parse answers given as `EVENT=DATA`, by event.

    Raises:
        UsageError: An answer has no event, or its data is not JSON.
    """
    answers: dict[str, Any] = {}
    for text in given:
        event, equals, data = text.partition("=")
        if not equals or not event:
            raise UsageError("--answer takes EVENT=DATA, for example --answer 'name=\"Ada\"'.")
        try:
            answers[event] = msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise UsageError(
                f"--answer {event}=: {data!r} is not JSON. Put text in quotes: '\"Ada\"'."
            ) from None
    return answers
