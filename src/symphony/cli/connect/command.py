"""The command `symphony connect`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Literal

import typer

from symphony.cli.failing import FAILED, USAGE, fail

__all__ = ("connect",)


def connect(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Where to connect, ws:// or wss://. The default scheme is ws://.",
            show_default=False,
        ),
    ],
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", metavar="NAME:VALUE", help="Send a header with the handshake; repeatable."
        ),
    ] = None,
    cookie: Annotated[
        list[str] | None,
        typer.Option("--cookie", metavar="NAME=VALUE", help="Send a cookie; repeatable."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="SYMPHONY_TOKEN", show_envvar=True, help="A token that identifies you."),
    ] = None,
    protocol: Annotated[
        Literal["json", "msgpack"], typer.Option(help="The encoding of events on the wire.")
    ] = "json",
    subprotocol: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Offer a subprotocol of the application; repeatable."),
    ] = None,
    origin: Annotated[
        str | None, typer.Option(metavar="URL", help="Send this Origin, as a browser does.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Accept any certificate; for development.")
    ] = False,
    no_reconnect: Annotated[
        bool,
        typer.Option("--no-reconnect", help="Quit when the connection is lost, instead of reconnecting."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="The time limit for connecting and for each reply.")
    ] = 10.0,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Check that raw messages are JSON before sending them, and indent long JSON."
        ),
    ] = False,
    answer: Annotated[
        list[str] | None,
        typer.Option(metavar="EVENT=DATA", help="Answer the server's requests with this name; repeatable."),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="In a script: how long to listen after the end of the input and the last reply.",
        ),
    ] = None,
) -> None:
    """Connect to a WebSocket server from the terminal or a script.

    On a terminal, type a line to send it; /help shows the commands. With a
    pipe or a file, each line of the input is sent, and each message received
    is one line of the output.
    """
    # `symphony run` imports this module as well, and should start fast.
    from symphony.cli.connect.script import run_script
    from symphony.cli.connect.session import ConnectFailedError, StoppedBySignalError
    from symphony.cli.connect.settings import (
        Settings,
        UsageError,
        complete_url,
        cookie_headers,
        parse_answers,
        parse_headers,
    )
    from symphony.cli.connect.text import escape_controls

    interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        settings = Settings(
            url=complete_url(url),
            headers=parse_headers((*(header or ()), *cookie_headers(cookie or ()))),
            token=token,
            protocol=protocol,
            subprotocols=tuple(subprotocol or ()),
            origin=origin,
            insecure=insecure,
            reconnect=not no_reconnect,
            timeout=timeout,
            as_json=json,
            answers=parse_answers(answer or ()),
            wait=wait,
        )
        if interactive:
            # prompt_toolkit takes a while to import, and only a terminal needs it.
            from symphony.cli.connect.interactive import run_interactive

            code = asyncio.run(run_interactive(settings))
        else:
            code = asyncio.run(run_script(settings))
    except UsageError as error:
        fail(str(error), USAGE)
    except ConnectFailedError as error:
        fail(escape_controls(str(error)), FAILED)
    except (StoppedBySignalError, KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(FAILED) from None
    raise SystemExit(code)
