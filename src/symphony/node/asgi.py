"""The app as an ASGI 3 application: WebSockets, plain HTTP and the lifespan."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.responses import PlainTextResponse, Response

from symphony.errors import ConfigurationError, Reject
from symphony.node.admission import refuse_host, route_path
from symphony.node.lifespans import UnmanagedLifespan, lifespan_of
from symphony.node.mounts import Mounts
from symphony.protocol.refusals import http_refusal
from symphony.transport import asgi
from symphony.transport.base import NATIVE, hosted
from symphony.transport.probing import Readiness, probe_response
from symphony.websocket.handshake import HandshakeError, check_one_origin

if TYPE_CHECKING:
    from symphony.node.node import Node

__all__ = ("MEMORY", "AppCore", "Lifecycle")

logger = logging.getLogger("symphony.app")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MEMORY: Final = "symphony.memory"
"""The ASGI extension by which the test client says that there is no server."""

_HELLO = "This is a Symphony server: connect to it with a WebSocket.\n"


class Lifecycle(Protocol):
    """What the core needs of the app it belongs to."""

    def lifespan(self, outer: Any = None) -> AbstractAsyncContextManager[None]:
        """Run the app's life."""
        ...


class AppCore:
    """What servers see of an app: an ASGI application, and the node of a running app.

    Args:
        app: The app.
        http: An ASGI app for the plain HTTP that is below no mount, or `None`.
        hosts: The hosts that the app answers for, `None`: those of its server.
        probes: Whether it answers probes.
        requires_broker: Whether it is not ready while its broker is away.

    Attributes:
        mounts: The ASGI apps that answer plain HTTP.
        native: Whether Symphony's own server runs the app; that server sets it.
    """

    def __init__(
        self,
        app: Lifecycle,
        http: Any,
        hosts: Sequence[str] | None,
        *,
        probes: bool,
        requires_broker: bool,
    ) -> None:
        self.native = False
        self.mounts = Mounts(http)
        self._app = app
        self._hosts = hosts
        self._probes = probes
        self._requires_broker = requires_broker
        self._node: Node | None = None
        self._unmanaged: UnmanagedLifespan | None = None
        self._lifespan: Scope | None = None
        self._state: dict[str, Any] = {}

    @property
    def node(self) -> Node:
        """The running app.

        Raises:
            RuntimeError: It does not run.
        """
        if self._node is None:
            raise RuntimeError(
                "The app is not running. Use rooms and sockets in handlers, in @app.on_startup, "
                "or inside `async with app.lifespan()`. A mounted app needs the lifespan of the outer "
                "app: FastAPI(lifespan=ws.lifespan)."
            )
        return self._node

    @property
    def readiness(self) -> Readiness | None:
        """See `Servable.readiness`."""
        if not self._probes:
            return None
        if self._node is None:
            # Without a lifespan, it starts at its first connection.
            return Readiness(ready=True, broker="ok", stopping=False)
        return self._node.readiness(requires_broker=self._requires_broker)

    @property
    def started(self) -> bool:
        """Whether the app runs."""
        return self._node is not None

    @contextmanager
    def running(self, node: Node) -> Generator[None]:
        """Set *node* as the running app inside the block."""
        self._node = node
        try:
            with hosted(self):
                yield
        finally:
            self._node = None

    @asynccontextmanager
    async def running_mounts(self) -> AsyncGenerator[None]:
        """Run the lifespans of the apps that answer plain HTTP.

        Raises:
            RuntimeError: One of them failed to start.
        """
        scope, self._lifespan = self._lifespan, None
        self._state = {}
        if scope is None:
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        if "state" not in scope:
            # An outer app runs this one, or the server does not keep the state of our mounts.
            scope = {**scope, "state": self._state}
        async with AsyncExitStack() as stack:
            # It is not known whether an unmanaged app stops, and its mounts with it.
            for what, app in self.mounts if self._is_managed else ():
                await stack.enter_async_context(
                    lifespan_of(what, app, scope, timeout=self.node.limits.shutdown_timeout)
                )
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        elif kind == "websocket":
            await self._start_unmanaged()
            extensions: dict[str, Any] = scope.get("extensions") or {}
            take = extensions.get(NATIVE)
            if take is not None:
                # Mounted, and the outer app runs on our own server.
                await take(self, scope)
            else:
                await asgi.serve(self.node, scope, receive, send)
        else:
            await self._serve_http(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        # First: a proxy may ask with any host.
        probed = probe_response(scope, (self,))
        refused = probed or self._refuse_http(scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        path = route_path(scope)
        mount, app = self.mounts.find(path)
        if app is not None:
            if mount:
                scope = {**scope, "root_path": scope.get("root_path", "").rstrip("/") + mount}
            if self._state:
                scope = {**scope, "state": {**(scope.get("state") or {}), **self._state}}
            await app(scope, receive, send)
            return
        found = path in ("", "/")
        response = PlainTextResponse(_HELLO if found else "Not Found\n", 200 if found else 404)
        await response(scope, receive, send)

    def _refuse_http(self, scope: Scope) -> Response | None:
        try:
            check_one_origin(scope["headers"])
            refuse_host(scope, self._hosts)
        except HandshakeError as error:
            return PlainTextResponse(f"{error.message}\n", error.status)
        except Reject as refusal:
            response = http_refusal(refusal)
            return Response(response.body, response.status, response.headers)
        return None

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            self._lifespan = scope
            async with self._app.lifespan():
                # Tests have no server that could do better.
                if MEMORY not in (scope.get("extensions") or {}):
                    self.warn_if_not_native()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                phase = "shutdown"
        except Exception as error:
            # A mistake in the app's set-up is named whole by its message; for
            # what the user's own handlers raise one has to see where.
            message = str(error) if isinstance(error, ConfigurationError) else traceback.format_exc()
            await send({"type": f"lifespan.{phase}.failed", "message": message})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _start_unmanaged(self) -> None:
        """Start the app at its first connection, if no server has started it."""
        if self._is_managed:
            if self.started:
                return
            logger.warning(
                "The app was not started by its server, so it starts at its first connection and its "
                "shutdown handlers may not run. A mounted app gets no lifespan: give the outer app "
                "FastAPI(lifespan=ws.lifespan)."
            )
            self._unmanaged = UnmanagedLifespan(self._app.lifespan())
            await self._unmanaged.started()
            self.warn_if_not_native()
        elif self._unmanaged is not None:
            await self._unmanaged.started()

    @property
    def _is_managed(self) -> bool:
        return self._unmanaged is None or self._unmanaged.ended

    def warn_if_not_native(self) -> None:
        """Log that limits and heartbeats are those of another server."""
        if not self.native:
            logger.warning(
                "The native transport is not in use. The settings of this ASGI server apply to message "
                "sizes, heartbeats and writes, instead of Limits. "
                "`symphony run` and app.run() use the native transport."
            )
