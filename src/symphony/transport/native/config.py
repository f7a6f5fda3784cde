"""uvicorn's configuration, and the Symphony app in it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

from uvicorn import Config as UvicornConfig
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from symphony.errors import ConfigurationError
from symphony.transport.base import Acceptor, Host, Scope

__all__ = ("Config",)


class Config(UvicornConfig):
    """uvicorn's configuration for one Symphony app.

    Attributes:
        host_app: The Symphony app, without uvicorn's wrappers.
    """

    host_app: Host
    _proxy: ProxyHeadersMiddleware | None = None

    def load(self) -> None:
        """Import the app, and find the Symphony app in it."""
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ConfigurationError("ssl_keyfile needs ssl_certfile.")
        try:
            super().load()
        except OSError as error:
            if not self.is_ssl or isinstance(self.app, str):
                raise
            # These are the only files that it reads. The error does not name them.
            raise ConfigurationError(
                f"The certificate {self.ssl_certfile} with key {self.ssl_keyfile} cannot be used: {error}."
            ) from error
        app = cast("Any", self.loaded_app)  # pyright: ignore[reportUnknownMemberType]
        while app is not None and not hasattr(cast("object", type(app)), "node"):
            app = getattr(app, "app", None)
        if app is None:
            raise ConfigurationError(
                f"{self.app!r} is not a Symphony app. Serve the app of another framework with "
                "Symphony(http=that_app), or mount Symphony in it and use its own server."
            )
        self.host_app = app
        self.host_app.native = True
        if self.proxy_headers:
            self._proxy = ProxyHeadersMiddleware(cast("Any", _unused), trusted_hosts=self.forwarded_allow_ips)

    @property
    def acceptor(self) -> Acceptor:
        """The running app."""
        return self.host_app.node

    def behind_proxy(self, scope: Scope) -> Scope:
        """Return *scope* with the client and scheme that a trusted proxy has sent."""
        if self._proxy is not None:
            # The middleware suspends only in the app that it wraps, so one step runs
            # its coroutine to the end.
            middleware: Any = self._proxy
            with suppress(StopIteration):
                middleware(scope, _unused, _unused).send(None)
        return scope


async def _unused(*_: Any) -> Any:
    """Take the place of the app, `receive` and `send` that the middleware expects."""
