"""An app behind each of its servers, in the test's own loop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import uvicorn
import uvloop
from fastapi import FastAPI

import symphony
from symphony import Symphony
from symphony.transport.native.server import Server, make_config

Transport = Literal["native", "asgi", "mounted"]
Serve = Callable[[Symphony], AbstractAsyncContextManager[str]]

_OUR_FOLDER = str(Path(symphony.__file__).parent)

_transports: WeakKeyDictionary[asyncio.AbstractEventLoop, Transport] = WeakKeyDictionary()


class Variant(NamedTuple):
    """A loop to run a test in, and the transport it is about."""

    transport: Transport
    new_loop: Callable[[], asyncio.AbstractEventLoop]

    def __call__(self) -> asyncio.AbstractEventLoop:
        loop = self.new_loop()
        _transports[loop] = self.transport
        return loop


VARIANTS: Mapping[str, Variant] = {
    "native-uvloop": Variant("native", uvloop.new_event_loop),
    "native-asyncio": Variant("native", asyncio.new_event_loop),
    "asgi": Variant("asgi", asyncio.new_event_loop),
    "mounted": Variant("mounted", uvloop.new_event_loop),
}


def transport() -> Transport:
    """Return the transport that the running test is about."""
    return _transports[asyncio.get_running_loop()]


@asynccontextmanager
async def serve(app: Symphony) -> AsyncIterator[str]:
    """Serve *app* over the transport of the running test; give the URL it answers on."""
    kind = transport()
    if kind == "native":
        async with serve_natively(app) as url:
            yield url
    elif kind == "asgi":
        async with serve_asgi(app) as url:
            yield url
    else:
        outer = FastAPI(lifespan=app.lifespan)
        outer.mount("/mounted", app)
        async with serve_asgi(outer) as url:
            yield f"{url}/mounted"


@asynccontextmanager
async def serve_natively(
    app: Any, *, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[str]:
    """Serve over the native transport; leave it in the order of its own shutdown."""
    addresses: list[str] = []
    config = make_config(app, host=host, port=port, **options)
    server = Server(config, addresses.extend)

    async def drain() -> None:
        await config.acceptor.drain(asyncio.Event())
        for listener in server.servers:
            await listener.wait_closed()

    async with _running(server, drain):
        yield addresses[0].replace("http", "ws", 1)


@asynccontextmanager
async def serve_asgi(app: Any, *, lifespan: Literal["on", "off"] = "on") -> AsyncIterator[str]:
    """Serve with plain uvicorn and its `websockets` protocol."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, lifespan=lifespan, log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    async with _running(server, _nothing):
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


@asynccontextmanager
async def _running(server: uvicorn.Server, drain: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Do what `Server.run` does, without its signal handlers and its pauses."""
    config = server.config
    config.load()
    server.lifespan = config.lifespan_class(config)
    # A test may run several servers.
    of_others = set(_tasks_of_ours())
    with _watched() as complaints:
        await server.startup()
        await server.on_tick(0)
        try:
            yield
        finally:
            for listener in server.servers:
                listener.close()
            await drain()
            for listener in server.servers:
                await listener.wait_closed()
            for connection in tuple(server.server_state.connections):
                connection.shutdown()
            while server.server_state.tasks:
                await asyncio.wait(server.server_state.tasks)
            await server.lifespan.shutdown()
    assert not complaints, [record.getMessage() for record in complaints]
    left = [task for task in _tasks_of_ours() if task not in of_others]
    assert not left, left


class _Watch(logging.Handler):
    """Collects what the server or the loop complains about: no test expects that."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []
        self.loggers = [logging.getLogger(name) for name in ("asyncio", "uvicorn.error")]

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> list[logging.LogRecord]:
        for logger in self.loggers:
            logger.addHandler(self)
        return self.records

    def __exit__(self, *_: object) -> None:
        for logger in self.loggers:
            logger.removeHandler(self)


_watched = _Watch


def _tasks_of_ours() -> list[asyncio.Task[Any]]:
    return [
        task for task in asyncio.all_tasks() if task.get_coro().cr_code.co_filename.startswith(_OUR_FOLDER)
    ]


async def end_unmanaged(app: Symphony) -> None:
    """End an app that no server has started, as `asyncio.run` does at the end."""
    unmanaged: Any = app._core._unmanaged
    unmanaged._task.cancel()
    await asyncio.wait((unmanaged._task,))


async def _nothing() -> None:
    """Stand where a server needs no draining."""
