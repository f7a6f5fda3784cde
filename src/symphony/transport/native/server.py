"""The native server: uvicorn with a graceful shutdown for sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, cast

import uvicorn

from symphony.errors import ConfigurationError
from symphony.limits import Limits
from symphony.transport.base import NATIVE_HOSTS
from symphony.transport.native.accepting import Doorman, Listener
from symphony.transport.native.config import Config
from symphony.transport.native.connection import NativeConnection
from symphony.transport.native.crowd import Crowd, Place
from symphony.transport.native.descriptors import descriptor_limit, raise_descriptor_limit
from symphony.transport.native.front import FrontDoor
from symphony.transport.native.listen import ListenError, addresses, bind, keep_unsent_data, listening
from symphony.transport.native.logs import check_level, configure_logging
from symphony.transport.native.lostwrites import limit_lost_writes
from symphony.transport.native.memory import collect_less_often, freed, trim_memory
from symphony.transport.native.segments import Segments
from symphony.transport.native.stopping import Deadline, Signals

__all__ = ("Server", "make_config", "say_addresses", "serve")

logger = logging.getLogger("symphony.transport")


# How long the event loop may take to close after everything has stopped, in seconds.
_TEARDOWN: Final = 1.0


def make_config(app: Any, **options: Any) -> Config:
    """Return uvicorn's configuration for serving *app* natively.

    Args:
        app: A Symphony app or any other ASGI app, or an import string of one.
        **options: Options of `uvicorn.Config`.
    """
    # By default, uvicorn trusts the headers of local proxies.
    options.setdefault("proxy_headers", False)
    return Config(
        app,
        http=FrontDoor,
        # uvicorn never creates one. It only has to know that upgrades are served.
        ws=NativeConnection,  # type: ignore[arg-type]
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        **options,
    )


# Memory is returned to the system only after a peak of at least this many connections.
_MANY_CONNECTIONS = 1000
# The same for large read buffers that were freed. It takes some milliseconds, so not more often than this.
_MUCH_MEMORY = 16 * 1024 * 1024
_TICKS = 50


class Server(uvicorn.Server):
    """Serves one app.

    Args:
        config: From `make_config`.
        ready: Called when the server listens, with its addresses.
        supervised: Whether a supervisor forwards signals to it as SIGTERM.
    """

    config: Config

    def __init__(
        self, config: Config, ready: Callable[[list[str]], None], *, supervised: bool = False
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._supervised = supervised
        self._signals = Signals(self.signalled, supervised=supervised)
        # How it stops: see `stop`.
        self._notice = self._replaced = False
        self._deadline = Deadline()
        self._force = asyncio.Event()
        self._peak = 0
        self.servers = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where it listens; if that fails, `started` stays false."""
        config = self.config
        outer = config.outer if config.host_app is None else None
        if outer is not None:
            outer.state = self.lifespan.state
        # The lifespan runs in a task that copies this context.
        token = NATIVE_HOSTS.set(None if outer is None else outer.hosts)
        try:
            await self.lifespan.startup()
        finally:
            NATIVE_HOSTS.reset(token)
        if self.lifespan.should_exit:
            # The cause is in the log. `serve` decides about the exit code.
            self.should_exit = True
            return
        bound = bind(config.host, config.port, config.uds) if sockets is None else sockets
        limit_lost_writes()
        config.bound_to(bound)
        self._crowd = Crowd(descriptor_limit())
        self._doorman = Doorman(self._crowd, config.acceptor, config.is_proxy)
        self.started = True
        self.begin(bound)

    def begin(self, sockets: list[socket.socket]) -> None:
        """Listen, after the app has started, and say where."""
        for bound in sockets:
            self.listen(bound)
        self._ready(addresses(sockets, tls=self.config.is_ssl))

    def listen(self, bound: socket.socket) -> Listener:
        """Accept the connections of a bound socket, and close it at the end."""
        config = self.config

        state = self.server_state

        def front(place: Place) -> FrontDoor:
            return FrontDoor(config, state, self.lifespan.state, place=place)

        def protocol(place: Place) -> Segments:
            return Segments(config, place, cast("set[Any]", state.connections), front)

        keep_unsent_data((bound,))
        bound.setblocking(False)
        bound.listen(config.backlog)
        listener = Listener(bound, self._doorman, protocol, config.ssl)
        # uvicorn uses what the two classes have in common.
        self.servers.append(cast("Any", listener))
        return listener

    async def on_tick(self, counter: int) -> bool:
        """Return memory after many connections have closed, or many large messages were read."""
        stats = self.config.acceptor.stats
        count = stats.opened - stats.closed
        if count > self._peak:
            self._peak = count
        elif self._peak >= _MANY_CONNECTIONS and count <= self._peak // 2:
            self._peak = count
            trim_memory()
        if counter % _TICKS == 0 and freed.size >= _MUCH_MEMORY:
            freed.size = 0
            trim_memory()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let proxies notice it, stop accepting, close the sockets gracefully, then shut down the rest."""
        acceptor, limits = self.config.acceptor, self.config.acceptor.limits
        # HTTP requests have one half, what shuts down after them the other.
        self.config.timeout_graceful_shutdown = cast("Any", limits.shutdown_timeout / 2)
        end = asyncio.get_running_loop().time() + limits.stop_time
        try:
            async with asyncio.timeout_at(end):
                if not self._replaced:
                    acceptor.retire()
                if self._notice and limits.notice_time is not None:
                    # What it refuses now, a proxy gives to another server. It would not repeat
                    # what it has sent to a server whose listening socket is closed then.
                    await asyncio.sleep(limits.notice_time)
                await self.stop_listening()
                for server in self.servers:
                    await cast("Listener", server).connected()
                await acceptor.drain(self._force)
                await super().shutdown(sockets)
        except TimeoutError:
            logger.error(
                "The stop took longer than %.1f s: shutdown handlers, plugins or lifespans were abandoned.",
                limits.stop_time,
            )
        finally:
            # uvicorn leaves this out if it is forced.
            for server in self.servers:
                await server.wait_closed()
            await self._crowd.end()

    async def stop_listening(self) -> None:
        """Accept no more connections."""
        for server in self.servers:
            server.close()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal. A second signal ends the process at once."""
        with self._signals.handled():
            super().run(sockets)
        self._deadline.returned()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do nothing: `run` handles signals, until the event loop is closed."""
        yield

    def signalled(self, number: int) -> None:
        """Stop because of a signal. With Ctrl+C, or if a file has changed, there is no proxy to notice it."""
        self.stop(notice=number == signal.SIGTERM and not self._supervised)

    def stop(self, *, notice: bool = False, replaced: bool = False) -> None:
        """Begin to stop. Idempotent, and may be called from another thread.

        Args:
            notice: Whether it first refuses clients for `Limits.notice_time`.
            replaced: Whether another process serves in its place, so that the server as a whole
                stays ready.
        """
        if self.should_exit:
            return
        self._notice, self._replaced = notice, replaced
        self.should_exit = True
        self._deadline.start(self.stop_time)

    @property
    def stop_time(self) -> float:
        """How long a stop can take before the process ends, in seconds."""
        limits = self.config.acceptor.limits if self.started else Limits()
        return limits.stop_time + _TEARDOWN


def serve(
    app: Any,
    *,
    host: str,
    port: int,
    uds: str | None,
    log_level: str | None,
    sockets: list[socket.socket] | None = None,
    make_server: Callable[[Config], Server] | None = None,
    process: str | None = None,
    **options: Any,
) -> None:
    """Serve *app* until a signal. The first line of output is the address.

    Args:
        app: A Symphony app, or an ASGI app with some mounted in it.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        uds: Path of a Unix socket to listen on instead.
        log_level: For `configure_logging`.
        sockets: Sockets that a supervisor has already bound.
        make_server: Makes the server, `None`: a `Server`.
        process: For `configure_logging`.
        **options: Options of `uvicorn.Config`.

    Raises:
        SystemExit: The server could not start. The status is 1, and one line
            on standard error, or the log, says why.
    """
    try:
        level = None if log_level is None else check_level(log_level)
        configure_logging(level, process)
        raise_descriptor_limit()
        config = make_config(app, host=host, port=port, uds=uds, **options)
        config.load()
        # What the app and its modules are made of stays. The garbage collector need not pass
        # over it again in each full round, while many clients connect.
        gc.collect()
        gc.freeze()
        collect_less_often()
        with listening(host, port, uds) if sockets is None else nullcontext(sockets) as bound:
            if make_server is None:
                server = Server(config, say_addresses, supervised=sockets is not None)
            else:
                server = make_server(config)
            server.run(bound)
    except (ConfigurationError, ListenError) as error:
        sys.exit(f"Error: {error}")
    if not server.started:
        sys.exit(1)


def say_addresses(where: list[str]) -> None:
    """Print the first line of output."""
    print(f"Symphony listens on {', '.join(where)} (stop it with Ctrl+C)", flush=True)
