"""What a warning about a held event loop names."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from support import raw
from support.clients import connect, until
from support.clock import Hold
from support.raw import PING, frame, text
from support.servers import serve_natively
from symphony import Limits, Symphony

SAY = '{"event":"say","data":null}'


def warnings(caplog) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


@pytest.mark.beyond("blocking_warning")
async def test_the_event_of_one_slow_handler_is_named(hold, caplog):
    app = Symphony(limits=Limits(blocking_warning=0.02))

    @app.on("say")
    async def say() -> None:
        hold(0.04)

    async with serve_natively(app) as url, connect(f"{url}/x") as client:
        await client.send(SAY)
        await until(lambda: "held the event loop" in caplog.text)
    assert warnings(caplog)[0].startswith(
        "The handler of the event 'say' of /{path:path} held the event loop for 0."
    )


def event(name: str) -> bytes:
    return text(f'{{"event":"{name}"}}')


def slow_among_fast(handled: list[str], hold: Hold) -> Symphony:
    app = Symphony(limits=Limits(blocking_warning=0.05))
    go_on = asyncio.Event()

    @app.on("say")
    async def say() -> None:
        handled.append("say")

    @app.on("slow")
    async def slow() -> None:
        hold(0.1)
        handled.append("slow")

    @app.on("wait")
    async def wait() -> None:
        await go_on.wait()
        go_on.clear()

    @app.on("first")
    async def first() -> None:
        go_on.set()
        await asyncio.sleep(0)

    return app


async def test_the_slow_one_of_many_messages_is_named(hold, caplog):
    handled: list[str] = []
    app = slow_among_fast(handled, hold)
    async with serve_natively(app) as url, raw.connect(f"{url}/x") as client:
        for before, after in ((5, 6), (2, 40), (0, 3)):
            caplog.clear()
            handled.clear()
            await client.send(event("say") * before, event("slow"), event("say") * after)
            await until(lambda count=before + after: len(handled) > count)
            (line,) = warnings(caplog)
            if (before, after) == (5, 6):
                # How long each took is known from the second time on.
                assert "7 messages of /{path:path}, handled in one go, held the event loop" in line
                assert line.endswith("The next time, each is timed.")
            else:
                assert line.startswith("The handler of the event 'slow' of /{path:path}")


async def test_the_slow_one_of_many_messages_that_waited_is_named(hold, caplog):
    """They are handled one after the other by the socket's task, when what they waited for has come."""
    handled: list[str] = []
    app = slow_among_fast(handled, hold)
    async with (
        serve_natively(app) as url,
        raw.connect(f"{url}/x") as client,
        raw.connect(f"{url}/x") as other,
    ):
        for before, after in ((0, 20), (3, 3), (20, 0)):
            caplog.clear()
            handled.clear()
            await client.send(event("wait"), event("say") * before, event("slow"), event("say") * after)
            await client.send(frame(PING, b"all read"))
            assert (await client.frame()).payload == b"all read"
            await other.send(event("first"))
            await until(lambda count=before + after: len(handled) > count)
            (line,) = warnings(caplog)
            assert line.startswith("The handler of the event 'slow' of /{path:path}")
            assert "held the event loop for 0." in line


async def test_a_stream_is_named_and_not_the_handler_beside_it(hold, caplog):
    app = Symphony(limits=Limits(blocking_warning=0.02))

    @app.on("rows")
    async def rows() -> AsyncIterator[int]:
        yield 1
        hold(0.04)
        yield 2

    async with serve_natively(app) as url, connect(f"{url}/x") as client:
        await client.send('{"event":"rows","id":1,"credit":9}')
        await until(lambda: "held the event loop" in caplog.text)
    assert warnings(caplog)[0].startswith(
        "The handler of the event 'rows' of /{path:path} held the event loop"
    )
