"""An app that is served in another thread, for clients that block this one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from support.servers import serve_natively
from symphony import Symphony

__all__ = ("serving",)


@contextmanager
def serving(app: Symphony) -> Iterator[str]:
    """Serve an app in a thread of its own; give its URL."""
    urls: list[str] = []
    ready = Event()
    failures: list[BaseException] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stopping = asyncio.Event()
        stop.append((asyncio.get_running_loop(), stopping))
        async with serve_natively(app) as url:
            urls.append(url)
            ready.set()
            await stopping.wait()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10)
        if failures:
            raise failures[0]
        yield urls[0]
    finally:
        if urls:
            loop, stopping = stop[0]
            loop.call_soon_threadsafe(stopping.set)
        thread.join(20)
    if failures:
        raise failures[0]
