"""`symphony connect` in a script: lines come from a pipe or a file, or go to one."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from symphony.cli.connect.lines import Leave, LineError
from symphony.cli.connect.pipes import Pipes
from symphony.cli.connect.session import Interrupted, Session
from symphony.cli.connect.settings import Settings
from symphony.cli.connect.source import StandardInput
from symphony.cli.connect.words import ended
from symphony.cli.failing import FAILED, USAGE

__all__ = ("by_script",)

_NORMAL: Final = 1000
_BY_SIGNAL: Final = 128
# How long more may come behind what has no answer of its own.
_WAIT: Final = 1.0


async def by_script(settings: Settings) -> int:
    """Connect, and return the exit code when all is said.

    Raises:
        UsageError: An option is none.
        RefusedError: There is no connection.
        Interrupted: A signal came before there was one.
    """
    pipes = Pipes(sys.stdout, as_json=settings.as_json)
    try:
        async with Session(settings, pipes) as session:
            return await _converse(session, pipes, settings.wait)
    except Interrupted as interrupted:
        return _BY_SIGNAL + interrupted.signal


async def _converse(session: Session, pipes: Pipes, wait: float | None) -> int:
    code = await session.until(_send_all(session, pipes, wait), pipes.broken)
    if code is not None:
        return code
    close = session.client.closed
    if close is None:
        # Whoever reads has had enough, as in `| head -1`.
        return 0
    if close.code != _NORMAL:
        pipes.note(ended(close.code, close.reason))
    return FAILED if close.code != _NORMAL or session.conversation.failed else 0


async def _send_all(session: Session, pipes: Pipes, wait: float | None) -> int:
    """Send standard input, and wait for the answers."""
    conversation, source = session.conversation, StandardInput()
    number = code = 0
    while (line := await source.line()) is not None:
        number += 1
        await session.watch.open.wait()
        try:
            action = conversation.read(line, script=True)
            if isinstance(action, Leave):
                await session.client.close(action.code, action.reason)
                return code or (FAILED if conversation.failed else 0)
            await conversation.do(action, script=True)
        except LineError as error:
            pipes.problem(f"Line {number}: {error}")
            code = USAGE
            break
    await conversation.settled()
    if wait is None:
        wait = _WAIT if conversation.unanswered else 0.0
    await asyncio.sleep(wait)
    return code or (FAILED if conversation.failed else 0)
