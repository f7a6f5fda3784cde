"""Signals, and the time that a stop may take."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, cast

__all__ = ("SIGNALS", "Deadline", "Signals", "end_at_once")

logger = logging.getLogger("symphony.transport")

SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""The signals that stop a server in order."""

# How long the last log line may take: its reader may be what hangs.
_LAST_WORDS: Final = 0.5


def end_at_once(number: int) -> None:
    """End the process without any clean-up, with the exit code that a signal has in a shell."""
    os._exit(128 + number)


class Signals:
    """The signals of a server process: the first stops it, the second ends it.

    Args:
        stop: Called at the first signal, with its number.
        supervised: Whether a supervisor passes its own signal on as SIGTERM.
    """

    def __init__(self, stop: Callable[[int], None], *, supervised: bool) -> None:
        self._stop = stop
        self._stopping = False
        # A terminal sends Ctrl+C to the supervisor and to this process. The SIGTERM of
        # the supervisor is then the same request, not a second one.
        self._awaits_supervisor = supervised

    @contextmanager
    def handled(self) -> Generator[None]:
        """Handle the signals inside the block, if it runs in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # What a parent has told us to ignore, as `nohup` does, stays ignored.
        before = {number: signal.getsignal(number) for number in SIGNALS}
        ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in ours:
            signal.signal(number, self.handle)
        try:
            yield
        finally:
            for number in ours:
                handler = before[number]
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """Handle one signal."""
        from_supervisor = self._awaits_supervisor and number == signal.SIGTERM
        if from_supervisor:
            self._awaits_supervisor = False
        elif self._stopping:
            end_at_once(number)
        self._leave_the_next_to_the_system()
        if not self._stopping:
            self._stopping = True
            self._stop(number)

    def _leave_the_next_to_the_system(self) -> None:
        # Python runs signal handlers only between two of its instructions. The system's
        # default action always works, except for process 1 of a container.
        if os.getpid() == 1 or threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) == self.handle and not (
                self._awaits_supervisor and number == signal.SIGTERM
            ):
                signal.signal(number, signal.SIG_DFL)


class Deadline:
    """Ends the process if its stop takes too long, even if a thread or the event loop hangs."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._decided = threading.Event()
        self._program_ends = threading.Event()
        self._returned = False

    def start(self, seconds: float) -> None:
        """Allow the stop this time from now on."""
        # Both now: Python 3.12 starts no thread while it waits for the threads of the program.
        writer = threading.Thread(target=self._write, args=(seconds,), name="symphony-log", daemon=True)
        writer.start()
        watch = threading.Thread(
            target=self._watch, args=(seconds, writer), name="symphony-stop", daemon=True
        )
        watch.start()

    def returned(self) -> None:
        """Take note that the server has stopped, and its program goes on.

        Python waits for threads when the program ends. If there are any, only
        that end must not take longer.
        """
        self._returned = True
        if not _threads():
            self._cancelled.set()
            return
        # Private, but there is no other hook that runs before Python waits for threads:
        # `atexit` and the end of the main thread come after the threads of pools.
        try:
            cast("Any", threading)._register_atexit(self._program_ends.set)
        except RuntimeError:
            self._program_ends.set()

    def _watch(self, seconds: float, writer: threading.Thread) -> None:
        cancelled = self._cancelled.wait(seconds)
        if not cancelled and self._returned:
            self._program_ends.wait()
        self._decided.set()
        if not cancelled:
            writer.join(_LAST_WORDS)
            os._exit(1)

    def _write(self, seconds: float) -> None:
        self._decided.wait()
        if self._cancelled.is_set():
            return
        logger.error(
            "The stop took longer than %.1f s, so the process ends now. Threads that still run: %s.",
            seconds,
            ", ".join(_threads()) or "none",
        )
        logging.shutdown()
        sys.stdout.flush()


def _threads() -> list[str]:
    """Return the names of the threads that Python waits for at its end."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
