import json
import socket
from typing import Any

import pytest

from support import servers
from support.clients import connect, refused
from support.examples import load, served
from symphony.testing import TestClient

NAME = "ws/ticker.py"


@pytest.fixture
def app() -> Any:
    return load(NAME).app


async def test_the_prices_of_now_come_first_and_then_each_change(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/markets/metals") as first:
        await client.clock.advance(3)
        room = app.room("market:metals")
        async with client.connect("/markets/metals") as second:
            await client.clock.advance(3)
            for each, ticks in ((first, 60), (second, 30)):
                prices = await each.receive_event("snapshot")
                assert set(prices) == {"gold", "silver", "copper"}
                for _ in range(ticks):
                    change = await each.receive_event("price")
                    assert abs(change["price"] / prices[change["symbol"]] - 1) < 0.011
                    prices[change["symbol"]] = change["price"]
                await each.nothing_more()
                assert prices == room.state.prices


async def test_a_slow_reader_gets_fewer_prices_and_the_newest_of_each_symbol() -> None:
    example = load(NAME)
    async with servers.serve_natively(example.app) as url:
        host, _, port = url.removeprefix("ws://").rpartition(":")
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.connect((host, int(port)))
        small.setblocking(False)
        async with connect(f"{url}/markets/fruit", sock=small) as slow:
            joined = json.loads(await slow.recv())
            assert joined["joined"] == "market:fruit"
            prices = joined["snapshot"]
            slow.transport.pause_reading()
            room = example.app.room("market:fruit")
            for _ in range(30_000):
                await example.move(room)
            await room.emit("end")
            slow.transport.resume_reading()
            changes = 0
            while (event := json.loads(await slow.recv()))["event"] != "end":
                changes += 1
                prices[event["data"]["symbol"]] = event["data"]["price"]
            # Those after the end are not read.
            assert 3 <= changes < 29_000
            assert prices.keys() == room.state.prices.keys()
            assert example.app.stats.slow_consumers == 0
            while (event := json.loads(await slow.recv()))["event"] == "price":
                prices[event["data"]["symbol"]] = event["data"]["price"]
                if prices == room.state.prices:
                    break
            assert prices == room.state.prices


async def test_markets_have_nothing_to_do_with_each_other(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/markets/metals") as metals,
        client.connect("/markets/fruit") as fruit,
    ):
        assert await fruit.receive_event("snapshot") == app.room("market:fruit").state.prices
        await client.clock.advance(1)
        assert await metals.receive_event("snapshot") != {}
        assert {(await fruit.receive_event("price"))["symbol"] for _ in range(10)} <= {
            "apple",
            "banana",
            "cherry",
        }


@pytest.mark.parametrize("name", ["stocks", "Metals", "%20"])
async def test_a_market_that_does_not_exist_is_refused(name: str) -> None:
    async with served(NAME) as url:
        refusal = await refused(f"{url}/markets/{name}")
        assert (refusal.status, refusal.code) == (404, "not_found")
