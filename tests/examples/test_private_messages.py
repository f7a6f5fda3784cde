from typing import Any

import pytest

import symphony
from support.clients import Log, refused
from support.examples import load, served
from support.failing import Network
from symphony.errors import RemoteError
from symphony.testing import TestClient

NAME = "ws/private_messages.py"


@pytest.fixture
def app() -> Any:
    return load(NAME).app


async def test_a_message_reaches_all_devices_of_both_and_no_one_else(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/?user=alice") as alice,
        client.connect("/?user=bob") as phone,
        client.connect("/?user=bob") as laptop,
        client.connect("/?user=eve") as eve,
    ):
        await alice.request("tell.bob", "hi")
        letter = {"sender": "alice", "to": "bob", "text": "hi"}
        for device in (alice, phone, laptop):
            assert await device.receive_event("letter") == letter
        await eve.nothing_more()
        assert await eve.request("letters", 10) == []
        for device in (alice, phone, laptop):
            await device.nothing_more()


async def test_a_message_to_oneself_comes_once(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/?user=bob") as bob:
        await bob.request("tell.bob", "buy milk")
        assert (await bob.receive_event("letter"))["text"] == "buy milk"
        await bob.nothing_more()


async def test_a_user_who_is_away_for_a_minute_gets_what_was_sent_meanwhile() -> None:
    network = Network()
    async with (
        served(NAME) as url,
        network.to(url) as failing,
        symphony.connect(f"{url}/?user=alice") as alice,
    ):
        bob = symphony.connect(f"{failing}/?user=bob", backoff=0.01)
        heard = Log()
        bob.on("letter", lambda letter: heard.append(letter["text"]))
        async with bob:
            await alice.request("tell.bob", "0")
            await heard.reaches(1)
            network.go_down()
            for number in range(1, 20):
                await alice.request("tell.bob", str(number))
            assert heard == ["0"]
            network.come_up()
            await heard.reaches(20)
            await alice.request("tell.bob", "20")
            await heard.reaches(21)
        assert heard == [str(number) for number in range(21)]


async def test_a_user_who_comes_later_reads_the_last_messages(app: Any) -> None:
    async with TestClient(app) as client:
        async with client.connect("/?user=alice") as alice:
            for text in ("one", "two", "three"):
                await alice.request("tell.bob", text)
            await alice.emit("typing.bob")
        async with client.connect("/?user=bob") as bob:
            assert [letter["text"] for letter in await bob.request("letters", 2)] == ["two", "three"]
            assert len(await bob.request("letters", 0)) == 1
            assert len(await bob.request("letters", 1000)) == 3


async def test_typing_is_not_kept(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/?user=alice") as alice,
        client.connect("/?user=bob") as bob,
    ):
        await alice.emit("typing.bob")
        assert await bob.receive_event("typing") == "alice"
        assert await bob.request("letters", 10) == []


async def test_another_users_messages_cannot_be_joined(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/?user=eve") as eve:
        with pytest.raises(RemoteError) as refusal:
            await eve.join("user:bob")
        assert refusal.value.code == "forbidden"


async def test_without_a_user_the_handshake_is_refused() -> None:
    async with served(NAME) as url:
        assert (await refused(f"{url}/")).status == 400
