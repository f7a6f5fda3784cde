"""A handler is called, and what it returns decides what becomes of it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest

from support.clients import until
from symphony import ConfigurationError, Depends, RefusedError, RemoteError, Room, Socket, Symphony
from symphony.testing import TestClient

CHUNK = "x" * 1000


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate without `async`: the wrapper is a plain function."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


async def double(data: int) -> int:
    await asyncio.sleep(0)
    return 2 * data


async def twice(data: int) -> AsyncIterator[int]:
    yield data
    await asyncio.sleep(0)
    yield data


class Doubling:
    async def __call__(self, data: int) -> int:
        return 2 * data

    def method(self, data: int) -> Any:
        return double(data)

    @staticmethod
    async def static(data: int) -> int:
        return 2 * data

    @classmethod
    async def of_class(cls, data: int) -> int:
        return 2 * data


class Lazy:
    """An awaitable of its own."""

    def __await__(self) -> Any:
        return double(2).__await__()


def scaled(factor: int, data: int) -> Any:
    return double(factor * data // 2)


def plain(data: int) -> Any:
    return double(data)


def a_task(data: int) -> Any:
    return asyncio.get_running_loop().create_task(double(data))


def lazily(data: int) -> Any:
    return Lazy()


DOUBLING = {
    "plain": plain,
    "task": a_task,
    "awaitable": lazily,
    "lambda": lambda data: double(int(data)),
    "wrapped": passing(double),
    "partial of a wrapped one": functools.partial(passing(scaled), 2),
    "object": Doubling(),
    "wrapped object": passing(Doubling()),
    "bound method": Doubling().method,
    "static method": Doubling.__dict__["static"],
    "class method": Doubling.of_class,
}


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("kind", DOUBLING)
async def test_a_returned_awaitable_is_awaited_on_both_kinds_of_route(kind: str, concurrency: int) -> None:
    """Such handlers started without a word, and each call failed with `internal`."""
    app = Symphony()
    raw = app.route("/raw", concurrency=concurrency)
    raw.on_message(DOUBLING[kind])
    events = app.route("/events", concurrency=concurrency)
    events.on("double")(DOUBLING[kind])

    async with TestClient(app) as test:
        async with test.connect("/raw", protocol="raw") as client:
            for _ in range(2):
                await client.send("2")
                assert await client.receive() == "4"
        async with test.connect("/events") as client:
            assert [await client.request("double", 2) for _ in range(2)] == [4, 4]


@pytest.mark.parametrize("wrap", [passing, lambda function: lambda data: function(int(data))])
async def test_a_returned_generator_is_streamed_on_both_kinds_of_route(wrap: Any) -> None:
    app = Symphony()
    app.route("/raw").on_message(wrap(twice))
    app.route("/events").on("twice")(wrap(twice))

    async with TestClient(app) as test:
        async with test.connect("/raw", protocol="raw") as client:
            await client.send("2")
            await client.send("3")
            assert [await client.receive() for _ in range(4)] == ["2", "2", "3", "3"]
        async with test.connect("/events") as client:
            assert [item async for item in client.stream("twice", 2)] == [2, 2]


async def test_an_async_handler_may_return_a_generator_on_a_raw_route() -> None:
    app = Symphony()

    @app.on_message
    async def handle(message: int) -> Any:
        return twice(message)

    async with TestClient(app) as test, test.connect("/", protocol="raw") as client:
        await client.send("1")
        assert [await client.receive() for _ in range(2)] == ["1", "1"]


async def test_errors_of_what_was_returned_are_those_of_the_handler() -> None:
    app = Symphony()

    async def fail(data: str) -> AsyncIterator[Any]:
        yield "one"
        if data == "unencodable":
            yield object()
        raise LookupError(data)

    async def fail_at_once(data: str) -> None:
        raise LookupError(data)

    app.route("/generator").on_message(passing(fail))
    app.route("/coroutine").on_message(passing(fail_at_once))

    async with TestClient(app, raise_errors=False) as test:
        async with test.connect("/generator", protocol="raw") as client:
            for message in ("late", "unencodable"):
                await client.send(message)
                assert await client.receive() == "one"
                assert '"internal"' in await client.receive()
        async with test.connect("/coroutine", protocol="raw") as client:
            await client.send("at once")
            assert '"internal"' in await client.receive()
        errors = [str(error) for error in test.errors]
        test.errors.clear()
    assert errors[0] == "late"
    assert "yielded" in errors[1]
    assert errors[2] == "at once"


async def test_a_returned_generator_is_closed_when_its_socket_has_gone() -> None:
    app = Symphony()
    closed: list[str] = []

    async def forever(message: str) -> AsyncIterator[str]:
        try:
            while True:
                yield CHUNK
        finally:
            closed.append(message)

    app.on_message(passing(forever))
    async with TestClient(app) as test:
        async with test.connect("/", protocol="raw") as client:
            await client.send("go")
            assert await client.receive() == CHUNK
        await until(lambda: closed == ["go"])


async def test_dependencies_stay_open_for_what_was_returned() -> None:
    """The dependencies of a disguised generator were closed before its first item."""
    app = Symphony()
    log: list[str] = []

    async def session() -> AsyncIterator[list[str]]:
        log.append("open")
        try:
            yield log
        finally:
            log.append("closed")

    Session = Annotated[list[str], Depends(session)]

    @app.on("rows")
    @passing
    async def rows(data: int, session: Session) -> AsyncIterator[int]:
        for number in range(data):
            session.append(str(number))
            yield number

    @app.on("slow", thread=True)
    @passing
    async def slow(data: int, session: Session) -> int:
        session.append("slow")
        return data

    async with TestClient(app) as test, test.connect("/") as client:
        assert [item async for item in client.stream("rows", 2)] == [0, 1]
        await until(lambda: log == ["open", "0", "1", "closed"])
        log.clear()
        assert await client.request("slow", 1) == 1
        assert log == ["open", "slow", "closed"]
        log.clear()
        # Not a request: the generator never starts, and its dependencies are closed.
        await client.emit("rows", 2)
        await until(lambda: log == ["open", "closed"])


async def test_hooks_are_awaited_too() -> None:
    """A decorated `authorize` allowed every join: what it returned was a coroutine, and not `False`."""
    app = Symphony()
    log: list[str] = []
    rooms = app.rooms("chat:{name}")

    @rooms.authorize
    @passing
    async def may_join(room: Room, name: str) -> bool:
        return name == "open"

    @rooms.on_join
    @passing
    async def joined(room: Room) -> None:
        log.append(room.name)

    @app.on_connect
    @passing
    async def connected(socket: Socket) -> None:
        log.append("connected")

    @app.on_disconnect
    @passing
    async def gone(socket: Socket) -> None:
        log.append("gone")

    @app.middleware("message")
    @passing
    async def around(socket: Socket, message: Any, call_next: Any) -> Any:
        return await call_next(socket, message)

    @app.on("join")
    def join(socket: Socket, data: str) -> Any:
        return enter(socket, data)

    async def enter(socket: Socket, name: str) -> str:
        return (await socket.join(name)).name

    async with TestClient(app) as test:
        async with test.connect("/") as client:
            assert await client.request("join", "chat:open") == "chat:open"
            with pytest.raises(RemoteError, match="forbidden"):
                await client.request("join", "chat:closed")
        await until(lambda: log == ["connected", "chat:open", "gone"])


async def test_a_hidden_generator_fails_where_only_the_return_value_counts() -> None:
    app = Symphony()

    @app.on_connect
    @passing
    async def connected(socket: Socket) -> AsyncIterator[int]:
        yield 1

    async with TestClient(app, raise_errors=False) as test:
        with pytest.raises(RefusedError, match="internal"):
            async with test.connect("/"):
                pass
        assert "Only a message handler may `yield`" in str(test.errors.pop())


# Methods


async def refused(app: Symphony) -> str:
    with pytest.raises(ConfigurationError) as caught:
        async with TestClient(app):
            pass
    return str(caught.value)


ROOMS = ("authorize", "on_join", "on_leave", "on_empty", "task")


@pytest.mark.parametrize("where", ["on", "on_message", "on_connect", "on_disconnect", "on_error", *ROOMS])
@pytest.mark.parametrize("wrap", [passing, lambda function: function])
async def test_a_method_without_its_object_is_refused(where: str, wrap: Any) -> None:
    """`self` was taken for the payload, without a word."""
    app = Symphony()
    rooms = app.rooms("chat:{name}")
    register: Any = getattr(rooms if where in ROOMS else app, where)
    if where == "on":
        register = app.on("ping")

    class Chat:
        @register
        @wrap
        async def ping(self) -> None: ...

    error = await refused(app)
    assert "Chat.ping" in error
    assert "it is a method without its object" in error
    assert "`app.on('say')(chat.say)`" in error


async def test_a_first_parameter_of_another_name_is_the_object_as_well() -> None:
    app = Symphony()

    class Chat:
        @app.on_message
        async def ping(this, message: str) -> None: ...

    assert "it is a method without its object" in await refused(app)


async def test_an_unbound_method_is_refused_outside_of_the_class_too() -> None:
    app = Symphony()
    app.on("ping")(Doubling.method)
    assert "it is a method without its object" in await refused(app)


@pytest.mark.parametrize("where", ["on", "on_message", "on_connect"])
def test_a_class_method_in_the_body_of_a_class_is_refused(where: str) -> None:
    app = Symphony()
    register: Any = app.on("ping") if where == "on" else getattr(app, where)
    with pytest.raises(ConfigurationError, match="Register the method of an object"):

        class Chat:
            @register
            @classmethod
            async def ping(cls) -> None: ...


async def test_a_class_method_as_a_room_hook_is_refused() -> None:
    app = Symphony()
    app.rooms("chat:{name}").on_join(Doubling.__dict__["of_class"])
    assert "Register the method of an object" in await refused(app)


async def test_functions_in_a_class_that_need_no_object_are_handlers() -> None:
    app = Symphony()

    class Chat:
        @app.on("static")
        @staticmethod
        async def outside(data) -> Any:
            return data

        @staticmethod
        @app.on("inside.{number:int}")
        async def inside(number: int, data: int) -> int:
            return number + data

        @app.on("nothing")
        def nothing() -> str:  # type: ignore[misc]
            return "nothing"

    async with TestClient(app) as test, test.connect("/") as client:
        assert await client.request("static", 1) == 1
        assert await client.request("inside.1", 1) == 2
        assert await client.request("nothing") == "nothing"
