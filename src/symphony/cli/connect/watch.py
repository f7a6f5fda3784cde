"""What becomes of the connection: told to the user, and to whoever waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from symphony.cli.connect.incoming import Incoming
from symphony.cli.connect.view import View
from symphony.cli.connect.words import lost
from symphony.client import Client

__all__ = ("Log", "Watch")


class Log(logging.Handler):
    """What the client and the libraries log, instead of lines in the midst of the terminal.

    Args:
        say: Gets warnings and worse.

    Attributes:
        last: What the client said last of its connection; only its log tells
            why one was lost that it tries to get back.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.last = ""
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        if record.levelno >= logging.WARNING:
            if not Incoming.is_guess(record):
                self._say(self.format(record))
        elif record.name == "symphony.client":
            self.last = record.getMessage()

    def install(self) -> None:
        """Take all that is logged from now on."""
        logging.getLogger().addHandler(self)
        logging.getLogger("symphony.client").setLevel(logging.INFO)

    def remove(self) -> None:
        """Take nothing any more."""
        logging.getLogger().removeHandler(self)


class Watch:
    """Follows the state of one client.

    Args:
        client: Not open yet.
        view: Told of what was lost and came back.
        log: Of the client.
        changed: Called when the connection opens (`True`) or is lost.
        greet: Called when it opens for the first time, before anything else.

    Attributes:
        open: Set while there is a connection.
        failed: Set when the first attempt has failed.
        ended: Set at the end, when all that had come before was shown.
    """

    def __init__(
        self, client: Client, view: View, log: Log, changed: Callable[[bool], None], greet: Callable[[], None]
    ) -> None:
        self.open = asyncio.Event()
        self.failed = asyncio.Event()
        self.ended = asyncio.Event()
        self._view = view
        self._log = log
        self._changed = changed
        self._greet = greet
        self._opened = False
        self._lost_at = 0.0
        self._told = ""
        client.on_state(self._state)

    def _state(self, state: str) -> None:
        # What came before the end of a connection is shown by a task that was
        # woken, and runs now: the rest is told behind it.
        soon = asyncio.get_running_loop().call_soon
        match state:
            case "open":
                self.open.set()
                if self._opened:
                    self._back()
                else:
                    self._opened = True
                    self._greet()
                self._changed(True)
            case "waiting" if self._opened:
                soon(self._tell, lost(self._log.last))
            case "waiting":
                self.failed.set()
            case "closed":
                self.open.clear()
                soon(self.ended.set)
            case _:
                pass

    def _tell(self, why: str) -> None:
        if self.open.is_set():
            self.open.clear()
            self._lost_at = time.monotonic()
            self._changed(False)
        # Told once, however many attempts fail in the same way.
        if why != self._told:
            self._told = why
            self._view.note(f"{why} Trying again.")

    def _back(self) -> None:
        self._told = ""
        self._view.note(f"Connected again, after {time.monotonic() - self._lost_at:.1f} s.")
