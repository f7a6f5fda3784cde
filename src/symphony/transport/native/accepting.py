"""Accepts connections: counts them, and survives when there are no descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, cast

from symphony.complaints import Complaint
from symphony.tasks import start
from symphony.transport.address import client_key
from symphony.transport.base import Acceptor
from symphony.transport.native.crowd import Crowd, Place

__all__ = ("Doorman", "Listener")

logger = logging.getLogger("symphony.transport")

# The most connections that are accepted in one turn of the event loop.
_BATCH: Final = 64
# After the system had no descriptor or memory for a connection.
_RETRY_AFTER: Final = 0.1
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# The listening socket itself is gone. Every other error is that of one connection: accept(2)
# also reports those of the network, and of a firewall.
_CLOSED: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
# What a socket is bound to that listens on all addresses of the machine.
_ANY_ADDRESS: Final = ("0.0.0.0", "::", "::ffff:0.0.0.0")

_MakeProtocol = Callable[[], asyncio.BaseProtocol]


class Doorman:
    """Decides which connections are accepted, for all listening sockets of a server.

    Args:
        crowd: Counts the connections.
        acceptor: The app.
        is_proxy: Whether an address is that of a trusted proxy, whose clients are
            counted by the address that it sends.
    """

    def __init__(self, crowd: Crowd, acceptor: Acceptor, is_proxy: Callable[[str], bool]) -> None:
        self._crowd = crowd
        self._acceptor = acceptor
        self._is_proxy = is_proxy
        self._exhausted = Complaint(
            logger,
            logging.WARNING,
            "The system has no descriptors for further connections (%s). They wait until others have closed: "
            "raise the limit of open files, or lower max_connections.",
        )
        self._no_tls = Complaint(logger, logging.DEBUG, "A TLS handshake failed: %r")
        self._failed: dict[int, Complaint] = {}
        self._closed = Complaint(
            logger,
            logging.WARNING,
            "Too many connections: some were closed without an answer, the last one from %s. "
            "See max_connections and max_connections_per_client.",
        )

    def admit(self, host: str | None) -> Place | None:
        """Count a connection; `None` if it is to be closed without an answer."""
        key = None if host is None or self._is_proxy(host) else client_key(host)
        place = self._crowd.enter(key, self._acceptor.limits)
        if place is None:
            self._acceptor.stats.refused += 1
            self._closed.log(key or "a proxy")
        return place

    def tls_timeouts(self) -> dict[str, float]:
        """Return how long TLS may take to open and to close a connection."""
        limits = self._acceptor.limits
        return {
            "ssl_handshake_timeout": limits.handshake_timeout,
            "ssl_shutdown_timeout": limits.close_timeout,
        }

    def failed(self, error: OSError) -> None:
        """Count a TLS handshake that failed."""
        if not isinstance(error, ssl.SSLError):
            self._acceptor.stats.late_handshakes += 1
        self._no_tls.log(error)

    def not_accepted(self, error: OSError) -> None:
        """Log that a connection could not be accepted."""
        if error.errno in _EXHAUSTED:
            self._exhausted.log(error.strerror)
            return
        kind = error.errno or 0
        if kind not in self._failed:
            text = "A connection could not be accepted (%s). The server goes on."
            self._failed[kind] = Complaint(logger, logging.WARNING, text)
        self._failed[kind].log(error.strerror or repr(error))


class Listener:
    """Accepts the connections of one listening socket.

    It takes the place of an `asyncio.Server`, which counts nothing until a TLS
    handshake is over.

    Args:
        bound: A bound socket.
        doorman: What decides about connections.
        protocol: Makes the protocol of a connection.
        tls: The context of TLS, if the socket speaks it.

    Attributes:
        sockets: The listening socket.
    """

    def __init__(
        self,
        bound: socket.socket,
        doorman: Doorman,
        protocol: Callable[[Place], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.sockets = (bound,)
        self._doorman = doorman
        self._protocol = protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._connecting: dict[asyncio.Future[Any], _Connecting] = {}
        # The address that all its connections have; `None`: it listens on several.
        self._address = _local_address(bound)
        if self._address is not None and self._address[0] in _ANY_ADDRESS:
            self._address = None
        self._accepting = start(self._accept(bound))
        # Not earlier: the event loop still watches the socket.
        self._accepting.add_done_callback(lambda _: bound.close())

    @property
    def opening(self) -> bool:
        """Whether a TLS handshake has not ended."""
        return bool(self._opening)

    def stop(self) -> None:
        """Accept no more; TLS handshakes go on."""
        self._accepting.cancel()

    def close(self) -> None:
        """Accept no more, and end the TLS handshakes that have not ended."""
        self._accepting.cancel()
        for task in self._opening:
            task.cancel()

    async def connected(self) -> None:
        """Return when each connection that was accepted has its protocol, which answers it."""
        while self._connecting:
            await asyncio.wait(tuple(self._connecting))

    async def wait_closed(self) -> None:
        """Return when nothing is accepted any more."""
        await asyncio.wait((self._accepting, *self._opening))

    async def _accept(self, bound: socket.socket) -> None:
        while True:
            try:
                self._take(*await self._next(bound))
                # The event loop is asked once for all that are waiting already.
                for _ in range(_BATCH):
                    self._take(*bound.accept())
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                pass
            except OSError as error:
                if error.errno in _CLOSED:
                    logger.exception("The server stopped accepting connections.")
                    raise
                self._doorman.not_accepted(error)
                await asyncio.sleep(_RETRY_AFTER)
            # Waiting for a connection does not always suspend.
            await asyncio.sleep(0)

    async def _next(self, bound: socket.socket) -> tuple[socket.socket, Any]:
        """Wait for a connection, and accept it.

        Not by `sock_accept`: it awaits a class of uvloop, and each time CPython then
        caches the name of a method at a new address. These small texts lay between the
        connections, so that most of their memory was not returned when they had closed.
        """
        ready = self._loop.create_future()

        def is_readable() -> None:
            self._loop.remove_reader(bound)
            ready.set_result(None)

        try:
            self._loop.add_reader(bound, is_readable)
        except NotImplementedError:
            # The event loop of Windows.
            return await self._loop.sock_accept(bound)
        try:
            await ready
        finally:
            self._loop.remove_reader(bound)
        return bound.accept()

    def _take(self, connection: socket.socket, address: Any) -> None:
        connection.setblocking(False)
        # The address of a client over a Unix socket is a string.
        place = self._doorman.admit(None if isinstance(address, str | bytes) else address[0])
        if place is None:
            connection.close()
            return
        if isinstance(address, tuple):
            host, port, *_ = cast("tuple[Any, ...]", address)
            place.client = str(host), int(port)
        place.server = self._address or _local_address(connection)
        protocol = partial(self._protocol, place)
        if self._tls is None:
            self._connect(connection, place, protocol)
            return
        task = start(self._open(connection, place, protocol))
        self._opening.add(task)
        task.add_done_callback(partial(self._opened, connection, place))

    def _connect(self, connection: socket.socket, place: Place, protocol: _MakeProtocol) -> None:
        """Give a connection without TLS to its protocol.

        There is no task: it would take longer than everything else that is done here.
        """
        work = self._loop.connect_accepted_socket(protocol, connection)
        connecting = _Connecting(work, connection, place, self._loop)
        awaited = connecting.step()
        if awaited is not None:
            self._connecting[awaited] = connecting
            awaited.add_done_callback(self._connected)

    def _connected(self, awaited: asyncio.Future[Any]) -> None:
        connecting = self._connecting.pop(awaited, None)
        if connecting is not None:
            connecting.step()

    def _opened(self, connection: socket.socket, place: Place, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        # Not in the task alone: one that is cancelled before its first step runs no line.
        if task.cancelled():
            place.leave()
            connection.close()

    async def _open(self, connection: socket.socket, place: Place, protocol: _MakeProtocol) -> None:
        timeouts = self._doorman.tls_timeouts()
        try:
            await self._loop.connect_accepted_socket(protocol, connection, ssl=self._tls, **timeouts)
        except OSError as error:
            # Of TLS: a client that speaks something else, says nothing, or has gone.
            # The protocol does not hear of it.
            self._doorman.failed(error)
            place.leave()
            connection.close()
        except BaseException:
            place.leave()
            connection.close()
            raise


class _Connecting:
    """A connection that the event loop is connecting to its protocol. That takes one turn.

    Args:
        work: What connects it. It awaits one future.
        connection: The connection.
        place: Its place in the crowd, which it leaves if this fails.
        loop: The event loop.
    """

    __slots__ = ("_connection", "_loop", "_place", "_work")

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        connection: socket.socket,
        place: Place,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._work = work
        self._connection = connection
        self._place = place
        self._loop = loop

    def step(self) -> asyncio.Future[Any] | None:
        """Go on; return the future that it waits for then."""
        try:
            return self._work.send(None)
        except StopIteration:
            return None
        except BaseException as failure:
            self._place.leave()
            self._connection.close()
            if isinstance(failure, OSError):
                # The client has gone.
                return None
            if not isinstance(failure, Exception):
                raise
            # Not raised: that would stop the server from accepting others.
            message = "A connection could not be opened"
            self._loop.call_exception_handler({"message": message, "exception": failure})
            return None


def _local_address(connection: socket.socket) -> tuple[str, int | None] | None:
    """Return the address of this end of a connection, as in an ASGI scope."""
    try:
        name: Any = connection.getsockname()
    except OSError:
        # On some systems, if the client has gone.
        return None
    if isinstance(name, tuple):
        host, port, *_ = cast("tuple[Any, ...]", name)
        return str(host), int(port)
    return (name, None) if isinstance(name, str) else None
