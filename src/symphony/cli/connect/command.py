"""The command `symphony connect`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Literal

import typer

from symphony.cli.connect.by_hand import by_hand
from symphony.cli.connect.by_script import by_script
from symphony.cli.connect.session import Interrupted, RefusedError
from symphony.cli.connect.settings import Settings, UsageError, complete_url, parse_answers, parse_headers
from symphony.cli.connect.text import harmless
from symphony.cli.failing import FAILED, USAGE, fail

__all__ = ("connect",)


def connect(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="Where to: ws:// or wss://; without either it is ws://.", show_default=False
        ),
    ],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME:VALUE", help="A header of the handshake; repeatable."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="SYMPHONY_TOKEN", show_envvar=True, help="A token that says who you are."),
    ] = None,
    protocol: Annotated[
        Literal["json", "msgpack"], typer.Option(help="How events are written on the wire.")
    ] = "json",
    subprotocol: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Offer a subprotocol of the app's own; repeatable."),
    ] = None,
    origin: Annotated[
        str | None, typer.Option(metavar="URL", help="The Origin, as a browser sends it.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Accept any certificate; for development.")
    ] = False,
    no_reconnect: Annotated[
        bool, typer.Option("--no-reconnect", help="End when the connection is lost, instead of coming back.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="For connecting, and for the reply to each request.")
    ] = 10.0,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Raw messages must be JSON when they are sent; long JSON is shown indented."
        ),
    ] = False,
    answer: Annotated[
        list[str] | None,
        typer.Option(metavar="EVENT=DATA", help="Answer the server's requests of that name; repeatable."),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="In a script: listen for so long after the end of the input and the last reply.",
        ),
    ] = None,
) -> None:
    """Talk to a WebSocket server: by hand, or in a script.

    On a terminal you type lines and see what comes; /help shows the commands.
    With a pipe or a file, each line is sent, and each message that comes is
    written as one line.
    """
    hand = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        settings = Settings(
            url=complete_url(url),
            headers=parse_headers(header or ()),
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
        code = asyncio.run(by_hand(settings) if hand else by_script(settings))
    except UsageError as error:
        fail(str(error), USAGE)
    except RefusedError as error:
        fail(harmless(str(error)), FAILED)
    except (Interrupted, KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(FAILED) from None
    raise SystemExit(code)
