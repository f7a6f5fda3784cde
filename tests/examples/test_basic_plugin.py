import json
import re

import pytest

from support.clients import connect
from support.examples import load, running
from symphony import Symphony
from symphony.testing import HandshakeRefusedError, TestClient

NAME = "ws/plugins/basic_plugin.py"


async def test_it_greets_counts_and_sums_up_when_the_server_stops() -> None:
    async with running(NAME) as server:
        for number in (1, 2):
            async with connect(server.url) as client:
                assert await client.recv() == f"Hello, visitor number {number}!"
                await client.send("hi")
                assert await client.recv() == "I got your message!"
        async with connect(f"{server.url}/visitors") as client:
            assert json.loads(await client.recv()) == {"visitors": 2}
        server.signal()
        code, output = await server.end()
        assert code == 0
        assert len(output) == 1
        assert re.fullmatch(r"2 visitors since \d\d:\d\d:\d\d", output[0])


async def test_it_can_be_added_to_any_app_with_other_settings() -> None:
    app = Symphony()
    app.plugin(load(NAME).Visitors(path="/count", greeting="No. {number}"))
    app.route("/shop")
    async with TestClient(app) as client:
        async with client.connect("/shop") as c:
            assert await c.receive() == "No. 1"
        async with client.connect("/count") as c:
            assert await c.receive_json() == {"visitors": 1}


async def test_a_visitor_whom_the_app_refuses_is_not_counted() -> None:
    app = Symphony()
    plugin = load(NAME).Visitors()
    app.plugin(plugin)

    @app.route("/search")
    async def search(q: str) -> None:
        """Refuse who asks for nothing."""

    async with TestClient(app) as client:
        async with client.connect("/search?q=cats"):
            assert plugin.count == 1
        with pytest.raises(HandshakeRefusedError):
            await client.connect("/search")
        assert plugin.count == 1
