import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import symphony
from support.clients import Log, refused
from support.examples import EXAMPLES, load, served
from support.failing import Network
from support.process import launch
from symphony.errors import RemoteError
from symphony.testing import HandshakeRefusedError, TestClient, TestConnection

NAME = "ws/game.py"


@pytest.fixture
def app() -> Any:
    return load(NAME).app


@asynccontextmanager
async def playing(client: TestClient) -> AsyncIterator[tuple[TestConnection, TestConnection]]:
    """Alice and bob play the match `one`."""
    async with (
        client.connect("/match/one?user=alice") as alice,
        client.connect("/match/one?user=bob") as bob,
    ):
        yield alice, bob


def listen(client: symphony.Client | TestConnection) -> Log:
    """Collect what happens to players, and leave the frames out."""
    heard = Log()
    for event in ("away", "back", "gave up", "won"):
        client.on(event, lambda id, event=event: heard.append((event, id)))
    client.on("frame", lambda frame: None)
    return heard


async def coming(client: symphony.Client | TestConnection, condition: Any) -> Any:
    """Wait for a frame that meets a condition, and return it."""
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def look(frame: Any) -> None:
        if not found.done() and condition(frame):
            found.set_result(frame)

    client.on("frame", look)
    try:
        async with asyncio.timeout(20):
            return await found
    finally:
        client.off("frame", look)


async def test_players_are_matched_in_pairs_in_the_order_of_their_arrival(app: Any) -> None:
    async with TestClient(app) as client, AsyncExitStack() as stack:
        names = ("alice", "bob", "carol", "dan", "eve")
        waiting = [await stack.enter_async_context(client.connect(f"/lobby?user={name}")) for name in names]
        await client.clock.advance(0.5)
        matches = [await one.receive_event("matched") for one in waiting[:4]]
        assert matches[0] == matches[1] != matches[2] == matches[3]
        await waiting[4].nothing_more()
        fay = await stack.enter_async_context(client.connect("/lobby?user=fay"))
        await client.clock.advance(0.5)
        assert await fay.receive_event("matched") == await waiting[4].receive_event("matched")
        for one in waiting:
            assert (await one.wait_closed()).code == 1000


