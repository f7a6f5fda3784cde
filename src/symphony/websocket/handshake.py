"""The server side of the opening handshake (RFC 6455 §4).

Pure text processing: it validates requests and origins, and builds the bytes of
the response. The transports decide and write.
"""

from __future__ import annotations

import hashlib
import re
from binascii import b2a_base64
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from symphony.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = (
    "TOKEN",
    "HandshakeError",
    "accept_key",
    "check_one_origin",
    "check_origins",
    "check_upgrade",
    "choose_subprotocol",
    "http_response",
    "offered_subprotocols",
    "origin_advice",
    "origin_allowed",
    "switching_protocols",
)

# RFC 9110 §5.6.2. Possessive, here and below: a header of 64 KiB must not make
# the matcher backtrack.
TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = "13"
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_NAME: Final = re.compile(TOKEN)
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# 16 bytes are 22 characters and two of padding. The padding bits are not checked,
# because RFC 6455 §4.2.2 does not require the server to decode the key.
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_HOST: Final = r"[a-z0-9_-]++(?:\.[a-z0-9_-]++)*+\.?|\[[0-9a-f:.]++\]"
_ORIGIN: Final = re.compile(
    rf"([a-z][a-z0-9+.-]*+)://({_HOST})(?::([0-9]{{1,5}}))?", re.ASCII | re.IGNORECASE
)
# `file://` of Electron and Cordova, `app://.` of Electron.
_BARE_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*+)://(\.?)", re.ASCII | re.IGNORECASE)
_WITH_HOSTS: Final = frozenset(("http", "https", "ws", "wss"))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_FRAMING: Final = frozenset(("connection", "content-length", "transfer-encoding"))
_NEGOTIATED: Final = _FRAMING | {
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "upgrade",
}

