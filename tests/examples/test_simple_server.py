from support.clients import connect
from support.examples import load, served
from symphony.testing import TestClient

NAME = "ws/simple_server.py"


async def test_it_greets_and_acknowledges() -> None:
    async with served(NAME) as url, connect(url) as client:
        assert await client.recv() == "Hello, World!"
        for message in ("hi", b"\x00"):
            await client.send(message)
            assert await client.recv() == "I got your message!"


async def test_it_answers_on_every_path() -> None:
    async with TestClient(load(NAME).app) as client, client.connect("/any/where") as c:
        assert await c.receive() == "Hello, World!"
        await c.nothing_more()
