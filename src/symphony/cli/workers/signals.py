"""The signals of a supervisor."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

from symphony.transport.native.stopping import SIGNALS, end_at_once

__all__ = ("Signals",)


class Signals:
    """Takes note of signals, so that the loop of the supervisor can look at them.

    Attributes:
        terminated: Whether the server is to stop. A second signal ends the process.
        noticed: Whether proxies should notice that first: not with Ctrl+C.
        woken: Becomes readable with each signal, also with that of a process that
            has ended.
        kill: Called before a second signal ends the process.
    """

    def __init__(self) -> None:
        self.terminated = self.noticed = False
        self.kill: Callable[[], None] = _nothing
        self.woken, self._waker = socket.socketpair()
        self._hung_up = False
        self._has_terminal = _has_terminal()

    @contextmanager
    def handled(self) -> Generator[None]:
        """Handle signals inside the block."""
        self._waker.setblocking(False)
        self.woken.setblocking(False)
        before = {number: signal.getsignal(number) for number in SIGNALS}
        # What a parent has told us to ignore, as `nohup` does, stays ignored.
        ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in ours:
            signal.signal(number, self._handle)
        woken = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        if hasattr(signal, "SIGCHLD"):
            # The end of a worker can be seen only so, if its children have inherited its sentinel.
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
            ours.append(signal.SIGCHLD)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number in ours:
                signal.signal(number, before[number] or signal.SIG_DFL)
            self._waker.close()
            self.woken.close()

    def clear(self) -> None:
        """Wait for further signals."""
        with suppress(BlockingIOError):
            self.woken.recv(4096)

    def reload(self) -> bool:
        """Return whether SIGHUP has asked for a reload since the last call.

        The system sends it, too, if the terminal was closed. Nothing could stop the
        server any more, so that ends it.
        """
        hung_up, self._hung_up = self._hung_up, False
        if hung_up and self._has_terminal and not _has_terminal():
            self.terminated = True
            return False
        return hung_up

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None) and not self.terminated:
            self._hung_up = True
        elif self.terminated:
            self.kill()
            end_at_once(number)
        else:
            self.terminated, self.noticed = True, number == signal.SIGTERM


def _nothing() -> None:
    """Have no process to kill."""


def _ignore(number: int, frame: FrameType | None) -> None:
    """Let a signal end the wait, and nothing else."""


def _has_terminal() -> bool:
    """Return whether the process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True
