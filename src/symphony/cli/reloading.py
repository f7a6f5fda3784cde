"""`symphony run --reload`: a supervisor that restarts the server process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from uvicorn import Config
from uvicorn.supervisors import ChangeReload

from symphony.transport.native.listen import listening
from symphony.transport.native.logs import configure_logging
from symphony.transport.native.stopping import SIGNALS, end_at_once

__all__ = ("serve_reloading",)


def serve_reloading(
    serve: Callable[..., None],
    watched: Path,
    *,
    host: str,
    port: int,
    uds: str | None,
    log_level: str | None,
) -> None:
    """Run *serve* in a process, and in a new one whenever a file changes, until a signal.

    The supervisor binds the address once. Clients that connect during a
    restart wait for the new process instead of being refused.

    Args:
        serve: Called as `serve(sockets=[...])`; serves on them until a
            signal. It is pickled.
        watched: The folder whose Python files are watched.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        uds: Path of a Unix socket to listen on instead.
        log_level: The log level of the supervisor.

    Raises:
        ListenError: The address cannot be listened on.
    """
    configure_logging(log_level)
    # uvicorn reloads only an app that is given as an import string. It does not
    # use the string: `serve` finds the app.
    config = Config("", reload=True, reload_dirs=[str(watched)], log_config=None)
    with listening(host, port, uds) as sockets:
        _Supervisor(config, target=serve, sockets=sockets).run()


class _Supervisor(ChangeReload):
    """Stops with its server at a signal, and ends with it at the second."""

    def startup(self) -> None:
        """Start the server process."""
        super().startup()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self.signal_handler)

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:
        """Handle one signal."""
        if self.should_exit.is_set():
            self.process.kill()
            end_at_once(sig)
        super().signal_handler(sig, frame)
