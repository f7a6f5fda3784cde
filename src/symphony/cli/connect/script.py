"""`symphony connect` in a script: standard input or output is not a terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from symphony.cli.connect.close_codes import describe_end
from symphony.cli.connect.line_source import StandardInput
from symphony.cli.connect.parser import Close, LineError
from symphony.cli.connect.script_view import ScriptView
from symphony.cli.connect.session import Session, StoppedBySignalError
from symphony.cli.connect.settings import Settings
from symphony.cli.failing import FAILED, USAGE

__all__ = ("run_script",)

_NORMAL: Final = 1000
_SIGNAL_EXIT: Final = 128
# Seconds to listen after sending something that gets no reply.
_WAIT: Final = 1.0


async def run_script(settings: Settings) -> int:
    """Send standard input line by line, and return the exit code.

    Raises:
        UsageError: An option is invalid.
        ConnectFailedError: The first attempt to connect failed.
    """
    view = ScriptView(sys.stdout, as_json=settings.as_json)
    try:
        async with Session(settings, view) as session:
            return await _run(session, view, settings.wait)
    except StoppedBySignalError as error:
        return _SIGNAL_EXIT + error.signal


async def _run(session: Session, view: ScriptView, wait: float | None) -> int:
    code = await session.until_closed(_send_all(session, view, wait), view.broken)
    if code is not None:
        return code
    close = session.client.closed
    if close is None:
        # The reader of the output has closed it, as `| head -1` does.
        return 0
    if close.code != _NORMAL:
        view.note(describe_end(close.code, close.reason))
    return FAILED if close.code != _NORMAL or session.executor.failed else 0


async def _send_all(session: Session, view: ScriptView, wait: float | None) -> int:
    """Send standard input and wait for the replies; return the exit code."""
    executor, source = session.executor, StandardInput()
    number = code = 0
    while (line := await source.read_line()) is not None:
        number += 1
        await session.monitor.open.wait()
        try:
            action = executor.parse(line, script=True)
            if isinstance(action, Close):
                await session.client.close(action.code, action.reason)
                return code or (FAILED if executor.failed else 0)
            await executor.execute(action, script=True)
        except LineError as error:
            view.problem(f"Line {number}: {error}")
            code = USAGE
            break
    await executor.wait_for_replies()
    if wait is None:
        wait = _WAIT if executor.sent_without_reply else 0.0
    await asyncio.sleep(wait)
    return code or (FAILED if executor.failed else 0)
