"""The test client, which runs an app in memory and connects to it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, unquote

from symphony.app import Symphony
from symphony.client.options import Token
from symphony.node.asgi import MEMORY
from symphony.testing.clock import Clock, settle
from symphony.testing.connection import Connecting, TestConnection
from symphony.testing.memory import MemoryDial
from symphony.transport.base import Scope

__all__ = ("TestClient", "scope_of")

_HOST: Final = "testserver"


class TestClient:
    """Runs an app with its lifespan, and connects to it without a network.

    Args:
        app: The app. Set `app.overrides` before you enter the client.
        timeout: The longest wait in seconds of real time.
        raise_errors: Whether leaving the client raises the exceptions of
            handlers.

    Attributes:
        app: The app.
        errors: The exceptions of handlers, in order. Remove those that a test
            expects. `Reject` and invalid messages are answers, not errors.
    """

    __test__ = False

    def __init__(self, app: Symphony, *, timeout: float = 1.0, raise_errors: bool = True) -> None:
        if not isinstance(app, Symphony):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"TestClient takes a Symphony app, not {type(app).__name__}. If the Symphony app is mounted "
                "in another one, pass the Symphony app."
            )
        self.app = app
        self.errors: list[BaseException] = []
        self._timeout = timeout
        self._raise_errors = raise_errors
        self._connections: list[TestConnection] = []
        self._life: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._phases: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._stack = ExitStack()

    @property
    def clock(self) -> Clock:
        """The time of the event loop: `await client.clock.advance(20)`.

        Raises:
            RuntimeError: The loop is not one of asyncio's own.
        """
        return Clock.of_running_loop()

    async def settle(self) -> None:
        """Run the app until it can only wait for a message, a thread or time."""
        await settle()

    def connect(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        token: Token = None,
        protocol: Literal["json", "msgpack", "raw"] = "json",
        client: tuple[str, int] = ("127.0.0.1", 50000),
    ) -> Connecting:
        """Connect to the app.

        With `await`, the connection stays open until `close`, or until you
        leave the test client. `async with` closes it at the end.

        Args:
            path: The path, with an optional query string.
            headers: The headers of the handshake. They override the headers
                that the other arguments set.
            cookies: The cookies of the handshake.
            subprotocols: Subprotocols to offer besides Symphony's own, in
                order of preference.
            origin: The origin of the page. Pages of `http://testserver` are
                the app's own.
            token: The token that the app reads from `handshake.token`.
            protocol: The encoding of events, `"json"` or `"msgpack"`. With
                `"raw"`, only *subprotocols* are offered, and messages are sent
                and received unchanged.
            client: Address and port of the client, for `socket.client`.

        Raises:
            HandshakeRefusedError: The app refused the connection.
            TimeoutError: The app did not answer in time.
        """
        if self._life is None:
            raise RuntimeError("The app is not running yet. Write `async with TestClient(app) as client:`.")
        if not path.startswith("/"):
            raise ValueError(f"The path must start with '/': {path!r}.")
        fields: dict[str, str] = {}
        if origin is not None:
            fields["origin"] = origin
        if cookies:
            fields["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        fields |= {name.lower(): value for name, value in (headers or {}).items()}

        def scope(offered: Sequence[str]) -> Scope:
            return scope_of(path, offered, fields, client)

        def connection() -> TestConnection:
            made = TestConnection(
                lambda changed: MemoryDial(
                    self.app,
                    path.partition("?")[0],
                    scope,
                    changed,
                    raw=subprotocols if protocol == "raw" else None,
                ),
                token=token,
                protocol=protocol,
                subprotocols=tuple(subprotocols),
                timeout=self._timeout,
            )
            self._connections.append(made)
            return made

        return Connecting(connection)

    async def __aenter__(self) -> Self:
        if self._life is not None:
            raise RuntimeError("A TestClient runs its app once. Create another one.")
        if self.app._core.started:  # pyright: ignore[reportPrivateUsage]
            raise RuntimeError(
                "The app runs already, and a TestClient starts its app itself. Leave the other TestClient, "
                "lifespan or server first. To connect to an app that a server runs, use "
                "symphony.connect(url)."
            )
        self.app.on_exception = self.errors.append
        if _can_advance():
            self._stack.enter_context(self.clock._ticking())  # pyright: ignore[reportPrivateUsage]
        self._phases.put_nowait({"type": "lifespan.startup"})
        # Run the lifespan in a separate task. Fixtures are set up and torn down in
        # different tasks, which fails for a lifespan with a task group.
        self._life = asyncio.ensure_future(self._live())
        started = asyncio.ensure_future(self._started.wait())
        try:
            await asyncio.wait((self._life, started), return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if self._life.done():
            self._stack.close()
            await self._life
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            await self._stop()
        if not self._raise_errors or not self.errors:
            return
        if error is not None:
            for raised in self.errors:
                lines = "".join(traceback.format_exception(raised))
                error.add_note(f"Before this, a handler of the app raised:\n{lines}")
        elif len(self.errors) == 1:
            raise self.errors[0]
        else:
            raise BaseExceptionGroup("Handlers of the app raised", self.errors)

    async def _stop(self) -> None:
        assert self._life is not None
        self._phases.put_nowait({"type": "lifespan.shutdown"})
        stopped, _ = await asyncio.wait((self._life,), timeout=self._timeout)
        if not stopped and _can_advance():
            # Advance the clock past the limits, so that handlers that do not end are
            # cancelled without waiting in real time.
            limits = self.app.limits
            await self.clock.advance(limits.drain_time + limits.finish_timeout * 2 + limits.close_timeout)
        await self._life
        for connection in self._connections:
            await connection.ended()

    async def _live(self) -> None:
        """Run the ASGI lifespan of the app."""

        async def send(event: Any) -> None:
            if event["type"] == "lifespan.startup.complete":
                self._started.set()

        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "extensions": {MEMORY: {}}}
        try:
            await self.app(scope, self._phases.get, send)
        finally:
            self.app.on_exception = None


def _can_advance() -> bool:
    return isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)


def scope_of(
    path: str,
    subprotocols: Sequence[str],
    headers: Mapping[str, str],
    client: tuple[str, int] = ("127.0.0.1", 50000),
) -> Scope:
    """Return the ASGI scope of a handshake.

    Args:
        path: The path, with an optional query string.
        subprotocols: What the client offers.
        headers: The headers, with names in lower case. They override the headers that follow
            from the rest.
        client: Address and port of the client.
    """
    fields = {"host": _HOST}
    if subprotocols:
        fields["sec-websocket-protocol"] = ", ".join(subprotocols)
    fields |= headers
    raw_path, _, query = path.partition("?")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(raw_path),
        "raw_path": quote(raw_path, safe="/%:@!$&'()*+,;=~").encode(),
        "query_string": quote(query, safe="/?%:@!$&'()*+,;=~").encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        "client": client,
        "server": (_HOST, 80),
        "subprotocols": list(subprotocols),
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
