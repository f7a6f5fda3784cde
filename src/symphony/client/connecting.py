"""`symphony.connect`."""

from __future__ import annotations

import socket
import ssl as tls
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from symphony.client.address import parse_url
from symphony.client.client import Client
from symphony.client.dialing import WebSocketDial
from symphony.client.framelog import configure
from symphony.client.options import Options, Token, check_number, tls_context
from symphony.client.payload import MAX_ELEMENTS

__all__ = ("ConnectOptions", "connect")

_CLOSE_TIMEOUT = 5.0


class ConnectOptions(TypedDict, total=False):
    """The keyword arguments of `connect`, for functions that pass them on.

    `raw` is not one of them: a pool sends requests.
    """

    token: Token
    headers: Mapping[str, str] | None
    protocol: Literal["json", "msgpack"]
    connect_timeout: float
    request_timeout: float
    heartbeat: float | None
    reconnect: bool
    backoff: float
    max_backoff: float
    give_up_after: float | None
    max_queue: int
    max_queue_bytes: int
    max_message_bytes: int
    max_elements: int
    ssl: tls.SSLContext | bool | None
    origin: str | None
    subprotocols: Sequence[str]
    proxy: str | bool
    unix: str | None
    compression: int | None


def connect(
    url: str,
    *,
    token: Token = None,
    headers: Mapping[str, str] | None = None,
    protocol: Literal["json", "msgpack"] = "json",
    connect_timeout: float = 10.0,
    request_timeout: float = 10.0,
    heartbeat: float | None = 20.0,
    reconnect: bool = True,
    backoff: float = 0.5,
    max_backoff: float = 30.0,
    give_up_after: float | None = 300.0,
    max_queue: int = 1000,
    max_queue_bytes: int = 16 * 1024 * 1024,
    max_message_bytes: int = 1024 * 1024,
    max_elements: int = MAX_ELEMENTS,
    ssl: tls.SSLContext | bool | None = None,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    raw: bool = False,
    proxy: str | bool = True,
    unix: str | None = None,
    compression: int | None = None,
) -> Client:
    """Return a client of a server; it connects in `async with`, or when awaited.

    ```python
    client = symphony.connect("wss://example.com/chat")

    @client.on("said")
    async def said(data: Said) -> None: ...

    async with client:
        await client.request("join", "lobby")
    ```

    Args:
        url: The URL of the server, `ws://` or `wss://`; `http` and `https`
            mean these.
        token: Authenticates the client: a string, or a function, plain or
            async, that is called for each attempt to connect.
        headers: Additional headers of the handshake.
        protocol: How events are encoded: `"json"` or `"msgpack"`.
        connect_timeout: Seconds until the first connection must be open, and
            for each attempt to reconnect.
        request_timeout: Default timeout of requests, in seconds.
        heartbeat: Seconds of silence before the client pings the server. If
            nothing arrives within half that time (at least 1 s), the
            connection counts as lost. `None`: never.
        reconnect: Whether to reconnect when a connection is lost.
        backoff: Upper limit of the random delay before the first attempt to
            reconnect, in seconds. It grows by half with each failed attempt.
        max_backoff: Upper limit of every delay, in seconds.
        give_up_after: How many seconds a client that was connected keeps trying
            while something other than a Symphony server answers, such as a
            proxy with 404 during a restart. `None`: no limit.
        max_queue: Messages that may be queued for a connection. Also how many
            received events and messages may wait for the program before the
            client stops reading from the connection.
        max_queue_bytes: The limit in bytes of each of these queues, and of the
            items of each stream.
        max_message_bytes: The size limit of an incoming message, in bytes. Above it, the client
            drops the connection and reconnects. After 3 such messages within 10 minutes, it
            is closed for good with 1009.
        max_elements: The most values, items and keys in received data. Data with
            more is not decoded, as if it had the wrong type.
        ssl: For `wss`: a context; `None` or `True`: certificates are verified
            with the system's authorities; `False`: not at all.
        origin: The `Origin` header of the handshake, as a browser sends it.
        subprotocols: Subprotocols to offer, for raw connections.
        raw: Whether to send and receive plain messages only. Use it for
            servers other than Symphony: the client then offers no
            subprotocols of Symphony, and sends a token as `Authorization:
            Bearer`.
        proxy: The URL of the proxy to connect through: `http://`, `https://`,
            `socks5://` or `socks5h://`, with user and password if it needs
            them. `True`: the proxy that the environment names, if any;
            `False`: none.
        unix: The path of a Unix socket to connect to, instead of the host and
            port of the URL.
        compression: Compress messages of at least this many bytes, if the
            server supports it, and let the server compress its messages.
            `None`: no compression.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option is not valid.
    """
    configure()
    address = parse_url(url)
    if unix is not None:
        if isinstance(proxy, str):
            raise ValueError("A Unix socket is not reached through a proxy: omit proxy= or unix=.")
        if not hasattr(socket, "AF_UNIX"):
            raise ValueError("unix= is not available on this system.")
        address = address._replace(unix=unix)
    check_number("compression", compression, zero=True, none=True)
    if headers is not None and not isinstance(headers, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"headers must be a mapping of names to values, not {headers!r}.")
    given = dict(headers or {})
    if origin is not None:
        given["Origin"] = origin
    check_number("heartbeat", heartbeat, none=True)
    check_number("max_message_bytes", max_message_bytes)
    options = Options(
        token=token,
        headers=given,
        protocol=protocol,
        connect_timeout=connect_timeout,
        request_timeout=request_timeout,
        reconnect=reconnect,
        backoff=backoff,
        max_backoff=max_backoff,
        give_up_after=give_up_after,
        max_queue=max_queue,
        max_queue_bytes=max_queue_bytes,
        max_elements=max_elements,
        subprotocols=subprotocols,
        raw=raw,
    )
    dial = WebSocketDial(
        address,
        tls_context(address.secure, ssl),
        heartbeat=heartbeat,
        max_message_bytes=max_message_bytes,
        close_timeout=_CLOSE_TIMEOUT,
        proxy=proxy,
        compression=compression,
    )
    return Client(dial, options)
