"""Follow the state of the connection, and tell the user about it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from symphony.cli.connect.error_messages import connection_problem
from symphony.cli.connect.incoming import Incoming
from symphony.cli.connect.view import View
from symphony.client import Client

__all__ = ("ConnectionMonitor", "LogHandler")


class LogHandler(logging.Handler):
    """Shows warnings in the view, so that log lines do not break the terminal.

    Args:
        report: Called with each warning and error.
        retrying: Called with the seconds until the client's next attempt.

    Attributes:
        last: The client's last message about its connection. Only the log says
            why a connection was lost that the client tries to restore.
    """

    def __init__(self, report: Callable[[str], None], retrying: Callable[[float], None]) -> None:
        super().__init__()
        self.last = ""
        self._report = report
        self._retrying = retrying

    def emit(self, record: logging.LogRecord) -> None:
        """Handle one log record."""
        # The session shows the end itself.
        if getattr(record, "final", False):
            return
        if record.levelno >= logging.WARNING:
            if not Incoming.is_wrong_guess(record):
                self._report(self.format(record))
        elif (retry_in := getattr(record, "retry_in", None)) is not None:
            self._retrying(retry_in)
        elif record.name == "symphony.client":
            self.last = record.getMessage()

    def install(self) -> None:
        """Handle everything that is logged from now on."""
        logging.getLogger().addHandler(self)
        logging.getLogger("symphony.client").setLevel(logging.INFO)

    def remove(self) -> None:
        """Stop handling log records."""
        logging.getLogger().removeHandler(self)


class ConnectionMonitor:
    """Follows the state of one client.

    Args:
        client: The client; not open yet.
        view: Told when the connection is lost, retried and restored.
        changed: Called when the connection opens (`True`) or is lost (`False`).
        greet: Called when it opens for the first time, before anything is shown.

    Attributes:
        log: Handles what the client logs, once it is installed.
        open: Set while there is a connection.
        failed: Set when the first attempt has failed; not if the client was only sent elsewhere.
        ended: Set at the end, after everything received before was shown.
    """

    def __init__(
        self, client: Client, view: View, changed: Callable[[bool], None], greet: Callable[[], None]
    ) -> None:
        self.log = LogHandler(view.problem, self._retrying)
        self.open = asyncio.Event()
        self.failed = asyncio.Event()
        self.ended = asyncio.Event()
        self._view = view
        self._changed = changed
        self._greet = greet
        self._opened = False
        self._lost_at = 0.0
        self._problem = ""
        self._shown_problem = ""
        client.on_state(self._state)

    def _state(self, state: str) -> None:
        # A task that is already scheduled shows what arrived before the end of
        # a connection. `call_soon` puts everything else after it.
        soon = asyncio.get_running_loop().call_soon
        match state:
            case "open":
                self.open.set()
                if self._opened:
                    self._reconnected()
                else:
                    self._opened = True
                    self._greet()
                self._changed(True)
            case "waiting" if self._opened:
                self._problem = connection_problem(self.log.last)
                soon(self._lost)
            case "closed":
                self.open.clear()
                soon(self.ended.set)
            case _:
                pass

    def _retrying(self, seconds: float) -> None:
        if self._opened:
            asyncio.get_running_loop().call_soon(self._show_retry, seconds)
        elif seconds > 0:
            # A failure of the first attempt ends the program. Without a delay, it was sent elsewhere,
            # and another connection may reach the right node.
            self.failed.set()

    def _lost(self) -> None:
        if self.open.is_set():
            self.open.clear()
            self._lost_at = time.monotonic()
            self._changed(False)

    def _show_retry(self, seconds: float) -> None:
        problem = self._problem
        if problem == self._shown_problem:
            problem = "Still not connected."
        self._shown_problem = self._problem
        self._view.note(f"{problem} Trying again in {seconds:.1f} s.")

    def _reconnected(self) -> None:
        self._shown_problem = ""
        self._view.note(f"Reconnected after {time.monotonic() - self._lost_at:.1f} s.")
