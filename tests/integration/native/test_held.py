"""What a warning about a held event loop names."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from support.clients import connect, until
from support.servers import serve_natively
from symphony import Limits, Symphony

SAY = '{"event":"say","data":null}'


def hold(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def warnings(caplog) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


@pytest.mark.beyond("blocking_warning")
async def test_the_event_of_one_slow_handler_is_named(caplog):
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


async def test_many_fast_messages_are_no_fault_of_the_last_one(caplog):
    app = Symphony(limits=Limits(blocking_warning=0.03))
    handled: list[int] = []

    @app.on("say")
    async def say() -> None:
        hold(0.002)
        handled.append(1)

    async with serve_natively(app) as url, connect(f"{url}/x") as client:
        for _ in range(2):
            for _ in range(40):
                await client.send(SAY)
            await until(lambda: "held the event loop" in caplog.text)
            await until(lambda: len(handled) % 40 == 0)
            line = warnings(caplog)[0]
            assert "messages of /{path:path}, handled in one go, held the event loop for 0." in line
    # From the second time on each is timed.
    assert "The slowest took " in line
    assert "the handler of the event 'say'" in line


async def test_messages_that_waited_are_counted_too(caplog):
    """Handled one after the other in one step of the socket's task, when what they waited for has come."""
    app = Symphony(limits=Limits(blocking_warning=0.03))
    go_on = asyncio.Event()
    handled: list[int] = []

    @app.on("wait")
    async def wait() -> None:
        await go_on.wait()

    @app.on("say")
    async def say() -> None:
        hold(0.002)
        handled.append(1)

    async with serve_natively(app) as url, connect(f"{url}/x") as client:
        await client.send('{"event":"wait"}')
        for _ in range(40):
            await client.send(SAY)
        await client.send('{"ping":1}')
        assert await client.recv() == '{"pong":1}'
        go_on.set()
        await until(lambda: len(handled) == 40)
        await until(lambda: "held the event loop" in caplog.text)
    line = warnings(caplog)[0]
    assert line.startswith("41 messages of /{path:path}, handled in one go, held the event loop for 0.")
    assert "The last one was the event 'say'." in line


async def test_a_stream_is_named_and_not_the_handler_beside_it(caplog):
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
