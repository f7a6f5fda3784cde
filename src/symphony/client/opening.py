"""The client side of the opening handshake (RFC 6455 §4.1).

Pure text processing: it builds the bytes of the request and parses the response.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from os import urandom
from typing import Final

import httptools

from symphony.websocket.deflate import accepted_window_bits
from symphony.websocket.handshake import TOKEN, HandshakeError, accept_key

__all__ = (
    "Answer",
    "AnswerError",
    "bad_names",
    "check_headers",
    "new_key",
    "request",
    "retry_after",
)

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 16 * 1024
# Of the whole response: chunks of one byte, extensions of chunks, and trailers.
_MAX_RESPONSE_BYTES: Final = MAX_HEAD_BYTES + 8 * MAX_BODY_BYTES

_NAME: Final = re.compile(TOKEN)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# The handshake sets these headers; values from the caller would break it.
_RESERVED: Final = frozenset(
    (
        "connection",
        "content-length",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    )
)


class AnswerError(Exception):
    """The received data is not a valid handshake response; the message says why."""


def new_key() -> str:
    """Return a new Sec-WebSocket-Key."""
    return base64.b64encode(urandom(16)).decode()


def check_headers(headers: Mapping[str, str]) -> None:
    """Check the headers that a user adds to the request.

    Raises:
        ValueError: A header would break the request, or is set by the
            handshake itself.
    """
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name.")
        if name.lower() in _RESERVED:
            raise ValueError(f"The header {name!r} is set by the handshake itself.")
        # The value is not in the message, because it may be secret.
        if _CONTROL.search(value) or not _fits_latin1(value):
            raise ValueError(f"The value of header {name!r} has a character that is not allowed in a header.")


def request(
    target: str,
    authority: str,
    key: str,
    *,
    subprotocols: Sequence[str],
    headers: Mapping[str, str],
    extension: str | None = None,
) -> bytes:
    """Return the handshake request.

    Args:
        target: Path and query.
        authority: The `Host`, unless *headers* contain one.
        key: The `Sec-WebSocket-Key`.
        subprotocols: The subprotocols to offer.
        headers: Headers that `check_headers` has accepted.
        extension: The extension to offer.
    """
    fields = {name.lower(): (name, value) for name, value in headers.items()}
    fields.setdefault("user-agent", ("User-Agent", "Symphony"))
    _, host = fields.pop("host", ("Host", authority))
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *((f"Sec-WebSocket-Protocol: {', '.join(subprotocols)}",) if subprotocols else ()),
        *((f"Sec-WebSocket-Extensions: {extension}",) if extension is not None else ()),
        *(f"{name}: {value}" for name, value in fields.values()),
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


class Answer:
    """The response to one handshake, parsed as it arrives.

    Attributes:
        status: The HTTP status; 0 before the head is complete.
        phrase: The reason phrase after the status.
        headers: Names in lower case; repeated headers are joined by commas.
        body: The first 16 KiB of the body.
        complete: Whether the whole response has arrived, as far as is known.
        rest: The bytes after a 101: the first frames.
    """

    def __init__(self) -> None:
        self.status = 0
        self.phrase = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self.rest = b""
        self._fed = 0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse received bytes.

        Raises:
            AnswerError: They are not HTTP, or the head is too long.
        """
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[int(upgrade.args[0]) :]
        except httptools.HttpParserError:
            # A 101 without its headers, or a body that is cut off: the parsed part is more
            # useful than this error.
            if not self.status:
                if data[:1] in (b"\x15", b"\x16") and data[1:2] == b"\x03":
                    raise AnswerError("the response is TLS, not HTTP") from None
                shown = data[:60].decode("latin-1")
                raise AnswerError(f"the response is not HTTP: {shown!r}") from None
            self.complete = True
        if not self.status and self._fed > MAX_HEAD_BYTES:
            raise AnswerError(f"the head of the response is longer than {MAX_HEAD_BYTES} bytes")
        if len(self.body) >= MAX_BODY_BYTES or (self.status and self._fed > _MAX_RESPONSE_BYTES):
            self.body = self.body[:MAX_BODY_BYTES]
            self.complete = True

    def chosen(self, key: str, offered: Sequence[str]) -> str | None:
        """Check that a 101 accepts the request; return the chosen subprotocol.

        Raises:
            AnswerError: It does not.
        """
        headers = self.headers
        if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in {
            option.strip().lower() for option in headers.get("connection", "").split(",")
        }:
            raise AnswerError("the response is 101, but not for a WebSocket")
        if headers.get("sec-websocket-accept") != accept_key(key):
            raise AnswerError("the response belongs to another request (Sec-WebSocket-Accept is wrong)")
        chosen = headers.get("sec-websocket-protocol")
        if chosen is not None and chosen not in offered:
            raise AnswerError(f"the server chose the subprotocol {chosen!r}, which was not offered")
        return chosen

    def window_bits(self, *, offered: bool) -> int | None:
        """Return the window for compressed messages, or `None` without compression.

        Args:
            offered: Whether compression was offered.

        Raises:
            AnswerError: The server chose an extension that was not offered.
        """
        header = self.headers.get("sec-websocket-extensions")
        if header is None:
            return None
        if not offered:
            raise AnswerError("the server chose an extension that was not offered")
        try:
            return accepted_window_bits(header)
        except HandshakeError as error:
            raise AnswerError(
                f"the server chose an extension that was not offered: {error.message}"
            ) from None

    # Called by httptools

    def on_message_begin(self) -> None:
        """Start anew: an interim response (103) may have come before this one."""
        if not self.status:
            self.phrase = ""
            self.headers = {}

    def on_status(self, status: bytes) -> None:
        """Collect the phrase, which may arrive in parts."""
        if not self.status:
            self.phrase += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Join repeated headers (RFC 9110 §5.3), and leave out trailers."""
        if self.status:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Store the status, unless the response is an interim one."""
        status = self._parser.get_status_code()
        if not self.status and (status == 101 or status >= 200):
            self.status = status

    def on_body(self, body: bytes) -> None:
        """Collect the body; `feed` limits it."""
        self.body += body

    def on_message_complete(self) -> None:
        """Note the end, unless the response is an interim one."""
        self.complete = self.status != 0


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds in a Retry-After header; `None` if it is missing or invalid.

    Args:
        value: The header: seconds, or a date.
        now: Seconds since the epoch.
    """
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def bad_names(names: Iterable[str]) -> list[str]:
    """Return the names that are not valid subprotocols."""
    return [name for name in names if not _NAME.fullmatch(name)]


def _fits_latin1(value: str) -> bool:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
