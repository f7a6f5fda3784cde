"""`Symphony`: where everything is registered, and its life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from threading import get_ident
from typing import Any, Literal, TypeVar, cast

from starlette.datastructures import State

from symphony.broker.engines import check as check_broker
from symphony.errors import ConfigurationError, WrongThreadError
from symphony.limits import Limits
from symphony.node.asgi import AppCore
from symphony.node.brokers import broker_url, opened_broker
from symphony.node.hooks import HookCompiler
from symphony.node.lifespans import called
from symphony.node.node import Node
from symphony.node.routes import Compiler, Defaults
from symphony.node.script import SCRIPT_PATH, ClientScript
from symphony.outside import Outside
from symphony.plugin import AnyPlugin, Plugins
from symphony.publisher import Publisher
from symphony.rooms.joining import FindFamily
from symphony.rooms.room import Room
from symphony.rooms.target import Target
from symphony.router import Router
from symphony.routing.handlers import reachable
from symphony.routing.patterns import PathTable
from symphony.routing.route import Options
from symphony.session.background import check_coroutine
from symphony.session.endpoint import Endpoint
from symphony.stats import Stats
from symphony.targets import SocketTarget
from symphony.threadsafe import Threadsafe
from symphony.transport.native.server import serve
from symphony.users import User, Users
from symphony.websocket.hosts import check_hosts

__all__ = ("Symphony",)

F = TypeVar("F", bound=Callable[..., Any])
Lifespan = Callable[["Symphony"], AbstractAsyncContextManager[Any]]

EVERY_PATH = "/{path:path}"

logger = logging.getLogger("symphony.app")


class Symphony(Router, Outside):
    """An app: routes, handlers, rooms, plugins and their lifecycle.

    It is the outermost router and an ASGI 3 application.

    Args:
        http: An ASGI app for plain HTTP on the same port. Its lifespan runs
            too. Without one, `/` answers a short text and other paths 404.
        lifespan: A context manager around the life of the app, as in
            Starlette. If it yields a mapping, its items are set on `app.state`.
        origins: Other origins whose pages may connect:
            `"https://example.com"`, `"https://*.example.com"` or `"*"`.
            Clients that send no `Origin` are not browsers and always may.
        hosts: The hosts that the app answers for: `"example.com"`,
            `"example.com:8443"`, `"*.example.com"` or `"*"`. Requests with
            another `Host` are refused. `None`: any host, but only localhost if
            the native server is bound to a loopback address and trusts no proxy.
        subprotocols: The subprotocols of the app, preferred ones first.
        limits: The limits of the app.
        compression: Compress messages of at least this many bytes, if the
            client supports it (RFC 7692). `None`: never.
        slow_consumer: What happens when a client's outbox is full:
            `"disconnect"` closes the socket with 1013; for `"drop_oldest"`,
            `"conflate"` and `"resync"` see `Router.route`.
        probes: Whether to answer `/_symphony/live` and `/_symphony/ready`.
        ready_requires_broker: Whether a node is not ready while its broker is away.
        client_script: Whether to serve the JavaScript client at
            `/_symphony/client.js`, to pages of this origin and of `origins`.
        broker: The URL of the broker of the rooms, such as `"sqlite:///rooms.db"`. `None`:
            that of the environment variable `SYMPHONY_BROKER`, otherwise `"memory://"`.

    Attributes:
        state: Your data that the whole app shares.
        limits: The limits of the app.
        stats: The counters of the app.
        overrides: Replacements for dependencies in tests, set before the app starts:
            `app.overrides[session] = fake_session`.
        on_exception: Called with every exception of a handler as it happens, in addition to
            `on_error`. The test client uses it. Set it before the app starts.
    """

    _is_root = True

    def __init__(
        self,
        *,
        http: Any = None,
        lifespan: Lifespan | None = None,
        origins: Sequence[str] = (),
        hosts: Sequence[str] | None = None,
        subprotocols: Sequence[str] = (),
        limits: Limits | None = None,
        compression: int | None = None,
        slow_consumer: Literal["disconnect", "drop_oldest", "conflate", "resync"] = "disconnect",
        probes: bool = True,
        ready_requires_broker: bool = False,
        client_script: bool = True,
        broker: str | None = None,
    ) -> None:
        super().__init__()
        if broker is not None:
            check_broker(broker)
        self._broker = broker
        self._hosts = check_hosts(hosts)
        self._core = AppCore(self, http, self._hosts, probes=probes, requires_broker=ready_requires_broker)
        if client_script:
            self.mount(SCRIPT_PATH, ClientScript(tuple(origins)))
        self.state = State()
        self.limits = limits or Limits()
        self._threadsafe = Threadsafe(lambda: self._core.node, max_name=self.limits.max_room_name)
        self._make_publisher = lambda url: Publisher(url or broker_url(broker), self._finder, self.limits)
        self.stats = Stats()
        self.overrides: dict[Callable[..., Any], Callable[..., Any]] = {}
        self.on_exception: Callable[[BaseException], None] | None = None
        self._defaults = Options(
            origins=tuple(origins) if not isinstance(origins, str) else origins,
            subprotocols=tuple(subprotocols),
            compression=compression,
            slow_consumer=slow_consumer,
        )
        self._user_lifespan = lifespan
        self._plugins = Plugins()
        self._error_handlers: list[Callable[..., Any]] = []
        self._startup: list[Callable[[], Any]] = []
        self._shutdown: list[Callable[[], Any]] = []

    # Registration

    def on_error(self, handler: F) -> F:
        """Register a handler for exceptions of handlers: `(socket, error)`.

        You can register several, for example in plugins; each is called. The
        exception has been logged, and its sender has been answered. `socket` is
        `None` for tasks of the app.
        """
        self._error_handlers.append(handler)
        return handler

    def on_startup(self, handler: F) -> F:
        """Register a plain or async function that runs before the first connection."""
        self._startup.append(handler)
        return handler

    def on_shutdown(self, handler: F) -> F:
        """Register a plain or async function that runs after all connections are closed."""
        self._shutdown.append(handler)
        return handler

    def plugin(self, plugin: AnyPlugin) -> None:
        """Let a plugin, or any callable that takes the app, set this app up.

        Raises:
            ConfigurationError: Its name is taken, a plugin it requires is
                missing, or its set-up failed.
        """
        self._plugins.add(self, plugin)

    def mount(self, path: str, app: Any) -> None:
        """Serve an ASGI app for plain HTTP on the same port, at *path* and below it.

        The longest path that fits answers. Requests below a mount never reach
        the `http=` app, which serves the rest. The lifespan of *app* runs with
        the app's own. WebSockets go to routes, not to mounts.

        Args:
            path: Such as `"/metrics"`; without parameters. The app sees it as
                its ASGI `root_path`.
            app: An ASGI app.

        Raises:
            ConfigurationError: The path is wrong or taken, or *app* is not an
                ASGI app.
            RuntimeError: The app runs already: the lifespan of *app* could not
                be run any more.
        """
        if self._core.started:
            raise RuntimeError(f"app.mount({path!r}) was called while the app runs. Mount before it starts.")
        if isinstance(app, Symphony):
            raise ConfigurationError(
                f"app.mount({path!r}): a Symphony app serves WebSockets, which do not go to mounts. "
                "Group its routes in a Router and use app.include(router, prefix=…)."
            )
        self._core.mounts.add(path, app)

    @property
    def _apps(self) -> tuple[Any, ...]:
        """The ASGI apps that answer plain HTTP: the `http=` app first, then the mounts."""
        return tuple(app for _, app in self._core.mounts)

    # Targets

    @property
    def everyone(self) -> Target:
        """All open sockets of the app, except those of routes with `everyone=False`.

        A route whose handler takes `bytes` needs `everyone=True`: its clients speak a
        binary protocol.

        Raises:
            RuntimeError: The app is not running.
        """
        return Target(self._core.node.rooms, "")

    def room(self, name: str) -> Room:
        """Return a handle of the room with that full name, whether or not it has members.

        Raises:
            Reject: No room can have this name, as in `socket.join` (`invalid`).
            RuntimeError: The app is not running.
        """
        return self._core.node.rooms.room(name)

    async def presence(self, user_id: str) -> list[str]:
        """Return the names of the rooms in which a user is a member, on all nodes."""
        return await self._core.node.rooms.rooms_of(user_id)

    def socket(self, id: str) -> SocketTarget:
        """Return a handle of the socket with that `Socket.id`, whether or not it is open.

        Raises:
            RuntimeError: The app is not running.
        """
        return self._core.node.targets.socket(id)

    def user(self, id: str) -> User:
        """Return all sockets whose `Identity.id` this is, as one target: the room `user:{id}`.

        Raises:
            Reject: No room can have this name (`invalid`).
            RuntimeError: The app is not running.
        """
        return self._core.node.targets.user(id)

    def users(self, *ids: str) -> Users:
        """Return several users as one target; otherwise as `user`. A message to them is encoded once."""
        return self._core.node.targets.users(ids)

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in a task, which is cancelled when the app stops.

        An exception ends the task. It is logged and passed to `on_error`.

        Raises:
            RuntimeError: The app is not running.
            TypeError: It is not a coroutine.
            WrongThreadError: Called from another thread than the event loop's.
        """
        check_coroutine("app.background", coroutine)
        try:
            node = self._core.node
        except RuntimeError:
            coroutine.close()
            raise
        if get_ident() != node.rooms.thread:
            coroutine.close()
            raise WrongThreadError(
                "app.background() was called from another thread than the event loop's. "
                "Use asyncio.run_coroutine_threadsafe(coroutine, loop)."
            )
        return node.run_in_background(coroutine)

    # Life

    @asynccontextmanager
    async def lifespan(self, outer: Any = None) -> AsyncGenerator[None]:
        """Start the app, and stop it at the end of the block: `FastAPI(lifespan=ws.lifespan)`.

        Args:
            outer: The app that this one is mounted in.

        Raises:
            ConfigurationError: The app is not configured correctly.
        """
        if self._core.started:
            raise RuntimeError("This app runs already. Enter its lifespan once, in one place.")
        make_node, keeps_history = self._compile()
        async with AsyncExitStack() as stack:
            opening = opened_broker(self._broker, self.limits, keeps_history=keeps_history)
            node = make_node(broker=await stack.enter_async_context(opening))
            stack.enter_context(self._core.running(node))
            await node.rooms.start()
            stack.enter_context(reachable(node.targets.named(self._groups()), node.targets.everyone_of))
            if outer is not None:
                self._core.warn_if_not_native()
            stack.push_async_callback(node.close)
            await self._plugins.startup(self)
            stack.push_async_callback(self._plugins.shutdown, self)
            if self._user_lifespan is not None:
                shared = await stack.enter_async_context(self._user_lifespan(self))
                if isinstance(shared, Mapping):
                    for name, value in cast("Mapping[str, Any]", shared).items():
                        setattr(self.state, name, value)
            for handler in self._startup:
                await called(handler)
            for handler in self._shutdown:
                stack.push_async_callback(called, handler)
            # The sockets are closed when the shutdown handlers run.
            stack.push_async_callback(node.close_sockets)
            await stack.enter_async_context(self._core.running_mounts())
            node.rooms.begin()
            yield

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI scope: the app is an ASGI 3 application."""
        await self._core(scope, receive, send)

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        uds: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_keyfile_password: str | None = None,
        log_level: str | None = None,
        proxy_headers: bool = False,
        forwarded_allow_ips: str = "127.0.0.1",
    ) -> None:
        """Serve the app natively until SIGINT or SIGTERM, then stop it gracefully.

        The first line of output says where it listens. If the server cannot
        start, the process exits with 1 and one line says why.

        Args:
            host: Address to listen on; `"0.0.0.0"` for all.
            port: Port to listen on, 0 for a free one.
            uds: Path of a Unix socket to listen on instead.
            ssl_certfile: Certificate chain in PEM; then it serves `https` and `wss`.
            ssl_keyfile: The certificate's key; `None`: it is in *ssl_certfile*.
            ssl_keyfile_password: The key's password.
            log_level: `debug`, `info`, `warning`, `error` or `critical`. `None`
                is `warning`, and no change to logging that you configured.
            proxy_headers: Take the client's address and scheme from the
                `X-Forwarded-For` and `X-Forwarded-Proto` headers of
                *forwarded_allow_ips*.
            forwarded_allow_ips: Addresses of trusted proxies, comma-separated.
        """
        serve(
            self,
            host=host,
            port=port,
            uds=uds,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            ssl_keyfile_password=ssl_keyfile_password,
            log_level=log_level,
            proxy_headers=proxy_headers,
            forwarded_allow_ips=forwarded_allow_ips,
        )

    def _compile(self) -> tuple[partial[Node], bool]:
        hooks = HookCompiler(self.overrides)
        families, keeps_history = hooks.families(self._all_families())
        compiler = Compiler(Defaults(self.limits, self._defaults), self.overrides, families)
        table = PathTable[Endpoint]()
        for path, route, inside in self._all_routes():
            table.add(path, compiler.endpoint(path, route, inside), route._owner)  # pyright: ignore[reportPrivateUsage]
        if not any(self._all_routes()):
            if not self.handlers and not self.events:
                logger.warning(
                    "The app has no routes and no handlers: every path takes connections and no messages. "
                    "Was an app.include(router) forgotten?"
                )
            # Handlers of the app alone answer on every path.
            table.add(EVERY_PATH, compiler.endpoint(EVERY_PATH, None, (self,)))
        make_node = partial(
            Node,
            table.match,
            table.texts,
            families.find,
            limits=self.limits,
            hosts=self._hosts,
            has_members=families.have_members,
            stats=self.stats,
            on_error=[hooks.error_handler(handler) for handler in self._error_handlers],
            on_exception=self.on_exception,
        )
        return make_node, keeps_history

    def _finder(self) -> FindFamily:
        return HookCompiler(self.overrides).families(self._all_families())[0].find

    def __repr__(self) -> str:
        return "app"
