"""`symphony connect` on a terminal: a person types, and reads."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from rich.console import Console

from symphony.cli.connect.completion import completion
from symphony.cli.connect.history import History, state_directory
from symphony.cli.connect.lines import Leave, LineError
from symphony.cli.connect.plain import PlainTerminal
from symphony.cli.connect.screen import Screen
from symphony.cli.connect.session import Interrupted, Session
from symphony.cli.connect.settings import Settings
from symphony.cli.connect.source import Source
from symphony.cli.connect.words import ended
from symphony.cli.failing import FAILED
from symphony.client import Client

if TYPE_CHECKING:
    from symphony.cli.connect.terminal import Terminal

__all__ = ("by_hand",)

_NORMAL: Final = 1000
_HISTORY: Final = "connect_history"
# Seconds after which somebody wonders.
_SLOW: Final = 1.0


async def by_hand(settings: Settings) -> int:
    """Connect, and return the exit code when all is said.

    Raises:
        UsageError: An option is none.
        RefusedError: There is no connection.
        Interrupted: A signal came before there was one.
    """
    terminal = _terminal()
    screen = Screen(terminal.show, as_json=settings.as_json)
    where = settings.url.partition("?")[0]
    slow = asyncio.get_running_loop().call_later(_SLOW, screen.note, f"Connecting to {where} ...")

    def greet(client: Client) -> None:
        slow.cancel()
        _greet(client, where, settings.subprotocols, screen)

    session = Session(
        settings,
        screen,
        changed=lambda open: terminal.set_mark("> " if open else "(not connected) > "),
        greet=greet,
    )
    conversation = session.conversation
    terminal.complete = lambda before: completion(
        before, conversation.names, events=conversation.speaks_events
    )
    # From the first moment on, so that what is typed early is not lost.
    with terminal:
        async with session:
            try:
                leave = await session.until(_talk(terminal, session, screen))
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


def _terminal() -> Terminal | PlainTerminal:
    # Not even bold type where no colours are wanted: https://no-color.org
    console = Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    if sys.platform == "win32" or os.environ.get("TERM") == "dumb":
        return PlainTerminal(console)
    # Windows has not what it needs.
    from symphony.cli.connect.terminal import Terminal

    return Terminal(console, History(state_directory() / _HISTORY))


def _greet(client: Client, where: str, own: Collection[str], screen: Screen) -> None:
    speaks, typed = client.protocol, "/help shows what can be typed"
    if client.protocol == "raw":
        speaks = f"raw, {client.subprotocol}" if client.subprotocol in own else "raw"
        typed = "Lines are sent as they are, /help shows what else there is"
    screen.note(f"Connected to {where} ({speaks}).")
    screen.note(f"{typed}, Ctrl+D ends.")
