"""The disconnect handler: exactly once for every socket whose connect handler began, however it ends."""

import asyncio

import pytest

from support.clients import Log, closed, connect, error_in, refused, until
from support.servers import transport
from symphony import Close, Limits, Reject, Room, Socket, Symphony


def counted(app: Symphony) -> Log:
    """Let the app log each disconnect, and fail a test in which one comes twice."""
    log = Log()
    gone = set()

    @app.on_disconnect
    async def on_disconnect(socket: Socket, close: Close) -> None:
        assert socket.id not in gone
        gone.add(socket.id)
        log.append(close)

    return log


async def test_a_clean_close_of_the_client_brings_its_code_and_reason(serve):
    app = Symphony()
    log = counted(app)
    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.close(4321, "gone fishing")
        await log.reaches(1)
    assert log == [Close(4321, "gone fishing", clean=True)]


async def test_a_lost_connection_is_no_clean_close(serve):
    app = Symphony()
    log = counted(app)
    async with serve(app) as url:
        client = await connect(f"{url}/")
        client.transport.abort()
        await log.reaches(1)
    # uvicorn tells of a lost connection as if the client had closed without a code.
    assert log == [Close(1006, "", clean=False) if transport() == "native" else Close(1005, "", clean=True)]


async def test_a_close_of_the_server_brings_its_own_code(serve):
    app = Symphony()
    log = counted(app)

    @app.on_message
    async def bye(socket: Socket, message: str) -> None:
        await socket.close(4000, "enough")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await closed(client) == (4000, "enough")
        await log.reaches(1)
    assert log == [Close(4000, "enough", clean=True)]


async def test_a_connect_handler_that_refuses_is_followed_by_a_disconnect(serve):
    app = Symphony()
    log = counted(app)

    @app.on_connect
    async def enter() -> None:
        raise Reject("forbidden")

    async with serve(app) as url:
        assert (await refused(f"{url}/")).status == 403
        await log.reaches(1)
    assert [close.code for close in log] == [4403]


async def test_a_connect_handler_that_fails_is_followed_by_a_disconnect(serve):
    app = Symphony()
    log = counted(app)

    @app.on_connect
    async def enter() -> None:
        raise RuntimeError

    async with serve(app) as url:
        assert (await refused(f"{url}/")).status == 500
        await log.reaches(1)
    assert [close.code for close in log] == [1011]


async def test_a_refusal_before_the_connect_handler_is_not_followed_by_a_disconnect(serve):
    app = Symphony()
    log = counted(app)

    @app.on_connect
    async def enter() -> None: ...

    @app.middleware("connect")
    async def guard(socket: Socket, call_next) -> None:
        raise Reject("unauthorized")

    async with serve(app) as url:
        assert (await refused(f"{url}/")).status == 401
    assert app.stats.refused == 1
    assert log == []


async def test_a_client_that_goes_during_the_connect_handler_cancels_it(serve):
    app = Symphony()
    log = counted(app)
    began = asyncio.Event()

    @app.on_connect
    async def enter() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async with serve(app) as url:
        opening = asyncio.ensure_future(connect(f"{url}/").__aenter__())
        await began.wait()
        opening.cancel()
        await log.reaches(2)
    # uvicorn sends its 1006 only for handshakes that were never answered.
    assert log == ["cancelled", Close(1006, "", clean=False)]


async def test_a_failed_message_is_followed_by_one_disconnect_when_the_client_goes(serve):
    app = Symphony()
    log = counted(app)

    @app.on_message
    async def fail(message: str) -> None:
        raise RuntimeError

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            assert error_in(await client.recv())["code"] == "internal"
            assert log == []
        await log.reaches(1)
    assert [close.code for close in log] == [1000]


async def test_a_stopping_server_closes_with_1012_and_runs_every_disconnect_handler(serve):
    app = Symphony()
    log = counted(app)
    async with serve(app) as url:
        clients = [await connect(f"{url}/") for _ in range(20)]
    assert [code for code, _ in [await closed(client) for client in clients]] == [1012] * 20
    assert [close.code for close in log] == [1012] * 20


async def test_a_stopping_server_lets_a_running_handler_finish(serve):
    app = Symphony()
    log = counted(app)
    began = asyncio.Event()

    @app.on_message
    async def handle(message: str) -> str:
        began.set()
        for _ in range(20):
            await asyncio.sleep(0)
        log.append("finished")
        return "done"

    async with serve(app) as url:
        client = await connect(f"{url}/")
        await client.send("x")
        await began.wait()
    if transport() == "native":
        # Plain uvicorn closes its connections before it tells the app.
        assert await client.recv() == "done"
    assert (await closed(client))[0] == 1012
    assert [log[0], log[1].code] == ["finished", 1012]


