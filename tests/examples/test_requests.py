import asyncio
import json
from typing import Any

from support.clients import Client, connect
from support.examples import load, running, served
from symphony.testing import TestClient

NAME = "ws/requests.py"


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def ask(client: Client, event: str, data: Any, id: int = 1) -> Any:
    await say(client, event=event, data=data, id=id)
    return await hear(client)


def code(answer: Any) -> str:
    return answer["data"]["code"]


async def test_a_price_is_told_and_nonsense_is_refused_with_where_it_is() -> None:
    async with served(NAME) as url, connect(url) as client:
        told = await ask(client, "price", {"item": "bread", "count": 2}, 7)
        assert told == {"reply": 7, "data": {"item": "bread", "count": 2, "total": 8.0}}
        for data, path in (({"item": "pie"}, "$.item"), ({"item": "cake", "count": 0}, "$.count")):
            answer = await ask(client, "price", data, 8)
            assert answer["error"] == 8
            assert code(answer) == "invalid"
            assert answer["data"]["details"] == {"path": path}


async def test_a_customer_is_asked_before_something_is_sold() -> None:
    async with served(NAME) as url, connect(url) as client:
        question = await ask(client, "buy", {"item": "cake"})
        assert (question["event"], question["data"]) == (
            "confirm",
            {"item": "cake", "count": 1, "total": 20.0},
        )
        await say(client, reply=question["id"], data=True)
        assert await hear(client) == {"reply": 1, "data": "1 cake for 20.00. Thank you!"}
        question = await ask(client, "buy", {"item": "cake"}, 2)
        await say(client, reply=question["id"], data=True)
        answer = await hear(client)
        assert (answer["error"], code(answer)) == (2, "bakery.sold_out")
        assert answer["data"]["details"] == {"left": 0}


async def test_nothing_is_sold_to_whoever_says_no_or_something_else() -> None:
    async with served(NAME) as url, connect(url) as client:
        for answer in (
            {"data": False},
            {"data": "yes"},
            {"error": {"code": "not_found", "message": "what?"}},
        ):
            question = await ask(client, "buy", {"item": "cake"})
            if "error" in answer:
                await say(client, error=question["id"], data=answer["error"])
            else:
                await say(client, reply=question["id"], **answer)
            assert code(await hear(client)) == "bakery.declined"


async def test_baking_ends_when_its_time_is_up_or_it_is_cancelled() -> None:
    async with running(NAME) as server, connect(server.url) as client:
        await say(client, event="bake", data={"item": "cake", "count": 60}, id=1, timeout=0.1)
        assert code(await hear(client)) == "timeout"
        assert await server.line() == "baked 0 of 60 cake"
        await say(client, event="bake", data={"item": "bread", "count": 60}, id=2)
        await say(client, cancel=2)
        assert code(await hear(client)) == "cancelled"
        assert await server.line() == "baked 0 of 60 bread"


async def test_baking_ends_a_while_after_the_client_has_gone() -> None:
    """In memory, where the clock can be turned."""
    module = load(NAME)
    async with TestClient(module.app) as client, client.connect("/") as customer:
        customer.emit("bake", {"item": "pretzel", "count": 60})
        await client.clock.advance(1.5)
        dropping = asyncio.ensure_future(customer.drop())
        await client.clock.advance(10)
        await dropping
    assert 100 < module.stock["pretzel"] < 110


async def test_what_was_baked_can_be_bought() -> None:
    """In memory, where the clock can be turned."""
    app: Any = load(NAME).app
    async with TestClient(app) as client, client.connect("/") as customer:
        customer.on("confirm", lambda: True)
        baking = asyncio.ensure_future(customer.request("bake", {"item": "cake", "count": 2}, timeout=60))
        await client.clock.advance(3)
        assert await baking == 3
        bought = await customer.request("buy", {"item": "cake", "count": 3})
        assert bought == "3 cake for 60.00. Thank you!"


async def test_who_never_answers_gets_nothing() -> None:
    app: Any = load(NAME).app
    async with TestClient(app) as client, client.connect("/") as customer:
        asked = asyncio.Event()

        @customer.on("confirm")
        async def confirm() -> bool:
            asked.set()
            return await asyncio.get_running_loop().create_future()

        buying = asyncio.ensure_future(customer.request("buy", {"item": "cake"}, timeout=60))
        await asked.wait()
        await client.clock.advance(31)
        (error,) = await asyncio.gather(buying, return_exceptions=True)
        assert str(error) == "bakery.declined: you did not say yes in time"
