"""Serves the app that a command names: what the processes of `--workers` and `--reload` run.

They need no command line, which takes as long to import as a tenth of Symphony.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable
from typing import Any

from symphony.cli.failing import FAILED, USAGE, fail
from symphony.cli.finding import AppImportError, Source, TargetError, load
from symphony.transport.native.config import Config
from symphony.transport.native.server import Server, serve

__all__ = ("serve_source",)


def serve_source(
    source: Source,
    options: dict[str, Any],
    sockets: list[socket.socket] | None = None,
    make_server: Callable[[Config], Server] | None = None,
    process: str | None = None,
) -> None:
    """Load the app and serve it; with `--reload` and `--workers` this runs in a child process."""
    try:
        app = load(source)
    except AppImportError as error:
        traceback.print_exception(error.__cause__)
        fail(str(error), FAILED)
    except TargetError as error:
        fail(str(error), USAGE)
    serve(app, sockets=sockets, make_server=make_server, process=process, **options)
