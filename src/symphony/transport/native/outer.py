"""Serves an app of another framework that has Symphony apps mounted in it."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

from symphony.complaints import Complaints
from symphony.limits import Limits
from symphony.stats import Stats
from symphony.tasks import start
from symphony.transport.base import CROWDED, NATIVE, NATIVE_HOSTS, Connection, Receiver, Scope, Servable
from symphony.transport.native.crowd import Crowded, refusal_of
from symphony.transport.native.guest import DENIAL, AsgiApp, Guest
from symphony.transport.probing import probe_response
from symphony.websocket.handshake import HandshakeError, offered_subprotocols
from symphony.websocket.queued import Queued

if TYPE_CHECKING:
    from symphony.transport.native.connection import NativeConnection

__all__ = ("Outer", "Probed")


class Outer:
    """Accepts connections for an ASGI app, which routes them.

    Args:
        app: The ASGI app.

    Attributes:
        complaints: The log lines that strangers can cause.
        hosts: The running Symphony apps that are mounted in it.
        state: The state that the app's lifespan shares with its connections.
    """

    def __init__(self, app: AsgiApp) -> None:
        self.hosts: list[Servable] = []
        self.state: dict[str, Any] = {}
        self._app = app
        self._limits = Limits()
        self._stats = Stats()
        self.complaints = Complaints()
        self._queued = Queued(self._limits.max_queued_bytes)
        self._guests: set[Guest] = set()
        self._draining = False

    @property
    def limits(self) -> Limits:
        """The limits of the first Symphony app, or the defaults without one."""
        return self.hosts[0].node.limits if self.hosts else self._limits

    @property
    def stats(self) -> Stats:
        """The counters of the first Symphony app, or unused ones without one."""
        return self.hosts[0].node.stats if self.hosts else self._stats

    def connect(self, scope: Scope, connection: Connection) -> Receiver | None:
        """Run the app for a handshake, in a task."""
        limits = self.limits
        # The first Symphony app, whose limits hold, may have started since.
        self._queued.limit = limits.max_queued_bytes
        guest = Guest(cast("NativeConnection", connection), scope, limits, self._queued, self.complaints)
        if self._draining:
            guest.drain()
            return None
        crowded: Crowded | None = scope.get(CROWDED)
        if crowded is not None:
            guest.refuse(refusal_of(crowded, retry_after=limits.retry_after))
            return None
        try:
            scope["subprotocols"] = offered_subprotocols(scope["headers"])
        except HandshakeError as error:
            guest.misread(error)
            return None
        scope["extensions"] = {DENIAL: {}, NATIVE: guest.take}
        scope["state"] = self.state.copy()
        context = copy_context()
        # A Symphony app without a lifespan starts at its first connection.
        context.run(NATIVE_HOSTS.set, self.hosts)
        guest.task = start(guest.run(self._app, scope), context)
        self._guests.add(guest)
        guest.task.add_done_callback(lambda _: self._guests.discard(guest))
        return guest

    def retire(self) -> None:
        """Refuse all further handshakes, and say that no Symphony app is ready."""
        self._draining = True
        for host in self.hosts:
            host.node.retire()

    async def drain(self, force: asyncio.Event) -> None:
        """Close the sockets of all Symphony apps, then those of the app itself."""
        self._draining = True
        await asyncio.gather(*(host.node.drain(force) for host in self.hosts))
        for guest in self._guests:
            guest.drain()
        for cancel in (False, True):
            tasks = [guest.task for guest in self._guests]
            if cancel:
                for task in tasks:
                    task.cancel()
            if tasks:
                await self._wait(tasks, force)

    async def _wait(self, tasks: list[asyncio.Task[None]], force: asyncio.Event) -> None:
        forced = asyncio.ensure_future(force.wait())
        ended = asyncio.ensure_future(asyncio.wait(tasks))
        await asyncio.wait(
            (forced, ended), timeout=self.limits.finish_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        forced.cancel()
        ended.cancel()


class Probed:
    """Answers probes before the app of another framework does.

    Args:
        app: That app.
        outer: Knows the Symphony apps in it.
    """

    def __init__(self, app: AsgiApp, outer: Outer) -> None:
        self._app = app
        self._outer = outer

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one ASGI scope."""
        answer = probe_response(scope, self._outer.hosts) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)
