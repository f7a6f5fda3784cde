"""Extends uvicorn's configuration for Symphony apps."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, cast

from uvicorn import Config as UvicornConfig
from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from symphony.errors import ConfigurationError
from symphony.transport.base import Acceptor, Scope, Servable, servable
from symphony.transport.native.access import AccessLog
from symphony.transport.native.certificate import check_certificate
from symphony.transport.native.guest import AsgiApp
from symphony.transport.native.outer import Outer, Probed
from symphony.websocket.hosts import LOCAL_HOSTS

__all__ = ("Config",)

# A client that sends more waits for the turns of the others.
_READ_BYTES: Final = 16 * 1024


class Config(UvicornConfig):
    """uvicorn's configuration for a Symphony app, or for an app with Symphony apps in it.

    Attributes:
        host_app: The Symphony app, or `None` for an app of another framework.
        outer: Accepts connections for the app of another framework.
        local_hosts: The hosts of apps that list none, if the server is bound to a
            loopback address. `None`: any.
        read_buffer: Where HTTP is read into. One for all connections, because
            each segment is taken out before the next one is read.
    """

    host_app: Servable | None = None
    outer: Outer
    local_hosts: tuple[str, ...] | None = None
    _proxy: ProxyHeadersMiddleware | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.read_buffer = memoryview(bytearray(_READ_BYTES))

    def load(self) -> None:
        """Import the app and find out which kind it is.

        Raises:
            ConfigurationError: The certificate or the app cannot be used.
        """
        check_certificate(self.ssl_certfile, self.ssl_keyfile, self.ssl_keyfile_password)
        super().load()
        app = cast("Any", self.loaded_app)  # pyright: ignore[reportUnknownMemberType]
        served = app
        # Only unwrap the middleware that uvicorn adds. All other middleware belongs to
        # the user and must see WebSockets too.
        while isinstance(app, ProxyHeadersMiddleware | MessageLoggerMiddleware):
            app = cast("Any", app.app)
        core = servable(app)
        if core is not None:
            self.host_app = core
            core.native = True
        elif callable(app):
            self.outer = Outer(cast("AsgiApp", app))
            served = Probed(served, self.outer)
            # Not every framework has a lifespan.
            self.lifespan = "auto"
        else:
            raise ConfigurationError(f"{app!r} is not an ASGI app.")
        self.loaded_app = AccessLog(served)
        if self.proxy_headers:
            self._proxy = ProxyHeadersMiddleware(cast("Any", _unused), trusted_hosts=self.forwarded_allow_ips)

    @property
    def acceptor(self) -> Acceptor:
        """The object that accepts WebSockets. A Symphony app must be running."""
        return self.outer if self.host_app is None else self.host_app.node

    def bound_to(self, sockets: Sequence[socket.socket]) -> None:
        """Take note of the addresses that the server listens on."""
        names = [bound.getsockname() for bound in sockets]
        if self.proxy_headers or not all(_is_loopback(name) for name in names):
            # Behind a proxy, requests are for the hosts of the proxy.
            return
        self.local_hosts = (
            *LOCAL_HOSTS,
            *(_as_host(host) for host in (*(name[0] for name in names), self.host)),
        )

    def is_proxy(self, host: str) -> bool:
        """Return whether an address is that of a trusted proxy."""
        return self._proxy is not None and host in self._proxy.trusted_hosts

    def behind_proxy(self, scope: Scope) -> Scope:
        """Return *scope* with the client and scheme that a trusted proxy has sent."""
        if self._proxy is not None:
            # The middleware suspends only in the app that it wraps, so one step runs
            # its coroutine to the end.
            middleware: Any = self._proxy
            with suppress(StopIteration):
                middleware(scope, _unused, _unused).send(None)
        return scope


def _is_loopback(name: Any) -> bool:
    """Return whether the name of a bound socket is an address of this machine only."""
    return isinstance(name, tuple) and ip_address(cast("tuple[str]", name)[0]).is_loopback


def _as_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()


async def _unused(*_: Any) -> Any:
    """Take the place of the app, `receive` and `send` that the middleware expects."""
