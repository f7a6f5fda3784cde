import json
from typing import Any

import pytest

from support.clients import connect, refused
from support.examples import load, running, served
from symphony.testing import HandshakeRefusedError, TestClient

NAME = "ws/rooms.py"


async def test_two_meet_talk_and_part_and_the_room_is_cleaned_up() -> None:
    async with running(NAME) as server:
        lobby = f"{server.url}/rooms/lobby?user="
        async with connect(lobby + "alice") as alice:
            assert json.loads(await alice.recv()) == {"present": ["alice"]}
            async with connect(lobby + "bob") as bob:
                assert json.loads(await bob.recv()) == {"present": ["alice", "bob"]}
                assert json.loads(await alice.recv()) == {"joined": "bob"}
                await bob.send("hi")
                assert await alice.recv() == "bob: hi"
                await alice.send("/who")
                assert json.loads(await alice.recv()) == ["alice", "bob"]
                await alice.send("hello")
                assert await bob.recv() == "alice: hello"
            assert json.loads(await alice.recv()) == {"left": "bob"}
        assert await server.line() == "chat:lobby is empty"


async def test_without_a_user_the_handshake_is_refused_with_400() -> None:
    async with served(NAME) as url:
        refusal = await refused(f"{url}/rooms/lobby")
        assert refusal.status == 400
        assert "user" in refusal.message


@pytest.fixture
def app() -> Any:
    return load(NAME).app


async def test_rooms_hear_nothing_of_each_other(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/rooms/one?user=alice") as alice,
        client.connect("/rooms/two?user=bob") as bob,
    ):
        assert await alice.receive_json() == {"present": ["alice"]}
        assert await bob.receive_json() == {"present": ["bob"]}
        await alice.send("hi")
        await bob.nothing_more()
        await alice.nothing_more()


async def test_a_lost_connection_leaves_its_room_as_well(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/rooms/lobby?user=alice") as alice,
        client.connect("/rooms/lobby?user=bob") as bob,
    ):
        await bob.drop()
        assert await alice.receive_json() == {"present": ["alice"]}
        assert await alice.receive_json() == {"joined": "bob"}
        assert await alice.receive_json() == {"left": "bob"}


async def test_a_room_whose_name_has_a_colon_is_a_room_like_others(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/rooms/a:b?user=alice") as alice:
        assert await alice.receive_json() == {"present": ["alice"]}


async def test_a_path_without_a_room_is_refused(app: Any) -> None:
    async with TestClient(app) as client:
        with pytest.raises(HandshakeRefusedError) as nowhere:
            await client.connect("/rooms/?user=alice")
    assert nowhere.value.status == 404
