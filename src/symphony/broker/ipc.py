"""The broker of the workers of one machine: `ipc://`.

The supervisor serves it in a thread, over a Unix socket in a directory of its user. Where
there are none, it is a TCP socket of the loopback interface, and a random token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from struct import Struct
from typing import Final
from urllib.parse import urlsplit

from symphony.broker.base import Broker
from symphony.broker.hub import Hub
from symphony.broker.links import Dial, Link, LinkEnd
from symphony.broker.memberchanges import KeptMembers
from symphony.broker.presencehub import serve_presence
from symphony.broker.streams import GuardedStream, Stream
from symphony.errors import ConfigurationError

__all__ = ("ServedBroker", "dial_to", "serve", "shown")

logger = logging.getLogger("symphony.app")

_HAS_UNIX: Final = hasattr(socket, "AF_UNIX") and sys.platform != "win32"
# `sun_path` has 104 bytes on macOS, and 108 on Linux.
_MOST_PATH: Final = 100
_TOKEN_BYTES: Final = 32
_STOP_TIMEOUT: Final = 5.0
# ucred of Linux: pid, uid, gid; xucred of macOS and BSD: version, uid, …
_UCRED: Final = Struct("3i")
_XUCRED: Final = Struct("=II68x")


class ServedBroker:
    """A broker that is served in a thread of this process.

    Attributes:
        url: Where the workers find it: an `ipc://` URL for `Symphony(broker=…)`.
    """

    def __init__(
        self,
        url: str,
        hub: Hub,
        loop: asyncio.AbstractEventLoop,
        stop: asyncio.Event,
        thread: threading.Thread,
    ):
        self.url = url
        self._hub = hub
        self._loop = loop
        self._stop = stop
        self._thread = thread

    @property
    def running(self) -> bool:
        """Whether it is served still: neither closed, nor has it failed."""
        return self._thread.is_alive()

    def process_ended(self, process: int) -> None:
        """Free what the nodes of a process had, because it has ended: no lease has to end before."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._hub.process_ended, process)

    def close(self) -> None:
        """Stop to serve it, and wait until what was accepted is stored."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_TIMEOUT)
        if self._thread.is_alive():
            logger.error("The broker of the rooms did not stop within %g seconds.", _STOP_TIMEOUT)


def serve(
    make: Callable[[], Awaitable[Broker]],
    *,
    kept_beside: Callable[[Broker], KeptMembers | None] = lambda broker: None,
    tcp: bool = not _HAS_UNIX,
) -> ServedBroker:
    """Serve an engine to other processes of this user, in a thread; return when it listens.

    Args:
        make: Makes the engine, in the thread's event loop.
        kept_beside: Returns where the members of rooms are stored; `None`: nowhere.
        tcp: Whether to use a loopback socket with a token instead of a Unix socket.

    Raises:
        Exception: What *make* has raised, or an `OSError`: it cannot listen.
    """
    began = threading.Event()
    served: list[ServedBroker] = []
    failed: list[BaseException] = []

    async def run() -> None:
        broker = await make()
        hub = Hub(broker, life=secrets.token_urlsafe(9))
        serve_presence(
            hub,
            clock=time.monotonic,
            new_id=lambda: secrets.token_urlsafe(9),
            kept=kept_beside(broker),
        )
        try:
            async with contextlib.AsyncExitStack() as stack:
                url = await (_listen_tcp(hub, stack) if tcp else _listen_unix(hub, stack))
                stop = asyncio.Event()
                served.append(ServedBroker(url, hub, asyncio.get_running_loop(), stop, thread))
                began.set()
                await stop.wait()
        finally:
            hub.close()
            broker.close()

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(run())
        except BaseException as error:
            if began.is_set():
                logger.critical("The broker of the rooms has failed.", exc_info=error)
            failed.append(error)
        finally:
            began.set()

    thread = threading.Thread(target=work, name="symphony-broker", daemon=True)
    thread.start()
    began.wait()
    if failed:
        raise failed[0]
    return served[0]


def dial_to(url: str) -> Dial:
    """Return what connects to the broker at an `ipc://` URL.

    Raises:
        ConfigurationError: The URL is wrong.
    """
    parts = urlsplit(url)
    path = parts.path
    try:
        port = parts.port
    except ValueError:
        port = None
    if (
        parts.scheme != "ipc"
        or not (path.startswith("/") and len(path) > 1)
        or bool(port) != bool(parts.netloc)
    ):
        raise ConfigurationError(
            f"{shown(url)!r} is not the URL of a broker: it is ipc:///path/of/the/socket, and "
            "`symphony run --workers N` sets it."
        )
    if port:
        return _dial_tcp(parts.hostname or "", port, path[1:])
    if not _HAS_UNIX:
        raise ConfigurationError("This system has no Unix sockets, which this ipc:// URL needs.")
    return _dial_unix(path)


def shown(url: str) -> str:
    """Return an `ipc://` URL without its token."""
    # A message is logged, and the token is a secret.
    return url if "://" not in url or url.startswith("ipc:///") else url.partition("://")[0] + "://…"


def _dial_unix(path: str) -> Dial:
    async def dial(end: LinkEnd) -> Link:
        loop = asyncio.get_running_loop()
        transport, stream = await loop.create_unix_connection(
            lambda: Stream(lambda _: end, stops_reading=False), path
        )
        if not _is_of_this_user(transport):
            stream.close()
            raise PermissionError(f"the broker at {path} belongs to another user")
        return stream

    return dial


def _dial_tcp(host: str, port: int, token: str) -> Dial:
    async def dial(end: LinkEnd) -> Link:
        loop = asyncio.get_running_loop()
        transport, stream = await loop.create_connection(
            lambda: Stream(lambda _: end, stops_reading=False), host, port
        )
        transport.write(token.encode())
        return stream

    return dial


def _bound(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    Path(path).chmod(0o600)
    return listener


def _new_directory() -> str:
    directory = tempfile.mkdtemp(prefix="symphony-")
    if len(directory) > _MOST_PATH - len("/broker"):
        Path(directory).rmdir()
        directory = tempfile.mkdtemp(prefix="symphony-", dir="/tmp")
    return directory


async def _listen_unix(hub: Hub, stack: contextlib.AsyncExitStack) -> str:
    directory = _new_directory()
    stack.callback(_remove, directory)
    path = f"{directory}/broker"
    listener = stack.enter_context(_bound(path))

    def begin(link: Link) -> LinkEnd | None:
        assert isinstance(link, Stream)
        if link.transport is not None and _is_of_this_user(link.transport):
            return hub.attach(link)
        logger.error("A process of another user has connected to the broker, and was refused.")
        return None

    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Stream(begin, stops_reading=True), sock=listener)
    stack.callback(server.close)
    return f"ipc://{path}"


async def _listen_tcp(hub: Hub, stack: contextlib.AsyncExitStack) -> str:
    token = secrets.token_hex(_TOKEN_BYTES)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: GuardedStream(hub.attach, token.encode()), "127.0.0.1", 0)
    stack.callback(server.close)
    port = server.sockets[0].getsockname()[1]
    return f"ipc://127.0.0.1:{port}/{token}"


def _is_of_this_user(transport: asyncio.BaseTransport) -> bool:
    peer: socket.socket = transport.get_extra_info("socket")
    if sys.platform == "linux":
        _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    elif sys.platform != "win32" and hasattr(socket, "LOCAL_PEERCRED"):
        # SOL_LOCAL is 0.
        _, uid = _XUCRED.unpack(peer.getsockopt(0, socket.LOCAL_PEERCRED, _XUCRED.size))
    else:
        # The directory keeps others out.
        return True
    return uid == os.getuid()


def _remove(directory: str) -> None:
    with contextlib.suppress(OSError):
        Path(directory, "broker").unlink(missing_ok=True)
        Path(directory).rmdir()


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
