"""`symphony connect` on a terminal: a person types and reads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from typing import Final

from prompt_toolkit.utils import is_dumb_terminal
from rich.console import Console

from symphony.cli.connect.close_codes import describe_end
from symphony.cli.connect.completion import CommandCompleter
from symphony.cli.connect.history import LineHistory, state_directory
from symphony.cli.connect.line_source import LineSource
from symphony.cli.connect.parser import Close, LineError
from symphony.cli.connect.plain_terminal import PlainTerminal
from symphony.cli.connect.session import Session, StoppedBySignalError
from symphony.cli.connect.settings import Settings
from symphony.cli.connect.terminal import Terminal
from symphony.cli.connect.terminal_view import TerminalView
from symphony.cli.failing import FAILED
from symphony.client import Client

__all__ = ("run_interactive",)

_NORMAL: Final = 1000
_HISTORY: Final = "connect_history"
# Seconds of connecting after which the user should see what happens.
_SLOW: Final = 1.0


async def run_interactive(settings: Settings) -> int:
    """Connect, send the lines that are typed, and return the exit code.

    Raises:
        UsageError: An option is invalid.
        ConnectFailedError: The first attempt to connect failed.
        StoppedBySignalError: A signal arrived before the connection was open.
    """
    terminal = _terminal()
    view = TerminalView(terminal.show, as_json=settings.as_json)
    where = settings.url.partition("?")[0]
    slow = asyncio.get_running_loop().call_later(_SLOW, view.note, f"Connecting to {where} ...")

    def greet(client: Client) -> None:
        slow.cancel()
        _greet(client, where, settings.subprotocols, view)

    session = Session(
        settings,
        view,
        changed=lambda open: terminal.set_prompt("> " if open else "(not connected) > "),
        greet=greet,
    )
    completer = CommandCompleter(
        event_names=lambda: session.executor.event_names,
        room_names=lambda: session.executor.rooms.names,
        speaks_events=lambda: session.executor.speaks_events,
    )
    # Open the terminal first, so that it keeps what is typed while connecting.
    async with terminal.open(completer=completer, interrupt=session.interrupt), session:
        try:
            close = await session.until_closed(_execute_lines(terminal, session, view))
        except StoppedBySignalError:
            close = Close(_NORMAL, "")
        if close is not None:
            await session.client.close(close.code, close.reason)
            view.note("Closed.")
            return 0
        ended = session.client.closed
        assert ended is not None
        view.note(describe_end(ended.code, ended.reason))
        return 0 if ended.code == _NORMAL else FAILED


async def _execute_lines(source: LineSource, session: Session, view: TerminalView) -> Close:
    executor = session.executor
    while (line := await source.read_line()) is not None:
        try:
            action = executor.parse(line)
            if isinstance(action, Close):
                return action
            await executor.execute(action)
        except LineError as error:
            view.typed(line)
            view.problem(str(error))
    return Close(_NORMAL, "")


def _terminal() -> Terminal | PlainTerminal:
    # https://no-color.org: without a colour system, rich does not use bold either.
    console = Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    if is_dumb_terminal():
        return PlainTerminal(console)
    return Terminal(console, LineHistory(state_directory() / _HISTORY))


def _greet(client: Client, where: str, offered: Collection[str], view: TerminalView) -> None:
    protocol, lines = client.protocol, ""
    if client.protocol == "raw":
        protocol = f"raw, {client.subprotocol}" if client.subprotocol in offered else "raw"
        lines = "Each line is sent as it is. "
    view.note(f"Connected to {where} ({protocol}).")
    view.note(f"{lines}Type /help for the commands, press Ctrl+D to quit.")
