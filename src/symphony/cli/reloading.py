"""`symphony run --reload`: a supervisor, and one server process after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from uvicorn import Config
from uvicorn.supervisors import ChangeReload

from symphony.transport.native.listen import listening
from symphony.transport.native.server import configure_logging

__all__ = ("serve_reloading",)


def serve_reloading(
    serve: Callable[..., None],
    watched: Path,
    *,
    host: str,
    port: int,
    uds: str | None,
    log_level: str,
) -> None:
    """Run *serve* in a process, in a new one whenever a file changes, until a signal.

    The address is bound once: clients that come between two processes wait
    for the second instead of being refused.

    Args:
        serve: Called as `serve(sockets=[...])`; serves on them until a
            signal. It is pickled.
        watched: The folder whose Python files are watched.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        uds: Path of a Unix socket to listen on instead.
        log_level: For the supervisor's own words.

    Raises:
        ListenError: The address cannot be listened on.
    """
    configure_logging(log_level)
    # uvicorn watches only for an app that it could import itself; its name is
    # not used, for `serve` finds the app.
    config = Config("", reload=True, reload_dirs=[str(watched)], log_config=None)
    with listening(host, port, uds) as sockets:
        ChangeReload(config, target=serve, sockets=sockets).run()