async def test_a_reload_keeps_the_place_in_the_lobby(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/lobby?user=alice") as alice:
        await alice.drop()
        async with client.connect("/lobby?user=bob") as bob:
            # Alice is away, so she is not matched now.
            await client.clock.advance(1)
            await bob.nothing_more()
            async with (
                client.connect("/lobby?user=alice") as again,
                client.connect("/lobby?user=carol") as carol,
            ):
                await client.clock.advance(0.5)
                assert await again.receive_event("matched") == await bob.receive_event("matched")
                await carol.nothing_more()


async def test_two_tabs_of_a_user_are_not_matched_with_each_other(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/lobby?user=alice") as first,
        client.connect("/lobby?user=alice") as second,
    ):
        await client.clock.advance(5)
        for tab in (first, second):
            await tab.nothing_more()


async def test_a_match_has_ten_frames_a_second_and_moves_its_players(app: Any) -> None:
    async with TestClient(app) as client, playing(client) as (alice, bob):
        room = app.room("match:one")
        room.state.coin = (0, 0)
        for id, place in (("alice", (18, 5)), ("bob", (3, 1))):
            room.members[id].state.place = place
        await alice.request("turn", "right")
        await bob.request("turn", "up")
        await client.clock.advance(0.3)
        frames = [await alice.receive_event("frame") for _ in range(3)]
        assert [frame["players"] for frame in frames] == [
            {"alice": [[19, 5], 0], "bob": [[3, 0], 0]},
            {"alice": [[0, 5], 0], "bob": [[3, 9], 0]},
            {"alice": [[1, 5], 0], "bob": [[3, 8], 0]},
        ]


async def test_who_has_the_last_coin_wins_and_the_match_ends(app: Any) -> None:
    async with TestClient(app) as client, playing(client) as (alice, bob):
        heard = listen(bob)
        room = app.room("match:one")
        room.members["alice"].state.coins = 4
        room.state.coin = room.members["alice"].state.place
        await client.clock.advance(0.1)
        assert heard == [("won", "alice")]
        for player in (alice, bob):
            closed = await player.wait_closed()
            assert (closed.code, closed.reason) == (4000, "alice has won")
        await client.clock.advance(1)
        assert heard == [("won", "alice")]


async def test_a_seat_survives_a_reload_with_its_coins(app: Any) -> None:
    async with TestClient(app) as client, playing(client) as (alice, bob):
        heard = listen(bob)
        app.room("match:one").members["alice"].state.coins = 3
        for seconds in (0, 1, 9):
            await alice.drop()
            await client.clock.advance(seconds)
            with pytest.raises(HandshakeRefusedError) as refusal:
                await client.connect("/match/one?user=eve")
            # The seat may become free soon.
            assert (refusal.value.refusal.code, refusal.value.refusal.retryable) == ("room_full", True)
            alice = await client.connect("/match/one?user=alice")
            assert app.room("match:one").members["alice"].state.coins == 3
        assert heard == [("away", "alice"), ("back", "alice")] * 3
        await alice.close()


async def test_a_player_who_does_not_come_back_gives_up_the_seat(app: Any) -> None:
    async with TestClient(app) as client, playing(client) as (alice, bob):
        heard = listen(bob)
        await alice.drop()
        await client.clock.advance(16)
        assert heard == [("away", "alice"), ("gave up", "alice")]
        async with client.connect("/match/one?user=eve"):
            assert list(app.room("match:one").members) == ["bob", "eve"]


async def test_a_third_player_is_refused_and_spectators_are_not(app: Any) -> None:
    async with TestClient(app) as client, playing(client) as (alice, _), AsyncExitStack() as stack:
        with pytest.raises(HandshakeRefusedError) as refusal:
            await client.connect("/match/one?user=eve")
        assert (refusal.value.status, refusal.value.refusal.code) == (409, "room_full")
        assert not refusal.value.refusal.retryable
        crowd = [await stack.enter_async_context(client.connect("/match/one")) for _ in range(10)]
        # A second tab of a player needs no seat.
        tab = await stack.enter_async_context(client.connect("/match/one?user=alice"))
        heard = listen(tab)
        await client.clock.advance(0.1)
        frames = [await one.receive_event("frame") for one in crowd]
        assert all(set(frame["players"]) == {"alice", "bob"} for frame in frames)
        with pytest.raises(RemoteError) as forbidden:
            await crowd[0].request("turn", "up")
        assert forbidden.value.code == "forbidden"
        for one in crowd:
            await one.drop()
        await client.clock.advance(1)
        assert heard == []
        await alice.close()


async def test_nonsense_is_refused(app: Any) -> None:
    async with TestClient(app) as client, playing(client) as (alice, _):
        with pytest.raises(RemoteError) as refusal:
            await alice.request("turn", "around")
        assert refusal.value.code == "invalid"


async def test_a_seat_survives_a_network_that_fails() -> None:
    network = Network()
    async with (
        served(NAME) as url,
        network.to(url) as failing,
        symphony.connect(f"{url}/match/one?user=bob") as bob,
        symphony.connect(f"{failing}/match/one?user=alice", backoff=0.01) as alice,
    ):
        heard = listen(bob)
        await alice.request("turn", "right")
        first = await coming(bob, lambda frame: len(frame["players"]) == 2)
        network.fail()
        await heard.reaches(2)
        assert heard == [("away", "alice"), ("back", "alice")]
        # She still moves, and in the same row: her state is the one of before.
        again = await coming(alice, lambda frame: len(frame["players"]) == 2)
        assert again["players"]["alice"][0][1] == first["players"]["alice"][0][1]


async def test_two_workers_match_players_and_play_each_match_once() -> None:
    """A match has a home: players and spectators end at the same worker, wherever they begin."""
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", str(EXAMPLES / NAME))
    async with launch(*command, "--port", "0", "--workers", "2") as server, AsyncExitStack() as stack:

        def client(path: str) -> symphony.Client:
            return symphony.connect(f"{server.url}{path}", backoff=0.01)

        matched = Log()
        for number in range(8):
            waiting = client(f"/lobby?user={number}")
            waiting.on("matched", lambda id, number=number: matched.append((number, id)))
            await stack.enter_async_context(waiting)
        await matched.reaches(8)
        matches: dict[str, list[int]] = {}
        for number, id in matched:
            matches.setdefault(id, []).append(number)
        assert sorted(len(players) for players in matches.values()) == [2, 2, 2, 2]
        for id, players in matches.items():
            paths = [*(f"/match/{id}?user={number}" for number in players), f"/match/{id}"]
            for each in [await stack.enter_async_context(client(path)) for path in paths]:
                frame = await coming(each, lambda frame: len(frame["players"]) == 2)
                assert sorted(frame["players"]) == sorted(str(number) for number in players)


async def test_the_lobby_wants_a_user() -> None:
    async with served(NAME) as url:
        assert (await refused(f"{url}/lobby")).status == 400
