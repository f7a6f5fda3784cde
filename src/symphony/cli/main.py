"""The command `symphony`."""

from __future__ import annotations

import socket
import traceback
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from symphony.cli.connect.command import connect
from symphony.cli.failing import FAILED, USAGE, fail
from symphony.cli.finding import AppImportError, Source, TargetError, load, locate
from symphony.cli.reloading import serve_reloading
from symphony.errors import ConfigurationError
from symphony.transport.native.listen import ListenError
from symphony.transport.native.server import serve

__all__ = ("cli", "main")

cli = typer.Typer(
    help="Symphony: the real-time framework for Python.",
    no_args_is_help=True,
    add_completion=False,
    # Errors of ours are one line, and a user's own traceback is shown as Python does.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    cli()


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"symphony {version('symphony-ws')}")
        raise typer.Exit


@cli.callback()
def _symphony(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and exit."),
    ] = False,
) -> None:
    pass


@cli.command("run")
def _run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="APP",
            help="module:app, or path/to/file.py[:app]. Without a name it is 'app', or the only one there.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(envvar="HOST", help="Address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PORT", min=0, max=65535, help="Port to listen on; 0 for a free one.")
    ] = 8080,
    uds: Annotated[str | None, typer.Option(help="Path of a Unix socket to listen on instead.")] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a Python file beside the app changes.")
    ] = False,
    ssl_certfile: Annotated[
        Path | None, typer.Option(help="Certificate chain in PEM; then it serves https and wss.")
    ] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="The certificate's key.")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], typer.Option(help="What is logged.")
    ] = "warning",
    proxy_headers: Annotated[
        bool, typer.Option("--proxy-headers", help="Believe the X-Forwarded headers of trusted proxies.")
    ] = False,
    forwarded_allow_ips: Annotated[
        str, typer.Option(help="Addresses of trusted proxies, comma-separated.")
    ] = "127.0.0.1",
) -> None:
    """Serve an app until Ctrl+C."""
    if ssl_keyfile is not None and ssl_certfile is None:
        fail("--ssl-keyfile needs --ssl-certfile too.", USAGE)
    for option, file in (("--ssl-certfile", ssl_certfile), ("--ssl-keyfile", ssl_keyfile)):
        if file is not None and not file.is_file():
            fail(f"{option}: there is no file {file}.", USAGE)
    where: dict[str, Any] = {"host": host, "port": port, "uds": uds, "log_level": log_level}
    options = {
        **where,
        "ssl_certfile": str(ssl_certfile) if ssl_certfile is not None else None,
        "ssl_keyfile": str(ssl_keyfile) if ssl_keyfile is not None else None,
        "proxy_headers": proxy_headers,
        "forwarded_allow_ips": forwarded_allow_ips,
    }
    try:
        source = locate(target)
        if reload:
            serve_reloading(partial(_serve, source, options), source.watched, **where)
        else:
            _serve(source, options)
    except TargetError as error:
        fail(str(error), USAGE)
    except ListenError as error:
        fail(str(error), FAILED)


def _serve(source: Source, options: dict[str, Any], sockets: list[socket.socket] | None = None) -> None:
    """Load the app and serve it; with a reload this is what runs in the child."""
    try:
        serve(load(source), sockets=sockets, **options)
    except AppImportError as error:
        traceback.print_exception(error.__cause__)
        fail(str(error), FAILED)
    except TargetError as error:
        fail(str(error), USAGE)
    except ConfigurationError as error:
        fail(str(error), FAILED)


cli.command("connect")(connect)
