"""Connect, message, disconnect and error handlers: which run, when, and in which forms."""

import asyncio
import json
import threading
from functools import partial

import pytest

from support.clients import Log, closed, connect, error_in, refused, until
from symphony import Close, Handshake, Reject, Socket, Symphony


async def test_connect_handler_greets_before_the_first_message(serve):
    app = Symphony()

    @app.on_connect
    async def greet(socket: Socket) -> None:
        await socket.send("Hello, World!")

    @app.on_message
    async def acknowledge(message: str | bytes) -> str:
        return "I got your message!"

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "Hello, World!"
        await client.send("x")
        assert await client.recv() == "I got your message!"
        await client.send(b"x")
        assert await client.recv() == "I got your message!"


async def test_messages_of_one_socket_are_handled_in_order_one_after_the_other(serve):
    app = Symphony()
    at_work = 0

    @app.on_message
    async def slow_first(message: str) -> str:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        for _ in range(5 if message == "0" else 0):
            await asyncio.sleep(0)
        at_work -= 1
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for number in range(20):
            await client.send(str(number))
        assert [await client.recv() for _ in range(20)] == [str(number) for number in range(20)]


async def test_handlers_of_two_sockets_run_beside_each_other(serve):
    app = Symphony()
    release = asyncio.Event()

    @app.on_message
    async def wait(message: str) -> str:
        if message == "wait":
            await release.wait()
        return message

    async with serve(app) as url, connect(f"{url}/") as waiting, connect(f"{url}/") as other:
        await waiting.send("wait")
        await other.send("go")
        assert await other.recv() == "go"
        release.set()
        assert await waiting.recv() == "wait"


async def test_a_message_sent_at_once_waits_for_the_connect_handler(serve):
    app = Symphony()
    release = asyncio.Event()
    log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("open")
        await release.wait()
        log.append("connected")

    @app.on_message
    async def handle(message: str) -> str:
        log.append(message)
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "open"
        await client.send("early")
        pong = await client.ping()
        await pong
        assert log == []
        release.set()
        assert await client.recv() == "early"
        assert log == ["connected", "early"]


async def test_handlers_may_be_plain_functions(serve):
    app = Symphony()
    log = Log()

    @app.on_connect
    def enter(socket: Socket) -> None:
        socket.send("hi")

    @app.on_message
    def handle(socket: Socket, message: str) -> str:
        socket.send("first")
        return message.upper()

    @app.on_disconnect
    def leave(close: Close) -> None:
        log.append(close.code)

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            assert await client.recv() == "hi"
            await client.send("word")
            assert [await client.recv(), await client.recv()] == ["first", "WORD"]
        await log.reaches(1)
    assert log == [1000]


async def test_plain_handlers_run_on_the_loop_and_with_thread_beside_it(serve):
    app = Symphony()
    loop_thread = threading.current_thread()

    @app.on_connect
    def enter() -> None:
        assert threading.current_thread() is loop_thread

    @app.on_message(thread=True)
    def handle(message: str) -> str:
        return f"{message} {threading.current_thread() is loop_thread}"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("on the loop:")
        assert await client.recv() == "on the loop: False"


async def test_all_three_handlers_may_run_in_a_thread(serve):
    app = Symphony()
    loop_thread = threading.current_thread()
    log = Log()

    @app.on_connect(thread=True)
    def enter() -> None:
        log.append(("connect", threading.current_thread() is loop_thread))

    @app.on_message(thread=True)
    def handle(message: str) -> str:
        return message

    @app.on_disconnect(thread=True)
    def leave(close: Close) -> None:
        log.append(("disconnect", threading.current_thread() is loop_thread))

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            assert await client.recv() == "x"
        await log.reaches(2)
    assert log == [("connect", False), ("disconnect", False)]


async def test_a_handler_in_a_thread_does_not_hold_up_other_sockets(serve):
    app = Symphony()
    release = threading.Event()

    @app.on_message(thread=True)
    def handle(message: str) -> str:
        if message == "wait":
            assert release.wait(5)
        return message

    async with serve(app) as url, connect(f"{url}/") as waiting, connect(f"{url}/") as other:
        await waiting.send("wait")
        await other.send("go")
        assert await other.recv() == "go"
        release.set()
        assert await waiting.recv() == "wait"


async def test_methods_partials_and_callable_objects_are_handlers(serve):
    class Chat:
        def __init__(self, name: str) -> None:
            self.name = name

        async def enter(self, socket: Socket) -> None:
            await socket.send(self.name)

        async def __call__(self, message: str) -> str:
            return f"{self.name}: {message}"

    async def leave(log: Log, socket: Socket) -> None:
        log.append(socket.id)

    log = Log()
    app = Symphony()
    app.on_connect(Chat("ann").enter)
    app.on_message(Chat("bob"))
    app.on_disconnect(partial(leave, log=log))

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            assert await client.recv() == "ann"
            await client.send("hi")
            assert await client.recv() == "bob: hi"
        await log.reaches(1)


async def test_decorators_give_the_handler_back_unchanged(serve):
    app = Symphony()

    async def handler(message: str) -> str:
        return message

    assert app.on_message(handler) is handler
    assert app.route("/r").on_message(thread=False)(handler) is handler


async def test_a_route_on_a_function_makes_it_the_connect_handler(serve):
    app = Symphony()

    @app.route("/x")
    async def enter(socket: Socket) -> None:
        await socket.send("hi")

    @enter.on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/x") as client:
        assert await client.recv() == "hi"
        await client.send("there")
        assert await client.recv() == "there"


