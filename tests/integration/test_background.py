"""Background tasks of sockets and of the app."""

import asyncio
from typing import Any

import pytest

from support.clients import Log, closed, connect, until
from symphony import DisconnectedError, Limits, Socket, Symphony


async def test_a_sockets_task_runs_beside_its_handlers(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        async def tick() -> None:
            number = 0
            while True:
                await socket.send(number)
                number += 1
                await asyncio.sleep(0.001)

        socket.background(tick())

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        assert [await client.recv() for _ in range(3)] == ["0", "1", "2"]
        await client.send("x")
        while await client.recv() != "x":
            pass


async def test_a_sockets_task_is_cancelled_when_the_socket_has_gone(serve):
    app = Symphony()
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("cancelled")

        socket.background(wait())

    @app.on_disconnect
    async def leave() -> None:
        log.append("disconnect")

    async with serve(app) as url:
        async with connect(f"{url}/"):
            assert log == []
        await log.reaches(2)
    assert log == ["disconnect", "cancelled"]


async def test_a_tasks_result_can_be_awaited(serve):
    app = Symphony()

    async def compute() -> int:
        await asyncio.sleep(0)
        return 7

    @app.on_message
    async def handle(socket: Socket, message: str) -> list:
        return [await socket.background(compute()), await app.background(compute())]

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "[7,7]"


@pytest.mark.parametrize("owner", ["socket", "app"])
async def test_a_task_that_fails_is_logged_and_reported_and_nothing_else_happens(serve, caplog, owner):
    app = Symphony()
    log = Log()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("task failed")

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        if message == "fail":
            (socket if owner == "socket" else app).background(fail())
        return message

    @app.on_error
    def on_error(socket: Socket, error: Exception) -> None:
        log.append((socket and socket.id, str(error)))

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("fail")
        assert await client.recv() == "fail"
        await log.reaches(1)
        await client.send("works")
        assert await client.recv() == "works"
        [socket] = app.everyone.sockets
    assert log == [(socket.id if owner == "socket" else None, "task failed")]
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "background task" in record.getMessage()
    assert (socket.id in record.getMessage()) is (owner == "socket")


async def test_the_apps_tasks_are_cancelled_when_it_stops(serve):
    app = Symphony()
    log = Log()

    @app.on_startup
    async def start() -> None:
        async def work() -> None:
            log.append("began")
            try:
                await asyncio.Event().wait()
            finally:
                log.append("cancelled")

        app.background(work())

    @app.on_shutdown
    async def stop() -> None:
        log.append("shutdown")

    async with serve(app):
        await log.reaches(1)
    assert log == ["began", "shutdown", "cancelled"]


async def test_a_task_begun_as_the_app_stops_is_closed_without_a_warning(serve):
    """Cancelled before its first step, its coroutine was 'never awaited'."""
    app = Symphony()
    log = Log()

    async def work() -> None:
        log.append("worked")

    @app.on_shutdown
    def stop() -> None:
        app.background(work())

    async with serve(app):
        pass
    assert log == []


@pytest.mark.within("max_background_tasks")
@pytest.mark.beyond("max_background_tasks")
async def test_a_socket_takes_only_so_many_tasks(serve):
    app = Symphony(limits=Limits(max_background_tasks=2))

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        tasks = [socket.background(asyncio.sleep(60)) for _ in range(2)]
        with pytest.raises(RuntimeError, match="takes no background task: 2 of its tasks run already"):
            socket.background(asyncio.sleep(60))
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        socket.background(asyncio.sleep(60))
        return "done"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "done"


async def test_a_socket_that_has_gone_takes_no_task(serve):
    app = Symphony()
    log = Log()

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        with pytest.raises(DisconnectedError, match="it is closed"):
            socket.background(asyncio.sleep(60))
        log.append("refused")

    async with serve(app) as url:
        async with connect(f"{url}/"):
            pass
        await until(lambda: app.stats.closed == 1)
    assert log == ["refused"]


@pytest.mark.parametrize("what", [lambda socket: socket.send("x"), lambda socket: 1, lambda socket: print])
async def test_only_a_coroutine_runs_in_the_background(serve, what):
    """`app.background(socket.close())` raised AttributeError."""
    app = Symphony()

    @app.on_message
    async def work(socket: Socket, message: str) -> str:
        for background in (socket.background, app.background):
            with pytest.raises(
                TypeError, match=r"background\(\) takes a coroutine.* begin when you call them"
            ):
                background(what(socket))
        return "refused"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("go")
        while (answer := await client.recv()) == "x":
            pass
        assert answer == "refused"


async def test_a_close_needs_no_background_task(serve):
    app = Symphony()
    log = Log()

    @app.on_message
    async def work(socket: Socket, message: str) -> None:
        closing: Any = socket.close(4000)
        with pytest.raises(TypeError, match="takes a coroutine"):
            app.background(closing)
        log.append("refused")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("go")
        assert (await closed(client))[0] == 4000
        await log.reaches(1)
