import asyncio
import json
from typing import Any

import pytest

from support.clients import Client, connect
from support.examples import served

NAME = "ws/custom_protocol.py"


async def answer(client: Client, message: str) -> str:
    await client.send(message)
    async with asyncio.timeout(5):
        heard = await client.recv()
    assert isinstance(heard, str)
    return heard


async def call(client: Client, **call: Any) -> Any:
    return json.loads(await answer(client, json.dumps({"jsonrpc": "2.0", **call})))


async def test_json_rpc_answers_as_its_specification_says() -> None:
    async with served(NAME) as url, connect(f"{url}/rpc") as client:
        assert await call(client, method="add", params=[1, 2], id="a") == {
            "jsonrpc": "2.0",
            "result": 3.0,
            "id": "a",
        }
        for method, params, code in (
            ("divide", [1, 0], -32000),
            ("divide", [1], -32602),
            ("multiply", [1, 2], -32601),
        ):
            answered = await call(client, method=method, params=params, id=1)
            assert answered["error"]["code"] == code
        batch = [{"jsonrpc": "2.0", "method": "add", "params": [n, 1], "id": n} for n in range(3)]
        # A notification among them, which nobody answers.
        del batch[1]["id"]
        answers = json.loads(await answer(client, json.dumps(batch)))
        assert [(one["id"], one["result"]) for one in answers] == [(0, 1.0), (2, 3.0)]


async def test_a_browser_of_json_rpc_may_ask_for_it_by_name() -> None:
    async with served(NAME) as url, connect(f"{url}/rpc", subprotocols=["jsonrpc"]) as client:
        assert client.subprotocol == "jsonrpc"
        assert (await call(client, method="add", params=[], id=1))["result"] == 0.0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 add 2 3", "1 = 5.0"),
        ("  2   divide 1   4 ", "2 = 0.25"),
        ("3 divide 1 0", "3 ! math.by_zero division by zero"),
        ("4 divide 1 two", "4 ! invalid Expected `float`, got `str`"),
        ("5 sing", "5 ! not_found no handler for the event 'sing'"),
        ("6", "6 ! invalid say what to do, as in: 1 add 2 3"),
        ("", "! invalid say what to do, as in: 1 add 2 3"),
        ("sing", "! not_found no handler for the event 'sing'"),
        (f"{'9' * 5000} add 1", f"! not_found no handler for the event '{'9' * 64}"),
    ],
)
async def test_words_are_answered_in_words(line: str, expected: str) -> None:
    async with served(NAME) as url, connect(f"{url}/words") as client:
        assert (await answer(client, line)).startswith(expected)


async def test_an_event_in_words_is_not_answered_and_binary_is_refused() -> None:
    async with served(NAME) as url, connect(f"{url}/words") as client:
        await client.send("add 1 2")
        await client.send(b"add 1 2")
        assert await client.recv() == "! invalid say what to do, as in: 1 add 2 3"


async def test_the_same_handlers_speak_symphonys_own_protocol() -> None:
    async with served(NAME) as url, connect(url) as client:
        heard = await answer(client, '{"event": "add", "data": [1, 2], "id": 1}')
        assert json.loads(heard) == {"reply": 1, "data": 3.0}
