"""`symphony connect` on a terminal: a person types, and reads."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import Final

from rich.console import Console

from symphony.cli.connect.completion import completion
from symphony.cli.connect.history import History, state_directory
from symphony.cli.connect.lines import Leave, LineError
from symphony.cli.connect.screen import Screen
from symphony.cli.connect.session import Interrupted, Session
from symphony.cli.connect.settings import Settings
from symphony.cli.connect.source import Source, StandardInput
from symphony.cli.connect.words import ended
from symphony.cli.failing import FAILED
from symphony.client import Client

__all__ = ("by_hand",)

_NORMAL: Final = 1000
_HISTORY: Final = "connect_history"


async def by_hand(settings: Settings) -> int:
    """Connect, and return the exit code when all is said.

    Raises:
        UsageError: An option is none.
        RefusedError: There is no connection.
        Interrupted: A signal came before there was one.
    """
    # Not even bold type where no colours are wanted: https://no-color.org
    console = Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    if sys.platform == "win32" or os.environ.get("TERM") == "dumb":
        terminal = None
        screen = Screen(console.print, as_json=settings.as_json)
        session = Session(settings, screen, greet=lambda client: _greet(client, settings, screen))
    else:
        # Windows has not what it needs.
        from symphony.cli.connect.terminal import Terminal

        terminal = Terminal(console, History(state_directory() / _HISTORY))
        screen = Screen(terminal.show, as_json=settings.as_json)
        session = Session(
            settings,
            screen,
            changed=lambda open: terminal.set_mark("> " if open else "(not connected) > "),
            greet=lambda client: _greet(client, settings, screen),
        )
        conversation = session.conversation
        terminal.complete = lambda before: completion(
            before, conversation.names, events=conversation.speaks_events
        )
    async with session:
        with terminal or nullcontext():
            try:
                leave = await session.until(_talk(terminal or StandardInput(), session, screen))
            except Interrupted:
                leave = Leave(_NORMAL, "")
        if leave is not None:
            await session.client.close(leave.code, leave.reason)
            screen.note("Closed.")
            return 0
        close = session.client.closed
        assert close is not None
        screen.note(ended(close.code, close.reason))
        return 0 if close.code == _NORMAL else FAILED


async def _talk(source: Source, session: Session, screen: Screen) -> Leave:
    conversation = session.conversation
    while (line := await source.line()) is not None:
        try:
            action = conversation.read(line)
            if isinstance(action, Leave):
                return action
            await conversation.do(action)
        except LineError as error:
            screen.typed(line)
            screen.problem(str(error))
    return Leave(_NORMAL, "")


def _greet(client: Client, settings: Settings, screen: Screen) -> None:
    speaks, typed = client.protocol, "/help shows what can be typed"
    if client.protocol == "raw":
        own = client.subprotocol in settings.subprotocols
        speaks, typed = f"raw, {client.subprotocol}" if own else "raw", "What you type is sent, but for /help"
    screen.note(f"Connected to {settings.url.partition('?')[0]} ({speaks}).")
    screen.note(f"{typed}; Ctrl+D ends.")
