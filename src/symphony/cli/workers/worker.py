"""What runs in the process of a worker: a server that does what the supervisor says."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from symphony.cli.workers.leftovers import Leftovers
from symphony.cli.workers.line import NOTICED, REPLACED, Line
from symphony.cli.workers.sockets import Slots
from symphony.transport.native.accepting import Listener
from symphony.transport.native.config import Config
from symphony.transport.native.front import FrontDoor
from symphony.transport.native.server import Server

__all__ = ("WorkerServer", "work")

logger = logging.getLogger("symphony.workers")

# The event loop says this often that it runs: in ticks of the server, which are 0.1 s.
_BEAT_TICKS: Final = 5

# How long a worker that stops waits for the requests of connections that it has accepted.
_FIRST_REQUEST_TIMEOUT: Final = 1.0
_LOOK_AGAIN: Final = 0.01


def work(
    serve: Callable[..., None], slot: int, end: socket.socket, slots: Slots, leftovers: Leftovers
) -> None:
    """Serve as the worker of one slot, until the supervisor says stop or has gone.

    Args:
        serve: Called as `serve(sockets=..., make_server=..., process=...)`. It loads and serves the app.
        slot: The number of the slot.
        end: The worker's end of its line.
        slots: The listening sockets of all workers.
        leftovers: What the worker removes if the supervisor is killed.
    """
    if hasattr(signal, "SIGHUP"):
        # A terminal that is closed tells all processes; the supervisor decides.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    orders = _Orders(Line(end), leftovers)
    threading.Thread(target=orders.follow, name="symphony-orders", daemon=True).start()
    make_server = partial(WorkerServer, orders=orders, slots=slots)
    try:
        serve(sockets=slots[slot], make_server=make_server, process=f"worker {slot + 1}")
    except KeyboardInterrupt:
        # Ctrl+C before the server handles signals.
        raise SystemExit(128 + signal.SIGINT) from None


class WorkerServer(Server):
    """A server that listens when and where its supervisor says.

    Args:
        config: From `make_config`.
        orders: What the supervisor says.
        slots: The listening sockets of all workers.
    """

    def __init__(self, config: Config, *, orders: _Orders, slots: Slots) -> None:
        super().__init__(config, lambda _: None)
        self._orders = orders
        self._slots = slots
        self._listeners: dict[int, list[Listener]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        orders.server = self

    def begin(self, sockets: list[socket.socket]) -> None:
        """Tell the supervisor that the app has started. It says when to listen."""
        self._loop = asyncio.get_running_loop()
        self._orders.line.say(ready=self.stop_time)

    def listen_soon(self, slots: Iterable[int]) -> None:
        """Listen for exactly these slots. It may be called from another thread."""
        assert self._loop is not None
        with suppress(RuntimeError):
            # The loop has ended.
            self._loop.call_soon_threadsafe(self._listen_for, frozenset(slots))

    def _listen_for(self, slots: frozenset[int]) -> None:
        if self.should_exit:
            return
        for slot in slots - self._listeners.keys():
            # The listener closes what it is given, and a lent slot may be lent again.
            self._listeners[slot] = [self.listen(each.dup()) for each in self._slots[slot]]
        for slot in self._listeners.keys() - slots:
            self._stop_listening(slot)

    def _stop_listening(self, slot: int) -> None:
        for listener in self._listeners.pop(slot):
            listener.stop()

    async def on_tick(self, counter: int) -> bool:
        """Tell the supervisor that the event loop runs."""
        if counter % _BEAT_TICKS == 0:
            self._orders.line.beat()
        return await super().on_tick(counter)

    def signalled(self, number: int) -> None:
        """Stop. The supervisor replaces a worker that gets SIGTERM; Ctrl+C is for all processes."""
        self.stop(replaced=number == signal.SIGTERM)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the supervisor, and stop as any server."""
        self._orders.line.say(stopping=True)
        await super().shutdown(sockets)

    async def stop_listening(self) -> None:
        """Leave further connections to the other workers, and serve those that were accepted."""
        for slot in tuple(self._listeners):
            self._stop_listening(slot)
        await self._answer_the_accepted()
        await super().stop_listening()

    async def _answer_the_accepted(self) -> None:
        """Wait for the first requests of accepted connections, which would be cut off otherwise."""
        for _ in range(int(_FIRST_REQUEST_TIMEOUT / _LOOK_AGAIN)):
            if not self._has_unanswered():
                return
            await asyncio.sleep(_LOOK_AGAIN)

    def _has_unanswered(self) -> bool:
        # uvicorn declares classes that it never makes here.
        listeners = cast("list[Listener]", self.servers)
        connections = cast("set[FrontDoor]", self.server_state.connections)
        return any(listener.opening for listener in listeners) or any(
            cast("Any", door.cycle) is None and not door.transport.is_closing() for door in connections
        )


class _Orders:
    """Follows what the supervisor says, in a thread: the event loop may be stuck.

    Args:
        line: The worker's end of the line.
        leftovers: What to remove if the supervisor is killed.
    """

    def __init__(self, line: Line, leftovers: Leftovers) -> None:
        self.line = line
        self._leftovers = leftovers
        self.server: WorkerServer | None = None

    def follow(self) -> None:
        """Read until the supervisor has gone."""
        while not self.line.ended:
            for message in self.line.read():
                if "listen" in message and self.server is not None:
                    self.server.listen_soon(message["listen"])
                elif "stop" in message:
                    self._stop(notice=message["stop"] == NOTICED, replaced=message["stop"] == REPLACED)
        # A supervisor that ends in order waits for this process.
        self._leftovers.remove()
        if self.server is not None and not self.server.should_exit:
            logger.error("The supervisor of this worker has gone, so the worker stops.")
        self._stop(notice=True, replaced=False)

    def _stop(self, *, notice: bool, replaced: bool) -> None:
        if self.server is None:
            # The app is still being imported, and nothing has to be cleaned up.
            os._exit(128 + signal.SIGTERM)
        self.server.stop(notice=notice, replaced=replaced)
