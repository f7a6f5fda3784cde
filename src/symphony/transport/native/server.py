"""The native server: uvicorn's, with an orderly end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from symphony.transport.native.config import Config
from symphony.transport.native.connection import NativeConnection
from symphony.transport.native.front import FrontDoor

__all__ = ("Server", "configure_logging", "make_config", "serve")


# How long plain HTTP requests may take once the sockets have gone; seconds.
_HTTP_SHUTDOWN_TIMEOUT = 10


def make_config(app: Any, **options: Any) -> Config:
    """Return uvicorn's configuration for serving *app* natively.

    Args:
        app: A Symphony app, or an import string of one.
        **options: Options of `uvicorn.Config`.
    """
    return Config(
        app,
        http=FrontDoor,
        # Never made by uvicorn: it only has to know that upgrades are served.
        ws=NativeConnection,  # type: ignore[arg-type]
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_HTTP_SHUTDOWN_TIMEOUT,
        **options,
    )


class Server(uvicorn.Server):
    """Serves one app.

    Args:
        config: From `make_config`.
        ready: Called once it listens, with its addresses as URLs.
    """

    config: Config

    def __init__(self, config: Config, ready: Callable[[list[str]], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._force = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where it listens."""
        await super().startup(sockets)
        if self.started:
            self._ready(self._addresses())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let the sockets go in order, then everything else."""
        for server in self.servers:
            server.close()
        await self.config.acceptor.drain(self._force)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in order at the first signal, at once at the second.

        Unlike uvicorn's this keeps no list of signals to raise again at the
        end: an orderly stop exits with 0.
        """
        if self.should_exit:
            self.force_exit = True
            self._force.set()
        self.should_exit = True

    def _addresses(self) -> list[str]:
        scheme = "https" if self.config.is_ssl else "http"
        found: list[str] = []
        for server in self.servers:
            for listener in server.sockets:
                name: Any = listener.getsockname()
                if self.config.uds is None:
                    host = f"[{name[0]}]" if ":" in name[0] else name[0]
                    found.append(f"{scheme}://{host}:{name[1]}")
                else:
                    found.append(f"unix:{name}")
        return found


def serve(app: Any, *, log_level: str, **options: Any) -> None:
    """Serve *app* until a signal; the first line of output says where."""
    configure_logging(log_level)
    Server(make_config(app, log_level=log_level, **options), _say).run()


def configure_logging(level: str) -> None:
    """Let `symphony.*` and `uvicorn.*` log to standard error, unless the user has seen to it."""
    for name in ("symphony", "uvicorn"):
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        if not logger.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logger.addHandler(handler)


def _say(addresses: list[str]) -> None:
    print(f"Symphony listens on {', '.join(addresses)} (stop it with Ctrl+C)", flush=True)
