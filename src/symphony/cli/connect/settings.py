"""What the command line of `symphony connect` says, made into what a client takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

__all__ = ("Settings", "UsageError", "complete_url", "parse_answers", "parse_headers")

_LOCAL: Final = "127.0.0.1"


class UsageError(Exception):
    """The command line is wrong; the message is one line and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of `symphony connect`; its help says what they mean."""

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
    """Add what people leave out: `ws://`, and the host of a server on this machine."""
    url = url.strip()
    if "://" in url:
        return url
    return f"ws://{_LOCAL}{url}" if url.startswith(":") else f"ws://{url}"


def parse_headers(given: Iterable[str]) -> dict[str, str]:
    """Return the headers of `NAME:VALUE` texts; a name that is repeated has all of its values.

    Raises:
        UsageError: One has no name.
    """
    headers: dict[str, str] = {}
    names: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name:
            # The text stays out of the message: it may be a secret.
            raise UsageError("--header wants NAME:VALUE, as in --header 'X-Room: lobby'.")
        name = names.setdefault(name.lower(), name)
        # RFC 9110 §5.3; RFC 6265 §5.4 for cookies.
        between = "; " if name.lower() == "cookie" else ", "
        headers[name] = f"{headers[name]}{between}{value}" if name in headers else value
    return headers


def parse_answers(given: Iterable[str]) -> dict[str, Any]:
    """Return the answers of `EVENT=DATA` texts, by event.

    Raises:
        UsageError: One has no event, or its data is no JSON.
    """
    answers: dict[str, Any] = {}
    for text in given:
        event, equals, data = text.partition("=")
        if not equals or not event:
            raise UsageError("--answer wants EVENT=DATA, as in --answer 'name=\"Ada\"'.")
        try:
            answers[event] = msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise UsageError(
                f"--answer {event}=: {data!r} is not JSON. Text has quotes: '\"Ada\"'."
            ) from None
    return answers
