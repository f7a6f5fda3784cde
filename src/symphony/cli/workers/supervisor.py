"""`symphony run --workers N`: the process that starts the workers, and never imports the app."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, Final, NamedTuple, cast

from symphony.broker.engines import MEMORY, shown
from symphony.broker.ipc import ServedBroker
from symphony.cli.workers.fleet import Fleet, Worker
from symphony.cli.workers.leftovers import Leftovers
from symphony.cli.workers.line import NOTICED, NOW
from symphony.cli.workers.process import WorkerProcess, ending
from symphony.cli.workers.sharing import shared_broker
from symphony.cli.workers.signals import Signals
from symphony.cli.workers.sockets import Slots, close, spread
from symphony.transport.native.descriptors import raise_descriptor_limit
from symphony.transport.native.listen import addresses, listening
from symphony.transport.native.logs import configure_logging
from symphony.transport.native.server import say_addresses

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
    broker: str | None,
    log_level: str | None,
) -> int:
    """Serve with several processes until a signal.

    Args:
        serve: Called in each worker as `serve(sockets=..., make_server=..., process=...)`. It is
            pickled.
        count: How many workers there are.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        uds: Path of a Unix socket to listen on instead.
        tls: Whether the workers speak TLS.
        broker: The URL of the broker, `None`: memory.
        log_level: The log level of the supervisor.

    Returns:
        The exit code.

    Raises:
        ListenError: The address cannot be listened on.
        ConfigurationError: The URL of the broker is wrong.
    """
    configure_logging(log_level)
    # The sockets of all workers are open here, and the workers inherit the limit.
    raise_descriptor_limit()
    signals = Signals()
    # Signals first: one that comes earlier leaves no socket of the broker behind.
    with signals.handled(), listening(host, port, uds) as bound, shared_broker(broker) as served:
        slots = spread(bound, count)
        leftovers = Leftovers.of(uds, None if served is None else served.url)
        try:
            lines = _Lines(addresses(bound, tls=tls), broker or MEMORY, served)
            return _Supervisor(serve, slots, leftovers, lines, signals).run()
        finally:
            close(slots)


class _Lines(NamedTuple):
    """What the first lines of output say."""

    where: list[str]
    broker: str
    served: ServedBroker | None

    def say(self, pids: Sequence[int]) -> None:
        say_addresses(self.where)
        processes = ", ".join(map(str, pids))
        print(f"{len(pids)} workers, each with its own limits (processes {processes})")
        place = f", in process {os.getpid()} ({shown(self.served.url)})" if self.served is not None else ""
        print(f"The workers share their rooms: {shown(self.broker)}{place}", flush=True)


class _Supervisor:
    def __init__(
        self, serve: Callable[..., None], slots: Slots, leftovers: Leftovers, lines: _Lines, signals: Signals
    ) -> None:
        self._serve = serve
        self._slots = slots
        self._leftovers = leftovers
        self._lines = lines
        shared = len(slots) > 1 and slots[0][0] is slots[1][0]
        self._fleet = Fleet(len(slots), self._spawn, self._open, shared=shared)
        self._signals = signals
        signals.kill = self._kill

    def run(self) -> int:
        """Run until all workers have stopped."""
        try:
            return self._supervise()
        finally:
            self._kill()
            for worker in self._workers():
                worker.process.join()

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
            if self._signals.reload():
                logger.warning("SIGHUP: the workers are replaced, one after the other.")
                fleet.reload()
            if self._signals.terminated:
                fleet.stop(now, NOTICED if self._signals.noticed else NOW)
            served = self._lines.served
            if served is not None and not served.running and not fleet.stopping:
                logger.critical("The broker of the rooms has ended, so the server stops.")
                fleet.failed = 1
                fleet.stop(now)
            fleet.tick(now)
        return fleet.failed if fleet.failed is not None else int(fleet.unclean)

    def _workers(self) -> tuple[WorkerProcess, ...]:
        # They come from `_spawn`.
        return cast("tuple[WorkerProcess, ...]", self._fleet.workers)

    def _spawn(self, slot: int) -> Worker:
        return WorkerProcess(self._serve, slot, self._slots, self._leftovers)

    def _open(self) -> None:
        """Listen with all sockets at once: one that is early would get all clients that wait."""
        for sockets in self._slots:
            for each in sockets:
                each.listen(_BACKLOG)
        self._lines.say([worker.pid for worker in self._fleet.serving])

    # What workers say

    def _wait(self) -> None:
        watched: list[Any] = [self._signals.woken]
        for worker in self._workers():
            watched.append(worker.process.sentinel)
            if not worker.line.ended:
                watched.append(worker.line)
        if self._signals.woken in wait(watched, _TICK):
            self._signals.clear()

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
            if self._lines.served is not None:
                self._lines.served.process_ended(worker.pid)
            self._fleet.ended(worker, now, code, ending(code))

    def _kill(self) -> None:
        for worker in self._workers():
            worker.kill()
