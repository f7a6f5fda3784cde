"""The client and the server, on each loop: what a user has."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pydantic
import pytest

from support.clients import until
from support.servers import serve_natively
from symphony import Limits, Reject, Socket, Symphony
from symphony.client import Close, connect
from symphony.client.link import DialError, Offer
from symphony.errors import DisconnectedError, RefusedError, RemoteError

pytestmark = pytest.mark.usefixtures("each_loop")


def chat() -> Symphony:
    app = Symphony()
    route = app.route("/chat")

    @route.on_connect
    async def enter(socket: Socket) -> None:
        if socket.handshake.token != "sesame":
            raise Reject("unauthorized", "who are you?")

    @route.on("sum")
    async def sum_up(data: list[int]) -> int:
        return sum(data)

    @route.on("count")
    async def count(data: int) -> AsyncIterator[int]:
        for n in range(data):
            yield n

    @route.on("introduce")
    async def introduce(socket: Socket) -> str:
        name = await socket.request("name")
        await socket.emit("said", {"text": f"hello {name}"})
        return f"{name} is here"

    @route.on("bye")
    async def bye(socket: Socket, data: int) -> None:
        await socket.close(data, "bye")

    raw = app.route("/echo")

    @raw.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    return app


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_session(protocol: Any) -> None:
    async with serve_natively(chat()) as url:
        client = connect(f"{url}/chat", token="sesame", protocol=protocol)
        said: list[Any] = []
        client.on("said", said.append)
        client.on("name", lambda: "Ada")
        async with client:
            assert client.protocol == f"symphony.v1.{protocol}"
            assert await client.request("sum", [1, 2, 3], response_type=int) == 6
            assert await client.request("introduce") == "Ada is here"
            await until(lambda: said == [{"text": "hello Ada"}])
            assert [n async for n in client.stream("count", 1000, credit=10)] == list(range(1000))
            async for n in client.stream("count", 10**9):
                if n == 100:
                    break
            with pytest.raises(RemoteError) as caught:
                await client.request("sum", ["x"])
            assert (caught.value.code, caught.value.details) == ("invalid", {"path": "$[0]"})
            with pytest.raises(RemoteError, match="not_found"):
                await client.request("sya")
            with pytest.raises(RemoteError, match=r"use client\.stream\(\)"):
                await client.request("count", 3)
            with pytest.raises(RemoteError, match=r"use client\.request\(\)"):
                await anext(client.stream("sum", [1]))


async def test_a_refusal() -> None:
    async with serve_natively(chat()) as url:
        with pytest.raises(RefusedError) as caught:
            await connect(f"{url}/chat", token="wrong")
        assert (caught.value.code, caught.value.reason) == (4401, "who are you?")
        assert str(caught.value) == f"{url}/chat refused the connection: who are you? (4401)."
        with pytest.raises(RefusedError) as caught:
            await connect(f"{url}/nowhere")
        assert caught.value.code == 4404


async def test_a_raw_route() -> None:
    async with serve_natively(chat()) as url, connect(f"{url}/echo") as client:
        assert (client.protocol, client.subprotocol) == ("raw", "symphony.raw")
        for message in ("text", b"bytes", "x" * 500_000):
            await client.send(message)
            assert await anext(client) == message


async def test_the_servers_close_decides_whether_to_come_back() -> None:
    async with (
        serve_natively(chat()) as url,
        connect(f"{url}/chat", token="sesame", backoff=0.01) as client,
    ):
        states: list[str] = []
        client.on_state(states.append)
        client.emit("bye", 4503)
        await until(lambda: states == ["waiting", "connecting", "open"])
        client.emit("bye", 4000)
        await until(lambda: client.closed is not None)
        assert client.closed == Close(4000, "bye", clean=True)


async def test_a_full_server_says_when_to_come_back() -> None:
    app = Symphony(limits=Limits(max_connections=1, retry_after=7))
    app.on_message(lambda message: message)
    async with serve_natively(app) as url, connect(url) as first:
        dial = first._reconnector._dial
        with pytest.raises(DialError) as caught:
            await dial(Offer(["symphony.refuse"], {}))
        assert (caught.value.code, caught.value.again, caught.value.retry_after) == (4503, True, 7)


async def test_a_connect_handler_that_crashes_is_the_fault_of_the_server() -> None:
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        raise LookupError("no database")

    async with serve_natively(app) as url:
        with pytest.raises(RefusedError) as caught:
            await connect(url, reconnect=False)
        assert str(caught.value) == (
            f"{url}/ failed to open the connection: the connect handler failed (1011). "
            "The server's log says why."
        )
        assert (caught.value.code, caught.value.reason) == (1011, "the connect handler failed")
        with pytest.raises(DisconnectedError, match=r"failed to open the connection for 0\.2 s.*\(1011\)"):
            await connect(url, connect_timeout=0.2, backoff=0.01)


async def test_a_client_that_was_never_opened_says_so_at_once() -> None:
    """A request waited for its timeout, and then there was no connection."""
    client = connect("ws://127.0.0.1:9/chat")
    says = r"The client of ws://127\.0\.0\.1:9/chat was never opened: write `async with client:`"
    for use in (lambda: client.emit("say"), lambda: client.send("hi"), lambda: client.stream("count")):
        with pytest.raises(RuntimeError, match=says):
            use()
    with pytest.raises(RuntimeError, match=says):
        await client.request("sum", [1])
    with pytest.raises(RuntimeError, match=says):
        await anext(client)
    await client.close()


async def test_what_is_sent_while_the_first_connection_is_made_is_queued() -> None:
    app = chat()
    async with serve_natively(app) as url:
        client = connect(f"{url}/chat", token="sesame")
        asked: list[asyncio.Task[Any]] = []

        @client.on_state
        def note(state: str) -> None:
            if state == "connecting":
                asked.append(asyncio.create_task(client.request("sum", [1, 2])))

        async with client:
            assert await asked[0] == 3


class Address(pydantic.BaseModel):
    street: str
    number: int


async def test_all_that_pydantic_finds_is_told_in_both_directions() -> None:
    app = Symphony()
    wrong = {"number": "x"}
    faults = [
        {"path": "$.street", "message": "Field required"},
        {
            "path": "$.number",
            "message": "Input should be a valid integer, unable to parse string as an integer",
        },
    ]

    @app.on("move")
    async def move(data: Address) -> None: ...

    @app.on("get")
    async def get() -> Any:
        return [wrong]

    @app.on("ask")
    async def ask(socket: Socket) -> Any:
        try:
            await socket.request("where", wrong)
        except RemoteError as error:
            return error.details

    async with serve_natively(app) as url, connect(url) as client:

        @client.on("where")
        def where(data: Address) -> None: ...

        with pytest.raises(RemoteError) as caught:
            await client.request("move", wrong)
        assert caught.value.details == {"path": "$.street", "errors": faults}
        assert await client.request("ask") == {"path": "$.street", "errors": faults}
        with pytest.raises(RemoteError, match=r"does not match response_type: Field required") as caught:
            await client.request("get", response_type=list[Address])
        inside = [{**fault, "path": fault["path"].replace("$", "$[0]")} for fault in faults]
        assert caught.value.details == {"path": "$[0].street", "errors": inside}
