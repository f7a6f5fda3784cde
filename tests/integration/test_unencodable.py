"""What cannot be encoded: the error names the handler it came from, and says what to do."""

import gc
import re
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict

from support.clients import until
from support.servers import serve_natively
from symphony import Depends, Socket, Symphony
from symphony.client import connect
from symphony.errors import RemoteError
from symphony.testing import TestClient


async def load() -> str:
    return "loaded"


class Page:
    """No dataclass: nothing says which of its attributes are data."""


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    lock: Any


CASES = {
    "coroutine": (load, "the coroutine load. An `await` is missing: write `await load()`."),
    "nested": (lambda: {"a": [load()]}, "the coroutine load. An `await` is missing: write `await load()`."),
    "several": (lambda: {"a": load(), "b": load()}, "the coroutine load. An `await` is missing"),
    "lock": (threading.Lock, "an object of type _thread.lock. Use str, int, float"),
    "own class": (Page, f"an object of type {__name__}.Page. Use str, int"),
    "class": (lambda: Page, f"the class {__name__}.Page. Use an instance of it."),
    "model class": (lambda: Holder, f"the class {__name__}.Holder. Use an instance of it."),
    "generator": (
        lambda: [(n for n in "ab")],
        "an object of type generator. Make a list of it, or yield its items from an async generator.",
    ),
    "in a model": (
        lambda: Holder(lock=threading.Lock()),
        "Unable to serialize unknown type: <class '_thread.lock'>",
    ),
    "keys": (lambda: {(1, 2): 3}, "a dict with a key of type tuple. The keys of JSON are text."),
    "surrogates": (lambda: ["\ud800"], "'utf-8' codec can't encode"),
}


def here(function: Any) -> str:
    """Return how a handler is named: whole, and where it stands."""
    name = f"{function.__module__}.{function.__qualname__}"
    return f"handler {name} ({__file__}:{function.__code__.co_firstlineno})"


async def the_error(test: TestClient) -> str:
    (error,) = test.errors
    test.errors.clear()
    assert isinstance(error, TypeError)
    gc.collect(1)  # a coroutine that was not closed warns now, and warnings are errors
    return str(error)


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize("case", CASES)
async def test_the_handler_of_a_request_is_named(case: str, protocol: Any, caplog: Any) -> None:
    make, says = CASES[case]
    app = Symphony()

    @app.on("get")
    async def get() -> Any:
        return make()

    if protocol == "msgpack" and case == "keys":
        pytest.skip("MessagePack has such keys")
    async with TestClient(app) as test, test.connect("/", protocol=protocol) as client:
        with pytest.raises(RemoteError, match="internal"):
            await client.request("get")
        error = await the_error(test)
    assert error.startswith(f"Cannot encode what {here(get)} returned: {says}")
    assert error in caplog.text


@pytest.mark.parametrize("case", CASES)
async def test_the_message_handler_of_a_raw_route_is_named(case: str) -> None:
    make, says = CASES[case]
    app = Symphony()

    @app.on_message
    async def handle(message: str) -> Any:
        return make()

    async with TestClient(app) as test, test.connect("/", protocol="raw") as client:
        await client.send("x")
        assert '"internal"' in await client.receive()
        error = await the_error(test)
    assert error.startswith(f"Cannot encode what {here(handle)} returned: {says}")


async def session() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("with_dependency", [False, True])
async def test_the_generator_of_a_stream_is_named(with_dependency: bool) -> None:
    app = Symphony()

    if with_dependency:

        @app.on("rows.{table}")
        async def rows(table: str, one: Annotated[int, Depends(session)]) -> AsyncIterator[Any]:
            yield one
            yield load()
    else:

        @app.on("rows.{table}")
        async def rows(table: str) -> AsyncIterator[Any]:
            yield 1
            yield load()

    async with TestClient(app) as test, test.connect("/") as client:
        stream = client.stream("rows.users")
        assert await anext(stream) == 1
        with pytest.raises(RemoteError, match="internal"):
            await anext(stream)
        error = await the_error(test)
    assert error.startswith(f"Cannot encode what {here(rows)} yielded: the coroutine load.")


