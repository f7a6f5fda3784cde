"""A message becomes a bounded number of objects."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pydantic
import pytest

from support.servers import serve_natively
from symphony import Limits, Socket, Symphony
from symphony.client import connect
from symphony.errors import RemoteError
from symphony.session import exchange


def app(most: int = 5000) -> Symphony:
    app = Symphony(limits=Limits(max_elements=most))

    @app.on("any")
    async def anything(data: Any) -> int:
        return len(data)

    @app.on("typed")
    async def typed(data: list[dict[str, int]]) -> int:
        return len(data)

    @app.on("ask")
    async def ask(count: int, socket: Socket) -> int:
        return len(await socket.request("give", count))

    @app.on("give")
    async def give(count: int) -> list[Any]:
        return [{}] * count

    @app.on("tell")
    async def tell(count: int, socket: Socket) -> None:
        await socket.emit("told", [{}] * count)

    @app.on("stream")
    async def stream(count: int) -> AsyncIterator[list[Any]]:
        yield [1]
        yield [{}] * count

    return app


def raw_app(most: int = 5000) -> Symphony:
    app = Symphony(limits=Limits(max_elements=most))
    plain, generator = app.route("/plain"), app.route("/generator")

    @plain.on_message
    def one(items: list[dict[str, int]]) -> str:
        return str(len(items))

    @generator.on_message
    async def several(items: list[dict[str, int]]) -> AsyncIterator[str]:
        yield str(len(items))

    around = app.route("/around")

    @around.middleware("message")
    async def middleware(socket: Socket, message: str, call_next: Any) -> Any:
        return await call_next(socket, message)

    @around.on_message
    async def inner(items: Folder) -> str:
        return str(len(items.items))

    text = app.route("/text")

    @text.on_message
    async def length(message: str) -> str:
        return str(len(message))

    return app


class Folder(pydantic.BaseModel):
    items: list[dict[str, int]]


@pytest.mark.within("max_elements")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize("event", ["any", "typed"])
async def test_a_message_with_that_many_elements_is_handled(protocol: Any, event: str) -> None:
    async with serve_natively(app()) as url, connect(url, protocol=protocol) as client:
        assert await client.request(event, [{}] * 2400) == 2400


@pytest.mark.beyond("max_elements")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize("event", ["any", "typed"])
async def test_one_with_more_is_refused(protocol: Any, event: str) -> None:
    async with serve_natively(app()) as url, connect(url, protocol=protocol) as client:
        with pytest.raises(RemoteError, match="more than 5,000 elements") as caught:
            await client.request(event, [{}] * 6000)
        assert caught.value.code == "invalid"
        assert await client.request("any", [1]) == 1


@pytest.mark.beyond("max_elements")
@pytest.mark.parametrize("most", [100, 5000])
@pytest.mark.parametrize("path", ["/plain", "/generator", "/around"])
async def test_a_message_that_a_raw_route_decodes_is_bounded_too(path: str, most: int) -> None:
    """On raw routes, 1 MiB of `[` and `{}` could become a million objects."""

    def message(count: int) -> str:
        items = [{}] * count
        return json.dumps({"items": items} if path == "/around" else items)

    async with serve_natively(raw_app(most)) as url, connect(url + path, raw=True) as client:
        await client.send(message(most))
        error = json.loads(await anext(client))
        assert error["data"]["code"] == "invalid"
        assert error["data"]["message"] == f"more than {most:,} elements in one message"
        few = most // 2 - 10
        await client.send(message(few))
        assert await anext(client) == str(few)


@pytest.mark.within("max_elements")
async def test_text_that_is_not_decoded_may_be_of_any_kind() -> None:
    async with serve_natively(raw_app()) as url, connect(url + "/text", raw=True) as client:
        await client.send("," * 20_000)
        assert await anext(client) == "20000"


@pytest.mark.beyond("max_elements")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_reply_of_a_client_with_more_fails_the_request(protocol: Any) -> None:
    async with serve_natively(app()) as url, connect(url, protocol=protocol) as client:

        @client.on("give")
        async def give(count: int) -> list[Any]:
            return [{}] * count

        assert await client.request("ask", 2400) == 2400
        with pytest.raises(RemoteError, match="internal"):
            await client.request("ask", 6000)


@pytest.mark.within("client.max_elements")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_client_decodes_that_many_elements(protocol: Any) -> None:
    async with serve_natively(app()) as url, connect(url, protocol=protocol, max_elements=500) as client:
        told: asyncio.Queue[int] = asyncio.Queue()
        client.on("told", lambda data: told.put_nowait(len(data)))
        assert len(await client.request("give", 240)) == 240
        assert [len(item) async for item in client.stream("stream", 240)] == [1, 240]
        await client.emit("tell", 240)
        assert await told.get() == 240


@pytest.mark.beyond("client.max_elements")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_client_refuses_data_with_more(protocol: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with serve_natively(app()) as url, connect(url, protocol=protocol, max_elements=500) as client:
        told: asyncio.Queue[int] = asyncio.Queue()
        client.on("told", lambda data: told.put_nowait(len(data)))
        too_many = "more than 500 elements"
        with pytest.raises(RemoteError, match=too_many):
            await client.request("give", 600)
        stream = client.stream("stream", 600)
        assert await anext(stream) == [1]
        with pytest.raises(RemoteError, match=too_many):
            await anext(stream)
        await client.emit("tell", 600)
        await client.emit("tell", 1)
        assert await told.get() == 1
        assert too_many in caplog.text


@pytest.mark.beyond("client.max_elements")
async def test_a_client_refuses_raw_messages_with_more(caplog: pytest.LogCaptureFixture) -> None:
    served = Symphony()

    @served.on_message
    async def send(message: str, socket: Socket) -> None:
        await socket.send("[" + "1," * 600 + "1]")
        await socket.send("[1]")

    async with serve_natively(served) as url, connect(url, raw=True, max_elements=500) as client:
        came: asyncio.Queue[list[int]] = asyncio.Queue()

        @client.on("message")
        async def message(items: list[int]) -> None:
            came.put_nowait(items)

        await client.send("go")
        assert await came.get() == [1]
        assert "more than 500 elements" in caplog.text


UNENDED = '"' + '\\"' * 300_000


@pytest.mark.parametrize(
    "message",
    [
        '{"event": "any", "id": 1, "data": [' + "1," * 100_001 + UNENDED,
        '{"event": "any", "id": 1, "data": ' + UNENDED,
        "[" + "1," * 100_001 + "1]",
    ],
)
async def test_a_malformed_message_is_not_counted(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    check = exchange.check_elements

    def counting(message: Any, most: int, *, is_json: bool) -> None:
        counted.append(len(message))
        check(message, most, is_json=is_json)

    monkeypatch.setattr(exchange, "check_elements", counting)
    async with serve_natively(app()) as url, connect(url, raw=True) as client:
        await client.send(message)
        error = json.loads(await anext(client))
        assert error.get("error", error.get("data"))["code"] == "invalid"
        assert counted == []
        valid = {"event": "any", "id": 2, "data": ["x" * 5000]}
        await client.send(json.dumps(valid))
        assert json.loads(await anext(client)) == {"reply": 2, "data": 1}
        assert counted == [len(json.dumps(valid))]


FLOOD = {n * 3: n for n in range(10_001)}


async def test_numbers_as_keys_are_bounded_on_both_sides() -> None:
    served = Symphony()

    @served.on("counts")
    async def counts(data: dict[int, int]) -> int:
        return len(data)

    @served.on("any")
    async def anything(data: Any) -> int:
        return len(data)

    @served.on("flood")
    async def flood() -> dict[int, int]:
        return FLOOD

    async with serve_natively(served) as url, connect(url, protocol="msgpack") as client:
        with pytest.raises(RemoteError, match="more than 10,000 elements"):
            await client.request("counts", FLOOD)
        with pytest.raises(RemoteError, match="more than 10,000 keys that are not text"):
            await client.request("any", FLOOD)
        assert await client.request("counts", {1: 2}) == 1
        with pytest.raises(Exception, match="more than 10,000 elements"):
            await client.request("flood", response_type=dict[int, int])
        with pytest.raises(Exception, match="more than 10,000 keys that are not text"):
            await client.request("flood")
