"""The debug log of a client: its handshake and every frame, without tokens."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Final

from picows import WSFrame, WSMsgType

from symphony.client.address import without_secrets
from symphony.client.websocket import WebSocketLink
from symphony.printable import printable
from symphony.websocket.frames import parse_close

__all__ = ("LoggedLink", "configure", "frames_logged", "shown", "shown_head", "shown_headers")

logger = logging.getLogger("symphony.client")

_SHOWN: Final = 200
# How many bytes of a message are examined: a character has at most 4 bytes in UTF-8.
_READ_BYTES: Final = _SHOWN * 4
_HIDDEN: Final = "***"
# Programs give the headers that carry their secrets any name: `X-Api-Key`, `X-Auth-Token`.
_SECRET: Final = re.compile(
    r"(?!sec-websocket-).*(auth|cookie|credential|key|pass|secret|session|token)", re.I
)
_URL: Final = ("location", "content-location")
_TOKEN: Final = re.compile(r"(symphony\.token\.)[^\s,;\"'\\]+")
_QUERY: Final = re.compile(r"\?\S*")
_CONTROL: Final = {WSMsgType.PING: "ping", WSMsgType.PONG: "pong"}


def configure() -> None:
    """Turn the debug log on if the environment has `SYMPHONY_DEBUG=1`."""
    if os.environ.get("SYMPHONY_DEBUG", "0") in ("", "0"):
        return
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        # Nothing is configured, and `logging` would only show warnings.
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        logger.addHandler(handler)


def frames_logged() -> bool:
    """Return whether frames are logged."""
    return logger.isEnabledFor(logging.DEBUG)


def shown(message: str | bytes) -> str:
    """Return a message for the log: one printable line of at most 200 characters, without tokens."""
    if isinstance(message, str):
        text, size = message[:_READ_BYTES], len(message)
    else:
        text, size = _bytes_shown(message[:_READ_BYTES]), len(message)
    text = _without_tokens(text)[: _SHOWN + 1]
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return text if size <= _SHOWN and len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def shown_headers(headers: Mapping[str, str]) -> str:
    """Return headers for the log, without secrets."""
    return "; ".join(f"{name}: {_shown_value(name, value)}" for name, value in headers.items())


def shown_head(head: bytes) -> str:
    """Return a request for the log, without its query and other secrets."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    return f"{_QUERY.sub(f'?{_HIDDEN}', first, count=1)}; {shown_headers(headers)}"


class LoggedLink(WebSocketLink):
    """A link that logs each frame; used only while the logger asks for it."""

    __slots__ = ()

    def send(self, message: str | bytes) -> None:
        """Log and send a message."""
        logger.debug("sent %s (%d): %s", _kind(message), len(message), shown(message))
        super().send(message)

    def ping(self) -> None:
        """Log and send a ping."""
        logger.debug("sent ping")
        super().ping()

    def close(self, code: int, reason: str) -> None:
        """Log and send a close frame."""
        logger.debug("sent close: %d %s", code, shown(reason))
        super().close(code, reason)

    def _deliver(self, message: str | bytes) -> None:
        logger.debug("received %s (%d): %s", _kind(message), len(message), shown(message))
        super()._deliver(message)

    def _unusual_frame(self, kind: WSMsgType, frame: WSFrame) -> None:
        if kind is WSMsgType.CLOSE:
            code, reason = parse_close(frame.get_payload_as_bytes())
            logger.debug("received close: %d %s", code, shown(reason))
        elif (name := _CONTROL.get(kind)) is not None:
            logger.debug("received %s: %s", name, shown(frame.get_payload_as_bytes()))
        super()._unusual_frame(kind, frame)


def _shown_value(name: str, value: str) -> str:
    if _SECRET.match(name):
        return _HIDDEN
    if name.lower() in _URL:
        value = without_secrets(value)
    return printable(_without_tokens(value), 2 * _SHOWN)


def _without_tokens(text: str) -> str:
    return _TOKEN.sub(rf"\1{_HIDDEN}", text)


def _kind(message: str | bytes) -> str:
    return "text" if isinstance(message, str) else "binary"


def _bytes_shown(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        # MessagePack: its texts are readable, the rest is not.
        return data.decode("latin-1")
