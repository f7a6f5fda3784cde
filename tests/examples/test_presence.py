from typing import Any

import pytest

import symphony
from support.clients import Log, refused, until
from support.examples import load, served
from support.failing import Network
from symphony.testing import TestClient, TestConnection

NAME = "ws/presence.py"
CHANGES = ("arrived", "away", "back", "departed")


@pytest.fixture
def app() -> Any:
    return load(NAME).app


def listen(client: symphony.Client | TestConnection) -> Log:
    """Collect who comes and goes."""
    heard = Log()
    for event in CHANGES:
        client.on(event, lambda name, event=event: heard.append((event, name)))
    return heard


async def test_a_reload_is_silent(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/?user=bob") as bob:
        room = await bob.join("office:main")
        async with client.connect("/?user=alice") as tab:
            await until(lambda: len(room.presence) == 2)
            heard = listen(bob)
            await tab.drop()
            await client.settle()
            assert await bob.request("who") == [
                {"name": "bob", "where": "here", "status": "free"},
                {"name": "alice", "where": "away", "status": "free"},
            ]
            # The list that the page shows has not changed.
            assert list(room.presence) == ["bob", "alice"]
            await client.clock.advance(6)
            async with client.connect("/?user=alice"):
                await client.clock.advance(60)
                assert heard == [("away", "alice"), ("back", "alice")]
                assert [seen["where"] for seen in await bob.request("who")] == ["here", "here"]
                assert list(room.presence) == ["bob", "alice"]


async def test_a_user_who_does_not_come_back_departs_after_the_grace_period(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/?user=bob") as bob,
        client.connect("/?user=alice") as tab,
    ):
        room = await bob.join("office:main")
        heard = listen(bob)
        await tab.drop()
        await client.clock.advance(6)
        assert heard == [("away", "alice")]
        assert "alice" in room.presence
        await client.clock.advance(6)
        assert heard == [("away", "alice"), ("departed", "alice")]
        await until(lambda: "alice" not in room.presence)


async def test_further_tabs_change_nothing(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/?user=bob") as bob:
        async with client.connect("/?user=alice") as first:
            heard = listen(bob)
            async with client.connect("/?user=alice"):
                await first.drop()
                await client.settle()
                assert [seen["name"] for seen in await bob.request("who")] == ["bob", "alice"]
                assert heard == []
        # The last tab was closed in order, so there is no grace period.
        assert heard == [("departed", "alice")]


async def test_a_reload_is_silent_on_a_real_network() -> None:
    network = Network()
    async with (
        served(NAME) as url,
        network.to(url) as failing,
        symphony.connect(f"{url}/?user=bob") as bob,
    ):
        room = await bob.join("office:main")
        heard = listen(bob)
        async with symphony.connect(f"{failing}/?user=alice", backoff=0.01) as alice:
            for times in (1, 2, 3):
                await heard.reaches(2 * times - 1)
                # A connection that never opens has no grace period.
                await until(lambda: alice.state == "open")
                network.fail()
                await heard.reaches(2 * times + 1)
        await heard.reaches(8)
        assert heard == [
            ("arrived", "alice"),
            *[("away", "alice"), ("back", "alice")] * 3,
            ("departed", "alice"),
        ]
        await until(lambda: list(room.presence) == ["bob"])


async def test_the_others_see_a_status(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/?user=bob") as bob,
        client.connect("/?user=alice") as alice,
    ):
        room = await bob.join("office:main")
        await alice.request("status", "busy")
        await until(lambda: room.presence["alice"] == {"status": "busy"})
        assert [seen["status"] for seen in await bob.request("who")] == ["free", "busy"]


async def test_without_a_user_the_handshake_is_refused() -> None:
    async with served(NAME) as url:
        assert (await refused(f"{url}/")).status == 400
