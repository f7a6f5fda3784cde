"""The app as an ASGI 3 application: WebSockets, plain HTTP and the lifespan."""

from __future__ import annotations

import asyncio
import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

from starlette.responses import PlainTextResponse

from symphony.errors import ConfigurationError
from symphony.node.script import ClientScript
from symphony.transport import asgi
from symphony.transport.base import NATIVE, Acceptor

__all__ = ("MEMORY", "AsgiFace")

logger = logging.getLogger("symphony.app")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MEMORY: Final = "symphony.memory"
"""The ASGI extension by which the test client says that there is no server."""

_HELLO = "This is a Symphony server: connect to it with a WebSocket.\n"


class AsgiFace(ABC):
    """Answers what an ASGI server asks of the app.

    Args:
        http: An ASGI app for plain HTTP, or `None`.
        client_script: What serves the JavaScript client; `None`: nothing does.

    Attributes:
        native: Whether Symphony's own server runs it; set by that server.
    """

    def __init__(self, http: Any, *, client_script: ClientScript | None) -> None:
        self.native = False
        self._http = http
        self._client_script = client_script
        self._unmanaged = AsyncExitStack()
        self._starting: asyncio.Lock | None = None

    @property
    def http(self) -> Any:
        """The ASGI app for plain HTTP, or `None`."""
        return self._http

    @property
    @abstractmethod
    def node(self) -> Acceptor:
        """The app at work."""

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether the app runs."""

    @abstractmethod
    def lifespan(self, outer: Any = None) -> AbstractAsyncContextManager[None]:
        """Run the app's life."""

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
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._client_script is not None and self._client_script.serves(path):
            await self._client_script(scope, receive, send)
        elif self._http is not None:
            await self._http(scope, receive, send)
        else:
            found = path in ("", "/")
            response = PlainTextResponse(_HELLO if found else "Not Found\n", 200 if found else 404)
            await response(scope, receive, send)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            async with self.lifespan(), _http_lifespan(self._http, scope):
                # Tests have no server that could do better.
                if MEMORY not in (scope.get("extensions") or {}):
                    self._say_what_is_missing()
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
        """Start at the first connection what nobody has started."""
        if self.started:
            return
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self.started:
                return
            logger.warning(
                "The app was not started by its server, so it starts at its first connection and its "
                "shutdown handlers will not run. A mounted app gets no lifespan: give the outer app "
                "FastAPI(lifespan=ws.lifespan)."
            )
            await self._unmanaged.enter_async_context(self.lifespan())
            self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        if not self.native:
            logger.warning(
                "The native transport is not in use: this ASGI server bounds message sizes, sends "
                "heartbeats and writes as it is configured, not as Limits say. "
                "`symphony run` or app.run() serve natively."
            )


@asynccontextmanager
async def _http_lifespan(app: Any, scope: Scope) -> AsyncGenerator[None]:
    """Run the lifespan of an ASGI app beside ours; one without is fine."""
    if app is None:
        yield
        return
    asked: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    answered: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    task = asyncio.ensure_future(app(dict(scope), asked.get, answered.put))
    # What it raises says nothing new: it has no lifespan, or has told what failed.
    task.add_done_callback(_forget)
    answer = await _ask(task, asked, answered, "startup")
    if answer is not None and answer["type"] == "lifespan.startup.failed":
        raise RuntimeError(f"The http app failed to start: {answer.get('message', '')}")
    try:
        yield
    finally:
        if answer is not None:
            answer = await _ask(task, asked, answered, "shutdown")
            if answer is not None and answer["type"] == "lifespan.shutdown.failed":
                logger.error("The http app failed to stop: %s", answer.get("message", ""))
        await asyncio.wait((task,))


def _forget(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()


async def _ask(
    task: asyncio.Future[None],
    asked: asyncio.Queue[MutableMapping[str, Any]],
    answered: asyncio.Queue[MutableMapping[str, Any]],
    phase: str,
) -> MutableMapping[str, Any] | None:
    """Ask for a phase; `None` if the app ends without an answer: it has no lifespan."""
    await asked.put({"type": f"lifespan.{phase}"})
    getter = asyncio.ensure_future(answered.get())
    await asyncio.wait((task, getter), return_when=asyncio.FIRST_COMPLETED)
    if getter.done():
        return getter.result()
    getter.cancel()
    return None
