"""The process of one worker, as the supervisor sees it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from typing import Final

from symphony.cli.workers.leftovers import Leftovers
from symphony.cli.workers.line import Line, Stop
from symphony.cli.workers.sockets import Slots
from symphony.cli.workers.worker import work

__all__ = ("WorkerProcess", "ending")

# A new interpreter: no state of the supervisor, its threads and its broker gets into it.
_SPAWN: Final = get_context("spawn")


class WorkerProcess:
    """A worker that was started.

    Args:
        serve: Loads and serves the app; it is pickled.
        slot: The slot that the worker is for.
        slots: The listening sockets of all workers.
        leftovers: What the workers remove if this process is killed.

    Attributes:
        slot: The slot.
        line: The supervisor's end of the line.
        process: The process.
    """

    def __init__(self, serve: Callable[..., None], slot: int, slots: Slots, leftovers: Leftovers) -> None:
        self.slot = slot
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.line = Line(ours)
        self.process = _SPAWN.Process(
            target=work, args=(serve, slot, theirs, slots, leftovers), name=f"worker {slot + 1}"
        )
        self._listens: frozenset[int] = frozenset()
        with theirs:
            self.process.start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def listen(self, slots: Iterable[int]) -> None:
        """Have it listen for exactly these slots."""
        wanted = frozenset(slots)
        if wanted != self._listens:
            self._listens = wanted
            self.line.say(listen=sorted(wanted))

    def stop(self, how: Stop) -> None:
        """Tell it to stop, which it does in order."""
        self.line.say(stop=how)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def ended(self) -> int | None:
        """Return the exit code of a process that has ended, below 0 for a signal."""
        code = self.process.exitcode
        if code is not None:
            self.line.close()
        return code


def ending(code: int) -> str:
    """Say how a process has ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
