import asyncio
import json
from typing import Any

import pytest

from support.clients import Client, connect
from support.examples import load, running, served

NAME = "ws/streaming.py"


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def test_an_answer_comes_token_by_token_and_ends() -> None:
    async with running(NAME) as server, connect(server.url) as client:
        await say(client, event="ask", data={"prompt": "the sea", "tokens": 5}, id=1, credit=64)
        items = [await hear(client) for _ in range(5)]
        assert [frame["item"] for frame in items] == [1] * 5
        assert all(isinstance(frame["data"], str) for frame in items)
        assert await hear(client) == {"end": 1}
        assert await server.line() == "thinking about 'the sea'"
        assert await server.line() == "stopped after 5 of 5 tokens"


async def test_a_reader_gets_as_many_tokens_as_it_asked_for() -> None:
    async with served(NAME) as url, connect(url) as client:
        await say(client, event="ask", data={"prompt": "the sea", "tokens": 4}, id=1, credit=1)
        assert (await hear(client))["item"] == 1
        await say(client, ping=1)
        assert await hear(client) == {"pong": 1}
        await say(client, grant=1, credit=10)
        assert [next(iter(await hear(client))) for _ in range(4)] == ["item", "item", "item", "end"]


async def test_whoever_has_had_enough_cancels_it() -> None:
    async with running(NAME) as server, connect(server.url) as client:
        await say(client, event="ask", data={"prompt": "night", "tokens": 10_000}, id=1, credit=2)
        await hear(client)
        await hear(client)
        await say(client, cancel=1)
        answer = await hear(client)
        assert (answer["error"], answer["data"]["code"]) == (1, "cancelled")
        await server.line()
        assert await server.line() == "stopped after 2 of 10000 tokens"


async def test_it_stops_when_its_reader_goes() -> None:
    async with running(NAME) as server:
        async with connect(server.url) as client:
            await say(client, event="ask", data={"prompt": "night", "tokens": 10_000}, id=1, credit=1)
            await hear(client)
        await server.line()
        assert await server.line() == "stopped after 1 of 10000 tokens"


@pytest.mark.parametrize("data", [{"prompt": " "}, {"prompt": "x", "tokens": 0}, {}, None])
async def test_an_empty_question_is_refused(data: Any) -> None:
    async with served(NAME) as url, connect(url) as client:
        await say(client, event="ask", data=data, id=1, credit=1)
        answer = await hear(client)
        assert (answer["error"], answer["data"]["code"]) == (1, "invalid")


def test_the_same_prompt_goes_on_in_the_same_way() -> None:
    module = load(NAME)
    words = [[token for token, _ in zip(module.tokens("of the sea"), range(20))] for _ in range(2)]  # noqa: B905
    assert words[0] == words[1]
    assert set(words[0]) <= set(module.TEXT.split())