async def test_the_generator_of_a_raw_route_is_named() -> None:
    app = Symphony()

    @app.on_message
    async def rows(message: str) -> AsyncIterator[Any]:
        yield {"row": load()}

    async with TestClient(app) as test, test.connect("/", protocol="raw") as client:
        await client.send("x")
        assert '"internal"' in await client.receive()
        error = await the_error(test)
    assert error.startswith(f"Cannot encode what {here(rows)} yielded: the coroutine load.")


async def test_the_handler_of_every_event_is_named_for_those_it_takes() -> None:
    app = Symphony()

    @app.on("*")
    async def rest(event: str) -> Any:
        return load()

    async with TestClient(app) as test, test.connect("/") as client:
        with pytest.raises(RemoteError, match="internal"):
            await client.request("anything")
        assert here(rest) in await the_error(test)


@pytest.mark.parametrize("use", ["send", "emit", "room send", "room emit"])
async def test_a_handler_is_not_said_to_return_what_it_sends(use: str) -> None:
    """The traceback shows the line already."""
    app = Symphony()

    @app.on("say")
    async def say(socket: Socket) -> None:
        await socket.join("a")
        value = {"text": load(), "other": load()}
        match use:
            case "send":
                await socket.send(value)
            case "emit":
                await socket.emit("said", value)
            case "room send":
                app.room("a").send(value)
            case "room emit":
                app.room("a").emit("said", value)

    async with TestClient(app) as test, test.connect("/") as client:
        with pytest.raises(RemoteError, match="internal"):
            await client.request("say")
        error = await the_error(test)
    assert error == "Cannot encode the coroutine load. An `await` is missing: write `await load()`."


async def test_on_error_is_handed_the_error_with_the_name() -> None:
    app = Symphony()
    told: list[BaseException] = []

    @app.on_error
    def note(error: Exception) -> None:
        told.append(error)

    @app.on("get")
    async def get() -> Any:
        return load()

    async with TestClient(app, raise_errors=False) as test, test.connect("/") as client:
        with pytest.raises(RemoteError):
            await client.request("get")
        await until(lambda: told)
    assert here(get) in str(told[0])


async def test_a_client_names_its_own_handler(caplog: Any) -> None:
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> str:
        try:
            return str(await socket.request("get"))
        except RemoteError as error:
            return error.code

    async with serve_natively(app) as url, connect(url) as client:

        @client.on("get")
        async def get() -> Any:
            return {"a": load(), "b": load()}

        assert await client.request("ask") == "internal"
    gc.collect(1)
    where = re.escape(here(get))
    assert re.search(rf"Cannot encode what {where} returned: the coroutine load\.", caplog.text)


async def test_a_client_says_what_it_cannot_emit() -> None:
    app = Symphony()

    @app.on("say")
    async def say() -> None: ...

    async with serve_natively(app) as url, connect(url) as client:
        for send in (lambda: client.emit("say", {"a": load(), "b": load()}), lambda: client.send([load()])):
            with pytest.raises(TypeError, match=r"Cannot encode the coroutine load\. An `await` is missing"):
                send()
    gc.collect(1)


async def test_a_count_that_is_not_awaited_has_the_name_that_users_know() -> None:
    app = Symphony()

    @app.on("everyone")
    async def everyone() -> Any:
        return app.everyone.count()

    @app.on("room")
    async def room() -> Any:
        return {"present": app.room("lobby").count()}

    async with TestClient(app, raise_errors=False) as test, test.connect("/") as ann:
        for event, target in (("everyone", "Target"), ("room", "Room")):
            with pytest.raises(RemoteError):
                await ann.request(event)
            assert (
                f"the coroutine {target}.count. An `await` is missing: write `await count()`."
                in await the_error(test)
            )
