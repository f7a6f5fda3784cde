"""The simulated connections between the clients and the nodes of a cluster."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from contextvars import copy_context
from random import Random
from typing import Any, Final, Literal, Protocol

from symphony.client import refusals
from symphony.client.link import Close, DialError, Listener, Offer
from symphony.client.opening import Answer
from symphony.outgoing.encoding import Message
from symphony.protocol.subprotocols import REFUSE
from symphony.testing.network import Pipe
from symphony.testing.simulation import Host
from symphony.transport.base import Scope

__all__ = ("ClientDial", "ClientLink", "Server", "Watching")

Event = MutableMapping[str, Any]

_LOST: Final = Close(1006, "", clean=False)
# A client that does not read has so many bytes on the way to it.
_WINDOW: Final = 16 * 1024
# When a node notices that a client is gone whose network has failed.
_UNNOTICED: Final = 20.0


class Watching(Protocol):
    """What is told of a connection."""

    def received(self, message: Message) -> bool:
        """Take each message that the client receives; whether it is a publication with a position."""
        ...

    def ended(self) -> object:
        """Take the end of the connection."""
        ...


class Server:
    """A node, as clients see it.

    Args:
        host: Its process.
        app: The ASGI app.

    Attributes:
        links: The open connections.
        accepts: Whether it accepts connections.
    """

    def __init__(self, host: Host, app: Callable[..., Any]) -> None:
        self.host = host
        self.app = app
        self.links: dict[ClientLink, None] = {}
        self.accepts = True


class ClientDial:
    """Connects one client to a node that accepts connections.

    Args:
        path: The path, with an optional query string.
        choose: Returns the node of the next attempt, or `None`.
        scope: Creates the ASGI scope of a handshake with the given subprotocols.
        random: Decides about the delays.
        told: Called with a line for the trace.
        watch: Returns what is told of a new connection.
    """

    def __init__(
        self,
        path: str,
        choose: Callable[[], Server | None],
        scope: Callable[[Sequence[str], Any], Scope],
        random: Random,
        told: Callable[[str], object],
        watch: Callable[[], Watching],
    ) -> None:
        self.where = path
        self.link: ClientLink | None = None
        self._choose = choose
        self._scope = scope
        self._random = random
        self._told = told
        self._watch = watch

    async def __call__(self, offer: Offer) -> ClientLink:
        """Shake hands with a node."""
        offer.stage("the node did not answer")
        await asyncio.sleep(self._random.uniform(0.0001, 0.003))
        server = self._choose()
        if server is None:
            raise DialError(1006, "no node accepts connections", again=True)
        # Without it, refusals come as HTTP answers.
        offered = [name for name in offer.subprotocols if name != REFUSE]
        self.link = link = ClientLink(
            server, self._scope(offered, offer.headers), self._random, self._watch()
        )
        try:
            await asyncio.wait((link.answered,))
        except asyncio.CancelledError:
            link.abort()
            raise
        if link.refused is not None:
            self._told(f"is refused by {server.host}: {link.refused.status} {link.refused.body!r}")
            raise refusals.http(link.refused, None)
        if not link.accepted:
            raise DialError(1006, "the connection was lost before it opened", again=True)
        self._told(f"is connected to {server.host}")
        return link


class ClientLink:
    """One connection: a `Link` for the client, and an ASGI server for the node.

    Attributes:
        accepted: Whether the node has accepted.
        answered: Done when the node has accepted, refused or ended.
        refused: The HTTP answer of a refusal, or `None`.
        reads: Whether the client reads.
        misdelivers: What becomes of the next publication, against all promises of a node.
        withheld: Whether the client has not got a publication for that reason.
    """

    congested = False

    def __init__(self, server: Server, scope: Scope, random: Random, watch: Watching) -> None:
        loop = asyncio.get_running_loop()
        self.accepted = False
        self.subprotocol: str | None = None
        self.answered: asyncio.Future[None] = loop.create_future()
        self.refused: Answer | None = None
        self.reads = True
        self.misdelivers: Literal["", "twice", "never"] = ""
        self.withheld = False
        self._server = server
        self._watch = watch
        self._loop = loop
        self._context = copy_context()
        self._listener: Listener | None = None
        self._paused = False
        self._waiting: deque[Message] = deque()
        self._unread = 0
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._ended: Close | None = None
        self._told_end = False
        self._closed = asyncio.Event()
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._has_left = False
        self._up = Pipe(loop, self._to_app.put_nowait, random, server.host.context)
        self._down = Pipe(loop, self._from_node, random, self._context)
        self._up.send({"type": "websocket.connect"})
        server.links[self] = None
        context = server.host.context.copy()
        self._serving = asyncio.Task(self._serve(scope), loop=loop, context=context)

    # The client's side

    def start(self, listener: Listener) -> None:
        """See `Link.start`."""
        self._listener = listener
        self._deliver()
        if self._ended is not None:
            self._loop.call_soon(self._tell_end, context=self._context)

    def send(self, message: Message) -> None:
        """See `Link.send`."""
        if self._ended is None and not self._has_left:
            kind = "text" if isinstance(message, str) else "bytes"
            self._up.send({"type": "websocket.receive", kind: message})

    def pause_reading(self) -> None:
        """See `Link.pause_reading`."""
        self._paused = True

    def resume_reading(self) -> None:
        """See `Link.resume_reading`."""
        self._paused = False
        self._deliver()

    def close(self, code: int, reason: str) -> None:
        """See `Link.close`. The end is told when the node has answered, or is gone."""
        self._leave(code, reason)
        self._loop.call_later(1.0, self._end, Close(code, reason, clean=True))

    def abort(self) -> None:
        """See `Link.abort`."""
        self._leave(1006, "")
        self._end(_LOST)

    async def wait_closed(self) -> None:
        """See `Link.wait_closed`."""
        await self._closed.wait()

    # Faults

    def cut(self) -> None:
        """End the connection: both sides notice it."""
        self.abort()

    def fail(self) -> None:
        """Let the network fail: the client notices it, and the node only later."""
        self._has_left = True
        self._end(_LOST)
        self._loop.call_later(_UNNOTICED, self._gone, context=self._server.host.context)

    def lose_server(self) -> None:
        """End the connection because the process of the node has ended."""
        self._has_left = True
        self._end(_LOST)

    def read_again(self) -> None:
        """Let the client read again."""
        self.reads = True
        self._deliver()

    def _gone(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": ""})

    def _leave(self, code: int, reason: str) -> None:
        if not self._has_left:
            self._has_left = True
            self._up.send({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _end(self, close: Close) -> None:
        if self._ended is not None:
            return
        self._ended = close
        self._watch.ended()
        self._server.links.pop(self, None)
        self._may_send.set()
        if not self.answered.done():
            self.answered.set_result(None)
        if self._listener is None:
            self._closed.set()
        else:
            self._deliver()
            self._loop.call_soon(self._tell_end, context=self._context)

    def _tell_end(self) -> None:
        if not self._told_end and self._listener is not None and self._ended is not None:
            self._told_end = True
            self._closed.set()
            self._listener.closed(self._ended)

    def _deliver(self) -> None:
        while self._waiting and self._listener is not None and not self._paused and self.reads:
            if self._told_end:
                return
            message = self._waiting.popleft()
            self._unread -= len(message)
            if self._unread < _WINDOW:
                self._may_send.set()
            is_publication = self._watch.received(message)
            if is_publication and self.misdelivers:
                misdelivers, self.misdelivers = self.misdelivers, ""
                if misdelivers == "never":
                    self.withheld = True
                    continue
                self._listener.received(message)
            self._listener.received(message)

    def _from_node(self, event: Event) -> None:
        """Take what arrives at the client."""
        kind = event["type"]
        if self._ended is not None:
            return
        if kind == "websocket.send":
            text = event.get("text")
            self._waiting.append(event["bytes"] if text is None else text)
            self._deliver()
        elif kind == "websocket.accept":
            self.accepted = True
            self.subprotocol = event.get("subprotocol")
            self.answered.set_result(None)
        elif kind == "websocket.http.response.start":
            self.refused = Answer()
            self.refused.status = event["status"]
            self.refused.headers = {name.decode().lower(): value.decode() for name, value in event["headers"]}
        elif kind == "websocket.http.response.body":
            assert self.refused is not None
            self.refused.body = event["body"]
            self._leave(1006, "")
            self._end(_LOST)
        elif kind == "websocket.close":
            # The peer answers a close frame with its own.
            code, reason = event["code"], event["reason"]
            self._leave(code, reason)
            self._end(Close(code, reason, clean=True))
        else:
            # The app has ended without a close.
            self._end(_LOST)

    # The node's side

    async def _serve(self, scope: Scope) -> None:
        try:
            await self._server.app(scope, self._to_app.get, self._send)
        finally:
            self._down.send({"type": "ended"})

    async def _send(self, event: Event) -> None:
        if self._ended is not None:
            # ASGI requires an `OSError` from `send` after the client has disconnected.
            raise BrokenPipeError("The connection is closed.")
        if event["type"] == "websocket.send":
            text = event.get("text")
            self._unread += len(event["bytes"] if text is None else text)
            if self._unread >= _WINDOW:
                self._may_send.clear()
                self._down.send(event)
                await self._may_send.wait()
                return
        self._down.send(event)
