import json

import pytest

from support.clients import connect
from support.examples import load, served
from symphony.testing import HandshakeRefusedError, TestClient

NAME = "ws/echo_server.py"


async def test_text_and_binary_come_back_as_they_were_sent() -> None:
    async with served(NAME) as url, connect(url) as client:
        for message in ("héllo", b"\x00\xff", "", b"", "x" * 100_000):
            await client.send(message)
            assert await client.recv() == message


async def test_json_of_the_right_shape_is_answered_with_json() -> None:
    async with served(NAME) as url, connect(f"{url}/json") as client:
        await client.send(json.dumps({"text": "hi", "loud": True}))
        assert json.loads(await client.recv()) == {"text": "HI", "length": 2}


async def test_json_of_another_shape_is_told_what_is_wrong_and_stays() -> None:
    async with TestClient(load(NAME).app) as client, client.connect("/json") as c:
        await c.send({"text": 1})
        error = await c.receive_json()
        assert error["event"] == "error"
        assert error["data"]["code"] == "invalid"
        assert error["data"]["details"] == {"path": "$.text"}
        await c.send("no json")
        assert (await c.receive_json())["data"]["code"] == "invalid"
        await c.send({"text": "hi"})
        assert await c.receive_json() == {"text": "hi", "length": 2}


async def test_another_path_is_refused_with_404() -> None:
    async with TestClient(load(NAME).app) as client:
        with pytest.raises(HandshakeRefusedError) as refused:
            await client.connect("/elsewhere")
        assert refused.value.status == 404
