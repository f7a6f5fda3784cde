import asyncio
from typing import Any

import pytest

import symphony
from support.clients import refused
from support.examples import load, served
from support.failing import Network
from symphony.testing import TestClient

NAME = "ws/history.py"


@pytest.fixture
def app() -> Any:
    return load(NAME).app


async def test_everybody_hears_the_lines_with_their_numbers(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/?user=alice") as alice,
        client.connect("/?user=bob") as bob,
    ):
        assert await alice.request("say", "hi") == 1
        assert await bob.request("say", "hello") == 2
        for member in (alice, bob):
            assert await member.receive_event("said") == {"by": "alice", "text": "hi"}
            assert await member.receive_event("said") == {"by": "bob", "text": "hello"}
        assert await bob.request("lines", 10) == [
            {"by": "alice", "text": "hi"},
            {"by": "bob", "text": "hello"},
        ]
        assert await bob.request("lines", 1) == [{"by": "bob", "text": "hello"}]
        await alice.emit("typing")
        assert await bob.receive_event("typing") == "alice"
        assert await alice.request("lines", 10) == await bob.request("lines", 10)


async def test_a_member_whose_network_fails_misses_nothing() -> None:
    network = Network()
    async with served(NAME) as url, network.to(url) as failing:
        bob = symphony.connect(f"{failing}/?user=bob", backoff=0.01)
        heard: list[str] = []
        last = asyncio.Event()

        @bob.on("said")
        def said(line: dict[str, str]) -> None:
            heard.append(line["text"])
            if line["text"] == "49":
                last.set()

        async with bob, symphony.connect(f"{url}/?user=alice") as alice:
            await bob.request("lines", 1)
            for number in range(50):
                await alice.request("say", str(number))
                if not number % 10:
                    network.fail()
            async with asyncio.timeout(10):
                await last.wait()
        assert heard == [str(number) for number in range(50)]


async def test_a_client_that_joins_gets_what_the_room_keeps() -> None:
    async with served(NAME) as url:
        async with symphony.connect(f"{url}/?user=alice") as alice:
            for number in range(3):
                await alice.request("say", str(number))
        async with symphony.connect(f"{url}/?user=bob") as bob:
            lobby = await bob.join("chat:lobby", since="start")
            lines: list[str] = []
            async for publication in lobby:
                lines.append(publication.data["text"])
                if len(lines) == 3:
                    break
            assert lines == ["0", "1", "2"]


async def test_without_a_user_the_handshake_is_refused() -> None:
    async with served(NAME) as url:
        assert (await refused(f"{url}/")).status == 400