_CHECKED: Final = frozenset(
    (
        *(b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade"),
        *(b"sec-websocket-key", b"sec-websocket-version"),
    )
)


class HandshakeError(Exception):
    """A refused opening handshake, with the HTTP response to send.

    Attributes:
        status: The HTTP status.
        message: One line for the body and the log.
        headers: Additional headers that the response must have.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def check_upgrade(method: str, http_version: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the Sec-WebSocket-Key of a request that may become a WebSocket.

    Args:
        method: The request's method.
        http_version: As in an ASGI scope: `"1.1"`.
        headers: As in an ASGI scope, names in lower case.

    Raises:
        HandshakeError: The request is not a handshake of RFC 6455 §4.2.1.
    """
    if method != "GET":
        raise HandshakeError(405, "A WebSocket handshake is a GET request.", {"Allow": "GET"})
    if not _is_http_1_1(http_version):
        raise HandshakeError(400, "A WebSocket handshake needs HTTP/1.1.")
    fields: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _CHECKED:
            fields.setdefault(name, []).append(value.decode("latin-1").strip(" \t"))
    hosts = fields.get(b"host", [])
    if len(hosts) != 1 or not hosts[0]:
        raise HandshakeError(400, "A request needs one Host header.")
    if "websocket" not in _options(fields.get(b"upgrade", [])):
        raise HandshakeError(400, "The Upgrade header does not ask for 'websocket'.")
    if "upgrade" not in _options(fields.get(b"connection", [])):
        raise HandshakeError(400, "The Connection header has no 'Upgrade'.")
    if b"transfer-encoding" in fields or any(map(_announces_body, fields.get(b"content-length", []))):
        raise HandshakeError(400, "A WebSocket handshake has no body.")
    versions = fields.get(b"sec-websocket-version", [])
    if len(versions) > 1:
        raise HandshakeError(400, "Sec-WebSocket-Version must not be repeated.")
    # Before the key: the drafts that preceded RFC 6455 have no key, and this response
    # tells their clients what is wrong.
    if versions != [_VERSION]:
        raise HandshakeError(
            426,
            f"Only WebSocket version {_VERSION} is supported.",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": _VERSION},
        )
    keys = fields.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise HandshakeError(400, "A handshake needs one Sec-WebSocket-Key: 16 bytes in base64.")
    return keys[0]


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that proves *key* was read (§4.2.2)."""
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    return b2a_base64(digest, newline=False).decode()


def offered_subprotocols(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return the subprotocols that a client offers, in its order of preference.

    Raises:
        HandshakeError: The header is present but is not a list of tokens.
    """
    lines = [value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"]
    if not lines:
        return []
    # RFC 9110 §5.6.1.2: empty elements are ignored, but at least one must not be empty.
    offered = [element for part in ",".join(lines).split(",") if (element := part.strip(" \t"))]
    if not offered or not all(map(_NAME.fullmatch, offered)):
        raise HandshakeError(400, "Sec-WebSocket-Protocol is not a list of tokens.")
    return offered


def choose_subprotocol(offered: Sequence[str], supported: Sequence[str]) -> str | None:
    """Return the first of *supported* that is offered; the server's order decides."""
    return next((name for name in supported if name in offered), None)


def origin_allowed(origin: str | None, *, host: str | None, secure: bool, allowed: Sequence[str]) -> bool:
    """Return whether a page of *origin* may connect.

    A request without an origin does not come from a browser, and is allowed.

    Args:
        origin: The Origin header.
        host: The Host header; a page from this host, with the scheme that
            belongs to *secure*, is always allowed.
        secure: Whether the connection is TLS. If a proxy terminates TLS, take
            it from the proxy's headers.
        allowed: Entries that `check_origins` has accepted.
    """
    if origin is None:
        return True
    if origin == "null":
        return "*" in allowed
    asked = _parse_origin(origin)
    if asked is None:
        return False
    if host is not None and asked == _parse_origin(f"{'https' if secure else 'http'}://{host}"):
        return True
    return any(entry == "*" or _matches(entry, asked) for entry in allowed)


def check_one_origin(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check that a request names one origin at most.

    Raises:
        HandshakeError: It names several. Any of them could be the one that counts.
    """
    if sum(name == b"origin" for name, _ in headers) > 1:
        raise HandshakeError(400, "A request has at most one Origin header.")


def origin_advice(origin: str | None, *, host: str | None, secure: bool) -> str:
    """Say how to let in the pages of an origin that `origin_allowed` refused.

    Args:
        origin: The Origin header.
        host: The Host header.
        secure: Whether the connection is TLS.
    """
    if not secure and origin_allowed(origin, host=host, secure=True, allowed=()):
        return (
            "the page came over https and this server was reached over http: "
            "if a proxy terminates TLS, start with --proxy-headers"
        )
    return "list it in origins= to allow it"


def check_origins(allowed: Sequence[str]) -> None:
    """Check the entries of an app's allowed origins.

    Raises:
        ConfigurationError: An entry could never match as intended.
    """
    if isinstance(allowed, str):
        raise ConfigurationError(f"origins is a list: write origins=[{allowed!r}].")
    for entry in allowed:
        if entry != "*" and _parse_entry(entry) is None:
            mended = _mended(entry)
            hint = f"; did you mean {mended!r}?" if mended else "."
            raise ConfigurationError(
                f"origins: {entry!r} is not an origin{hint} Allowed are 'https://app.example.com' (scheme, "
                "host, and the port unless it is the default; no path), 'https://*.example.com' for every "
                "subdomain, 'http://localhost:*' for every port, 'file://', and '*' for any origin, 'null' "
                "included."
            )


def switching_protocols(
    key: str, *, subprotocol: str | None, extension: str | None, headers: Iterable[tuple[str, str]]
) -> bytes:
    """Return the complete 101 response that opens the WebSocket.

    Args:
        key: The client's key, as returned by `check_upgrade`.
        subprotocol: The chosen subprotocol, or `None`.
        extension: The accepted extension with its parameters, or `None`.
        headers: Headers of the app, such as cookies.

    Raises:
        ValueError: A header would break the response (a control character, an
            invalid name), or is set by the handshake itself.
    """
    fields: list[tuple[str, str]] = []
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    if extension is not None:
        fields.append(("Sec-WebSocket-Extensions", extension))
    for name, value in headers:
        if name.lower() in _NEGOTIATED:
            raise ValueError(f"The header {name!r} of the response is set by the handshake.")
        fields.append((name, value))
    return _SWITCHING % accept_key(key).encode() + _lines(fields)


def http_response(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return a complete HTTP/1.1 response after which the connection closes.

    Content-Length, Transfer-Encoding and Connection in *headers* are replaced,
    so you can pass the headers of a response that was made elsewhere.

    Raises:
        ValueError: A header would break the response (a control character, an
            invalid name).
    """
    fields = [(name, value) for name, value in headers if name.lower() not in _FRAMING]
    # RFC 9110 §7.8: a response with Upgrade, which a 426 must have, names it in
    # Connection too.
    upgrade = any(name.lower() == "upgrade" for name, _ in fields)
    fields.append(("Content-Length", str(len(body))))
    fields.append(("Connection", "close, Upgrade" if upgrade else "close"))
    return _head(status, fields) + body


def _is_http_1_1(version: str) -> bool:
    try:
        return tuple(map(int, version.split("."))) >= (1, 1)
    except ValueError:
        return False


def _options(lines: Iterable[str]) -> set[str]:
    return {option.strip(" \t").lower() for line in lines for option in line.split(",")}


def _announces_body(content_length: str) -> bool:
    # Anything but zeros, so that an unreadable length is refused as well.
    return not content_length or content_length.strip("0") != ""


def _head(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    return f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() + _lines(fields)


def _lines(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return header fields, and the empty line after them."""
    lines: list[str] = []
    for name, value in fields:
        # Response splitting: with a line break in a value, an attacker could add a
        # header or a body. The value is not in the message, because it may be secret.
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name.")
        if _CONTROL.search(value):
            raise ValueError(f"The value of header {name!r} has a control character.")
        lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int | None


def _parse_origin(text: str) -> _Origin | None:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        # Pages of desktop apps have no host, or one that is no name.
        bare = _BARE_ORIGIN.fullmatch(text)
        if bare is None or bare[1].lower() in _WITH_HOSTS:
            return None
        return _Origin(bare[1].lower(), bare[2], None)
    scheme, host, digits = match[1].lower(), match[2].lower(), match[3]
    port = int(digits) if digits else _DEFAULT_PORTS.get(scheme)
    if port is not None and port > 65535:
        return None
    return _Origin(scheme, host, port)


class _Entry(NamedTuple):
    origin: _Origin
    subdomains: bool
    any_port: bool


def _parse_entry(entry: str) -> _Entry | None:
    subdomains, any_port = "://*." in entry, entry.endswith(":*")
    origin = _parse_origin(entry.replace("://*.", "://", 1).removesuffix(":*"))
    if origin is None or origin.scheme in ("ws", "wss"):
        return None
    if (subdomains and origin.host[:1] in ("", ".", "[")) or (any_port and origin.host in ("", ".")):
        return None
    if any_port and entry.count(":") > 2 and re.search(r":[0-9]+:\*", entry):
        return None
    return _Entry(origin, subdomains, any_port)


def _matches(entry: str, asked: _Origin) -> bool:
    parsed = _parse_entry(entry)
    if parsed is None:
        return False
    origin, subdomains, any_port = parsed
    if asked.scheme != origin.scheme or (asked.port != origin.port and not any_port):
        return False
    # With the dot: evil-example.com is not a subdomain of example.com.
    return asked.host.endswith(f".{origin.host}") if subdomains else asked.host == origin.host


def _mended(entry: str) -> str | None:
    scheme, _, rest = entry.strip().rpartition("://")
    if not scheme and rest == "null":
        return None
    scheme = {"": "https", "ws": "http", "wss": "https"}.get(scheme.lower(), scheme)
    mended = f"{scheme}://{re.split('[/?#]', rest)[0]}"
    return mended if _parse_entry(mended) else None