async def test_on_leave_runs_before_on_disconnect_and_the_socket_is_out_of_its_rooms_by_then(serve):
    app = Symphony()
    rooms = app.rooms("lobby:{name}")
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("lobby:a")
        await socket.join("plain")

    @rooms.on_leave
    async def left(socket: Socket, room: Room) -> None:
        log.append(("left", room.name, socket in room, socket.rooms))
        await room.send("bye")

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        log.append(("disconnected", socket.rooms, socket in app.room("plain"), socket in app.everyone))

    async with serve(app) as url, connect(f"{url}/") as stays:
        async with connect(f"{url}/"):
            pass
        assert await stays.recv() == "bye"
        await until(lambda: len(log) == 2)
        assert log == [("left", "lobby:a", False, frozenset()), ("disconnected", frozenset(), False, False)]
        assert len(app.room("plain").sockets) == 1


async def test_sending_to_a_socket_that_has_gone_does_nothing_but_count(serve):
    app = Symphony()
    log = Log()

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        before = socket.dropped
        assert not socket.connected
        await socket.send("anyone there?")
        await socket.close(4000)
        log.append(socket.dropped - before)

    async with serve(app) as url:
        async with connect(f"{url}/"):
            pass
        await log.reaches(1)
    assert log == [1]
    assert app.stats.dropped_frames == 1


async def test_a_disconnect_handler_that_fails_is_logged_and_the_socket_cleaned_up(serve, caplog):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("lobby")

    @app.on_disconnect
    async def leave() -> None:
        raise RuntimeError("no goodbye")

    async with serve(app) as url:
        async with connect(f"{url}/"):
            pass
        await until(lambda: app.stats.closed == 1)
        assert app.room("lobby").sockets == ()
    assert "disconnect handler of" in caplog.text
    assert "no goodbye" in caplog.text


async def test_a_handler_at_work_finishes_before_the_disconnect_handler_runs(serve):
    app = Symphony()
    log = counted(app)
    began, release = asyncio.Event(), asyncio.Event()

    @app.on_message
    async def handle(message: str) -> None:
        began.set()
        await release.wait()
        log.append("handled")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            await began.wait()
        assert log == []
        release.set()
        await log.reaches(2)
    assert [log[0], log[1].code] == ["handled", 1000]


async def test_messages_that_wait_when_the_client_goes_are_handled_before_the_disconnect(serve):
    app = Symphony()
    log = counted(app)
    began, release = asyncio.Event(), asyncio.Event()

    @app.on_message
    async def handle(message: str) -> None:
        began.set()
        await release.wait()
        log.append(message)

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            for message in "abc":
                await client.send(message)
            await began.wait()
        release.set()
        await log.reaches(4)
    assert log[:3] == ["a", "b", "c"]


@pytest.mark.beyond("finish_timeout")
async def test_a_handler_that_does_not_finish_is_cancelled_after_the_finish_timeout(serve):
    app = Symphony(limits=Limits(finish_timeout=0.05))
    log = counted(app)
    began = asyncio.Event()

    @app.on_message
    async def handle(message: str) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            await began.wait()
        await log.reaches(2)
    assert [log[0], log[1].code] == ["cancelled", 1000]


async def test_a_disconnect_handler_that_does_not_finish_is_cancelled(serve):
    app = Symphony(limits=Limits(finish_timeout=0.05))
    log = Log()

    @app.on_disconnect
    async def leave() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async with serve(app) as url:
        async with connect(f"{url}/"):
            pass
        await until(lambda: app.stats.closed == 1)
    assert log == ["cancelled"]


async def test_the_time_a_handler_took_is_not_taken_from_the_disconnect_handler(serve):
    """The timer that ends a late message handler went on, and cut off the disconnect handler."""
    app = Symphony(limits=Limits(finish_timeout=0.3))
    log = Log()
    began = asyncio.Event()

    @app.on_message
    async def work(message: str) -> None:
        began.set()
        await asyncio.sleep(0.2)

    @app.on_disconnect
    async def leave() -> None:
        await asyncio.sleep(0.2)
        log.append("finished")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            await began.wait()
        await until(lambda: app.stats.closed == 1)
    assert log == ["finished"]


@pytest.mark.parametrize("opened", [False, True])
async def test_a_socket_the_connect_handler_closes_is_disconnected_once(serve, opened):
    app = Symphony()
    log = counted(app)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        if opened:
            await socket.send("hi")
        await socket.close(4001, "not you")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            assert await closed(client) == (4001, "not you")
        await log.reaches(1)
    assert [close.code for close in log] == [4001]


async def test_it_runs_for_a_socket_that_connect_middleware_opened_by_itself(serve):
    app = Symphony()
    route = app.route("/")
    gone = asyncio.Event()

    @route.middleware("connect")
    async def answer(socket: Socket, call_next: object) -> None:
        """Let everyone in, without asking the connect handler."""

    @route.on_connect
    async def never() -> None:
        raise AssertionError("the middleware did not call on")

    @route.on_disconnect
    async def leave() -> None:
        gone.set()

    async with serve(app) as url:
        async with connect(f"{url}/"):
            pass
        await gone.wait()
