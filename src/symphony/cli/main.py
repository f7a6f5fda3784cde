"""The command `symphony`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from symphony.broker.engines import MEMORY
from symphony.cli.connect.command import connect
from symphony.cli.failing import FAILED, USAGE, fail
from symphony.cli.finding import TargetError, locate
from symphony.cli.reloading import serve_reloading
from symphony.cli.serving import serve_source
from symphony.cli.workers.sharing import broker_in, tell_broker
from symphony.cli.workers.supervisor import supervise
from symphony.errors import BrokerUnavailableError, ConfigurationError
from symphony.node.brokers import BROKER_VARIABLE
from symphony.transport.native.certificate import check_certificate
from symphony.transport.native.listen import ListenError
from symphony.transport.native.logs import DEFAULT_LEVEL, LEVELS, check_level

__all__ = ("MAX_WORKERS", "cli", "main")

MAX_WORKERS: Final = 256
"""The most workers of one server."""

cli = typer.Typer(
    help="Symphony: the real-time framework for Python.",
    no_args_is_help=True,
    add_completion=False,
    # Our own errors are one line, and the user's own tracebacks look as Python prints them.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command."""
    cli()


def _say_version(wanted: bool) -> None:
    if wanted:
        # Every server and every worker imports this module, and reading metadata takes a while to import.
        from importlib.metadata import version

        typer.echo(f"symphony {version('symphony-ws')}")
        raise typer.Exit


@cli.callback()
def _symphony(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@cli.command("run")
def _run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="APP",
            help="module:app or path/to/file.py:app. Without a name, the only app in the module. "
            "The name may be that of a function that returns the app.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(envvar="SYMPHONY_HOST", help="Address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="SYMPHONY_PORT", min=0, max=65535, help="Port to listen on; 0 for a free one."),
    ] = 8080,
    uds: Annotated[str | None, typer.Option(help="Path of a Unix socket to listen on instead.")] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, max=MAX_WORKERS, help="How many processes serve the app, on one machine."
        ),
    ] = 1,
    broker: Annotated[
        str | None,
        typer.Option(
            envvar=BROKER_VARIABLE,
            help="URL of the broker that keeps the rooms. An app can name its own.",
            show_default=MEMORY,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that keeps the rooms over restarts: short for --broker sqlite:///DIR/rooms.db.",
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when a Python file next to the app changes.")
    ] = False,
    ssl_certfile: Annotated[
        Path | None, typer.Option(help="Certificate chain in PEM; with it the server speaks https and wss.")
    ] = None,
    ssl_keyfile: Annotated[
        Path | None, typer.Option(help="Key of the certificate, unless it is in the same file.")
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help=f"The least severe messages to log: {', '.join(LEVELS)}.",
            show_default=DEFAULT_LEVEL,
        ),
    ] = None,
    proxy_headers: Annotated[
        bool,
        typer.Option(
            "--proxy-headers",
            help="Take the client's address and scheme from the X-Forwarded headers of trusted proxies.",
        ),
    ] = False,
    forwarded_allow_ips: Annotated[
        str, typer.Option(help="Addresses of trusted proxies, separated by commas.")
    ] = "127.0.0.1",
) -> None:
    """Serve an app until Ctrl+C."""
    try:
        level = None if log_level is None else check_level(log_level)
        check_certificate(ssl_certfile, ssl_keyfile)
    except ConfigurationError as error:
        fail(str(error), USAGE)
    if reload and workers > 1:
        fail("--reload serves with one process: leave out --workers.", USAGE)
    where: dict[str, Any] = {"host": host, "port": port, "uds": uds, "log_level": level}
    options = {
        **where,
        "ssl_certfile": str(ssl_certfile) if ssl_certfile is not None else None,
        "ssl_keyfile": str(ssl_keyfile) if ssl_keyfile is not None else None,
        "proxy_headers": proxy_headers,
        "forwarded_allow_ips": forwarded_allow_ips,
    }
    try:
        source = locate(target)
        if data is not None and broker is not None:
            raise ConfigurationError("--data and --broker both name a broker: leave out one of them.")
        broker = broker if data is None else broker_in(data)
        tell_broker(broker)
        if reload:
            serve_reloading(partial(serve_source, source, options), source.watched, **where)
        elif workers > 1:
            tls = ssl_certfile is not None
            code = supervise(partial(serve_source, source, options), workers, tls=tls, broker=broker, **where)
            raise typer.Exit(code)
        else:
            serve_source(source, options)
    except (TargetError, ConfigurationError) as error:
        fail(str(error), USAGE)
    except (ListenError, BrokerUnavailableError) as error:
        fail(str(error), FAILED)


cli.command("connect")(connect)
