"""`symphony run --workers N`: the process that starts the workers, and never imports the app."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final, cast

from symphony.cli.workers.fleet import Fleet, Worker
from symphony.cli.workers.process import WorkerProcess, ending
from symphony.cli.workers.sockets import Slots, close, spread
from symphony.transport.native.descriptors import raise_descriptor_limit
from symphony.transport.native.listen import addresses, listening
from symphony.transport.native.logs import configure_logging
from symphony.transport.native.server import say_addresses
from symphony.transport.native.stopping import SIGNALS, end_at_once

__all__ = ("supervise",)

logger = logging.getLogger("symphony.workers")

_TICK: Final = 0.2
# uvicorn's default, which each worker sets again.
_BACKLOG: Final = 2048


def supervise(
    serve: Callable[..., None],
    count: int,
    *,
    host: str,
    port: int,
    uds: str | None,
    tls: bool,
    log_level: str | None,
) -> int:
    """Serve with several processes until a signal.

    Args:
        serve: Called in each worker as `serve(sockets=..., make_server=...)`. It is
            pickled.
        count: How many workers there are.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        uds: Path of a Unix socket to listen on instead.
        tls: Whether the workers speak TLS.
        log_level: The log level of the supervisor.

    Returns:
        The exit code.

    Raises:
        ListenError: The address cannot be listened on.
    """
    configure_logging(log_level)
    # The sockets of all workers are open here, and the workers inherit the limit.
    raise_descriptor_limit()
    with listening(host, port, uds) as bound:
        slots = spread(bound, count)
        try:
            return _Supervisor(serve, slots, addresses(bound, tls=tls)).run()
        finally:
            close(slots)


class _Supervisor:
    def __init__(self, serve: Callable[..., None], slots: Slots, where: Sequence[str]) -> None:
        self._serve = serve
        self._slots = slots
        self._where = list(where)
        shared = len(slots) > 1 and slots[0][0] is slots[1][0]
        self._fleet = Fleet(len(slots), self._spawn, self._open, shared=shared)
        self._waker, self._wakes = socket.socketpair()
        self._has_terminal = _has_terminal()
        self._terminated = self._hung_up = False

    def run(self) -> int:
        """Run until all workers have stopped."""
        try:
            with self._signals():
                return self._supervise()
        finally:
            self._end()

    def _supervise(self) -> int:
        fleet = self._fleet
        ticked = time.monotonic()
        fleet.start(ticked)
        while fleet.workers:
            self._wait()
            now = time.monotonic()
            # A stopped process, or a machine that was suspended, heard nothing meanwhile.
            if now - ticked > 5 * _TICK:
                fleet.missed(now - ticked - _TICK)
            ticked = now
            for worker in self._workers():
                self._hear(worker, now)
            if self._hung_up:
                self._hung_up = False
                self._reload(now)
            if self._terminated:
                fleet.stop(now)
            fleet.tick(now)
        return fleet.failed if fleet.failed is not None else int(fleet.unclean)

    def _workers(self) -> tuple[WorkerProcess, ...]:
        # They come from `_spawn`.
        return cast("tuple[WorkerProcess, ...]", self._fleet.workers)

    def _spawn(self, slot: int) -> Worker:
        return WorkerProcess(self._serve, slot, self._slots)

    def _open(self) -> None:
        """Listen with all sockets at once: one that is early would get all clients that wait."""
        for sockets in self._slots:
            for each in sockets:
                each.listen(_BACKLOG)
        say_addresses(self._where)
        pids = ", ".join(str(worker.pid) for worker in self._fleet.serving)
        print(f"{len(self._slots)} workers, each with its own limits (processes {pids})", flush=True)

    # What workers say

    def _wait(self) -> None:
        watched: list[Any] = [self._wakes]
        for worker in self._workers():
            watched.append(worker.process.sentinel)
            if not worker.line.ended:
                watched.append(worker.line)
        if self._wakes in wait(watched, _TICK):
            with suppress(BlockingIOError):
                self._wakes.recv(4096)

    def _hear(self, worker: WorkerProcess, now: float) -> None:
        if not worker.line.ended:
            for message in worker.line.read():
                if "ready" in message:
                    self._fleet.ready(worker, now, message["ready"])
                elif "stopping" in message:
                    self._fleet.leaves(worker, now)
                self._fleet.heard(worker, now)
            worker.line.flush()
        code = worker.ended()
        if code is not None:
            self._fleet.ended(worker, now, code, ending(code))

    # Signals

    @contextmanager
    def _signals(self) -> Generator[None]:
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        before = {number: signal.getsignal(number) for number in SIGNALS}
        # What a parent has told us to ignore, as `nohup` does, stays ignored.
        ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in ours:
            signal.signal(number, self._signalled)
        # Each signal ends the wait, and so does the end of a worker whose children have
        # inherited its sentinel.
        woken = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        if hasattr(signal, "SIGCHLD"):
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
            ours.append(signal.SIGCHLD)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number in ours:
                signal.signal(number, before[number] or signal.SIG_DFL)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None) and not self._terminated:
            self._hung_up = True
        elif self._terminated:
            for worker in self._workers():
                worker.kill()
            end_at_once(number)
        else:
            self._terminated = True

    def _reload(self, now: float) -> None:
        if self._has_terminal and not _has_terminal():
            # The terminal was closed: nobody could stop the server any more.
            self._fleet.stop(now)
            return
        logger.warning("SIGHUP: the workers are replaced, one after the other.")
        self._fleet.reload()

    def _end(self) -> None:
        """Leave no process behind, whatever has happened."""
        for worker in self._workers():
            worker.kill()
            worker.process.join()
        self._waker.close()
        self._wakes.close()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Let a signal end the wait, and nothing else."""


def _has_terminal() -> bool:
    """Return whether the process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True
