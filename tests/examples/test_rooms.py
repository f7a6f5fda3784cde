import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest

import symphony
from support.clients import Log, refused, until
from support.examples import EXAMPLES, load, running, served
from support.failing import Network
from support.process import launch
from symphony.testing import HandshakeRefusedError, TestClient

NAME = "ws/rooms.py"


async def test_two_meet_talk_and_part_and_the_room_is_cleaned_up() -> None:
    async with running(NAME) as server:
        lobby = f"{server.url}/rooms/lobby?user="
        alice = symphony.connect(lobby + "alice")
        heard = Log()
        for event in ("joined", "left", "said"):
            alice.on(event, lambda data, event=event: heard.append((event, data)))
        async with alice:
            async with symphony.connect(lobby + "bob") as bob:
                await bob.request("say", "hi")
                assert await alice.request("who") == ["alice", "bob"]
                await alice.request("say", "hello")
                await heard.reaches(4)
            await heard.reaches(5)
        assert heard == [
            ("joined", "alice"),
            ("joined", "bob"),
            ("said", {"by": "bob", "text": "hi"}),
            ("said", {"by": "alice", "text": "hello"}),
            ("left", "bob"),
        ]
        assert await server.line() == "chat:lobby is empty"


async def test_without_a_user_the_handshake_is_refused_with_400() -> None:
    async with served(NAME) as url:
        refusal = await refused(f"{url}/rooms/lobby")
        assert refusal.status == 400
        assert "user" in refusal.message


async def test_a_page_that_is_loaded_again_shows_the_last_lines_and_who_is_there() -> None:
    async with served(NAME) as url:
        lobby = f"{url}/rooms/lobby?user="
        async with symphony.connect(lobby + "alice") as alice:
            for number in range(5):
                await alice.request("say", str(number))
            async with symphony.connect(lobby + "bob") as bob:
                room = await bob.join("chat:lobby", since="start")
                lines: list[str] = []
                async for line in room:
                    if line.event == "said":
                        lines.append(line.data["text"])
                    if len(lines) == 5:
                        break
                assert lines == ["0", "1", "2", "3", "4"]
                await until(lambda: list(room.presence) == ["alice", "bob"])


async def test_a_page_that_was_offline_gets_what_it_missed_and_nobody_notices() -> None:
    network = Network()
    async with served(NAME) as url, network.to(url) as failing:
        alice = symphony.connect(f"{url}/rooms/lobby?user=alice")
        bob = symphony.connect(f"{failing}/rooms/lobby?user=bob", backoff=0.01)
        heard, moves = Log(), Log()
        bob.on("said", lambda line: heard.append(line["text"]))
        for event in ("joined", "left"):
            alice.on(event, lambda name, event=event: moves.append((event, name)))
        async with alice, bob:
            await moves.reaches(2)
            for turn in range(3):
                network.go_down()
                for number in range(10):
                    await alice.request("say", str(10 * turn + number))
                assert await alice.request("who") == ["alice", "bob"]
                network.come_up()
                await heard.reaches(10 * (turn + 1))
            assert moves == [("joined", "alice"), ("joined", "bob")]
        assert heard == [str(number) for number in range(30)]


async def test_two_workers_serve_one_room() -> None:
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", str(EXAMPLES / NAME))
    async with launch(*command, "--port", "0", "--workers", "2") as server, AsyncExitStack() as stack:
        clients: list[symphony.Client] = []
        heard = [Log() for _ in range(8)]
        for number, log in enumerate(heard):
            client = symphony.connect(f"{server.url}/rooms/lobby?user={number}")
            client.on("said", log.append)
            clients.append(await stack.enter_async_context(client))
        for client in clients:
            await client.request("say", "here")
        for log in heard:
            await log.reaches(8)
        # All have the same order, whatever the worker.
        assert all(log == heard[0] for log in heard)
        assert sorted(await clients[0].request("who")) == [str(number) for number in range(8)]


@pytest.fixture
def app() -> Any:
    return load(NAME).app


async def test_typing_is_told_to_the_others_and_not_kept(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/rooms/lobby?user=alice") as alice,
        client.connect("/rooms/lobby?user=bob") as bob,
    ):
        await alice.request("typing")
        assert await bob.receive_event("joined") == "bob"
        assert await bob.receive_event("typing") == "alice"
        assert [await alice.receive_event("joined") for _ in range(2)] == ["alice", "bob"]
        await alice.nothing_more()
        assert await app.room("chat:lobby").history() == []


async def test_rooms_hear_nothing_of_each_other(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/rooms/one?user=alice") as alice,
        client.connect("/rooms/two?user=bob") as bob,
    ):
        assert await alice.receive_event("joined") == "alice"
        assert await bob.receive_event("joined") == "bob"
        await alice.request("say", "hi")
        assert (await alice.receive_event("said"))["text"] == "hi"
        await bob.nothing_more()
        await alice.nothing_more()


async def test_a_lost_connection_leaves_its_room_after_the_grace_period(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/rooms/lobby?user=alice") as alice,
        client.connect("/rooms/lobby?user=bob") as bob,
    ):
        assert await alice.receive_event("joined") == "alice"
        assert await alice.receive_event("joined") == "bob"
        await bob.drop()
        await client.clock.advance(6)
        await alice.nothing_more()
        await client.clock.advance(6)
        assert await alice.receive_event("left") == "bob"


async def test_a_room_whose_name_has_a_colon_is_a_room_like_others(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/rooms/a:b?user=alice") as alice:
        assert await alice.receive_event("joined") == "alice"


async def test_a_path_without_a_room_is_refused(app: Any) -> None:
    async with TestClient(app) as client:
        with pytest.raises(HandshakeRefusedError) as nowhere:
            await client.connect("/rooms/?user=alice")
    assert nowhere.value.status == 404