async def test_without_a_message_handler_a_message_is_answered_with_an_error(serve):
    app = Symphony()

    @app.on_connect
    async def enter() -> None: ...

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert error_in(await client.recv())["message"] == "this route takes no messages"


async def test_a_failing_message_handler_is_told_without_details_and_the_socket_stays(serve, caplog):
    app = Symphony()
    log = Log()

    @app.route("/secret").on_message
    async def handle(message: str) -> str:
        if message == "fail":
            raise ValueError("the password is 1234")
        return message

    @app.on_error
    async def on_error(socket: Socket, error: Exception) -> None:
        log.append((socket.route, error))

    async with serve(app) as url, connect(f"{url}/secret") as client:
        await client.send("fail")
        told = await client.recv()
        assert "1234" not in told
        assert error_in(told) == {
            "code": "internal",
            "message": "the server failed to handle the message",
            "retryable": True,
            "details": None,
        }
        await client.send("works")
        assert await client.recv() == "works"
        await log.reaches(1)
    [(route, error)] = log
    assert (route, str(error)) == ("/secret", "the password is 1234")
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.name.startswith("symphony.")
    assert "/secret" in record.getMessage()
    assert "(socket " in record.getMessage()
    assert record.exc_info[1] is error


@pytest.mark.parametrize("stage", ["connect", "message", "disconnect"])
async def test_the_error_handler_hears_of_every_stage(serve, stage):
    app = Symphony()
    log = Log()

    def handler_of(own: str):
        async def handler(socket: Socket) -> None:
            if own == stage:
                raise RuntimeError(own)

        return handler

    app.on_connect(handler_of("connect"))
    app.on_message(handler_of("message"))
    app.on_disconnect(handler_of("disconnect"))

    @app.on_error
    def on_error(error: Exception) -> None:
        log.append(str(error))

    async with serve(app) as url:
        if stage == "connect":
            await refused(f"{url}/")
        else:
            async with connect(f"{url}/") as client:
                await client.send("x")
        await log.reaches(1)
    assert log == [stage]


async def test_an_error_handler_that_fails_takes_nothing_down(serve, caplog):
    app = Symphony()

    @app.on_message
    async def handle(message: str) -> str:
        if message == "fail":
            raise RuntimeError("first")
        return message

    @app.on_error
    async def on_error(error: Exception) -> None:
        raise RuntimeError("second")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("fail")
        assert error_in(await client.recv())["code"] == "internal"
        await client.send("works")
        assert await client.recv() == "works"
        await until(lambda: "error handler failed itself" in caplog.text)


async def test_a_reject_is_no_error_to_log_or_report(serve, caplog):
    app = Symphony()
    errors = Log()

    @app.on_message
    async def handle(message: str) -> None:
        raise Reject("shop.sold_out", "come back tomorrow", details={"left": 0}, retryable=True)

    @app.on_error
    def on_error(error: Exception) -> None:
        errors.append(error)

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("buy")
        assert error_in(await client.recv()) == {
            "code": "shop.sold_out",
            "message": "come back tomorrow",
            "retryable": True,
            "details": {"left": 0},
        }
        await client.send("buy again")
        assert error_in(await client.recv())["code"] == "shop.sold_out"
    assert errors == []
    assert [record for record in caplog.records if record.levelno >= 30 and "native" not in record.msg] == []


async def test_a_cancelled_handler_leaves_socket_and_server_usable(serve, caplog):
    app = Symphony()

    @app.on_message
    async def handle(message: str) -> str:
        if message == "raise":
            raise asyncio.CancelledError
        if message == "cancel":
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        if message == "late":
            await asyncio.sleep(0)
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for message in ("raise", "cancel", "late"):
            await client.send(message)
            assert error_in(await client.recv())["code"] == "internal"
            await client.send("works")
            assert await client.recv() == "works"
    assert "was cancelled" in caplog.text


async def test_context_variables_are_the_sockets(serve):
    from contextvars import ContextVar

    app = Symphony()
    last: ContextVar[str] = ContextVar("last", default="nothing")

    @app.on_message
    async def handle(message: str) -> str:
        before = last.get()
        last.set(message)
        if message == "wait":
            await asyncio.sleep(0)
        return before

    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        for message, before in (("a", "nothing"), ("wait", "a"), ("b", "wait")):
            await one.send(message)
            assert await one.recv() == before
        await two.send("x")
        assert await two.recv() == "nothing"


async def test_the_handshake_is_a_starlette_connection(serve):
    app = Symphony()

    @app.route("/things/{id:int}").on_connect
    async def enter(socket: Socket, handshake: Handshake) -> None:
        assert handshake is socket.handshake
        await socket.send(
            {
                "header": handshake.headers["x-request"],
                "cookie": handshake.cookies["session"],
                "query": handshake.query_params["q"],
                "path": handshake.path_params,
                "client": handshake.client.host,
                "url": handshake.url.path,
            }
        )

    headers = {"X-Request": "r1", "Cookie": "session=abc"}
    async with (
        serve(app) as url,
        connect(f"{url}/things/7?q=w%C3%B6rd", additional_headers=headers) as client,
    ):
        received = json.loads(await client.recv())
    assert received.pop("url").endswith("/things/7")
    assert received == {
        "header": "r1",
        "cookie": "abc",
        "query": "wörd",
        "path": {"id": 7},
        "client": "127.0.0.1",
    }


async def test_an_app_without_any_handler_accepts_and_stays_quiet(serve):
    async with serve(Symphony()) as url, connect(f"{url}/any/where") as client:
        await client.close()
        assert await closed(client) == (1000, "")
