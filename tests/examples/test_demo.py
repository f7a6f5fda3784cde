"""The rules of the chat that `make demo` runs, in memory; tests/browser has its page."""

import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest

import symphony
from support.clients import Log
from support.examples import EXAMPLES, load
from support.process import launch
from symphony.client import Room
from symphony.errors import RemoteError
from symphony.testing import HandshakeRefusedError, TestClient

ROOMS = ("lobby", "kitchen", "garden", "library")


@pytest.fixture
def app() -> Any:
    return load("demo/app.py").app


def id(number: int) -> str:
    return f"{number:016x}"


def listen(room: Room) -> Log:
    """Collect who says what in a room from now on."""
    heard = Log()
    room.on("said", lambda said: heard.append((said["member"]["name"], said["text"])))
    return heard


async def test_what_is_published_twice_with_one_key_is_heard_once_and_by_its_author_too(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=Ada", token="a") as ada,
        client.connect("/chat?name=Ben") as ben,
    ):
        rooms = [await each.join("chat:lobby", since="start") for each in (ada, ben)]
        logs = [listen(room) for room in rooms]
        message = {"id": id(1), "text": "hi"}
        first = await rooms[0].emit("said", message, key=id(1))
        # Its author has heard it when the position is there.
        assert logs[0] == [("Ada", "hi")]
        assert await rooms[0].emit("said", message, key=id(1)) == first
        await rooms[0].emit("said", {"id": id(2), "text": "again"}, key=id(2))
        for log in logs:
            await log.reaches(2)
            assert log == [("Ada", "hi"), ("Ada", "again")]


async def test_each_page_shows_who_is_in_the_open_room(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/chat?name=Ben") as ben:
        place = await ben.join("here:lobby")
        async with client.connect("/chat?name=Ada", token="ada") as ada:
            await ada.join("here:lobby")
            await client.clock.advance(0.2)
            await client.settle()
            assert [info["name"] for info in place.presence.values()] == ["Ben", "Ada"]
            mine = (await ada.request("me"))["id"]
            assert mine in place.presence
            # What others see must not be what it comes back with.
            assert "ada" not in mine
            # A reload: it is somebody's second connection, or the first one again.
            await ada.drop()
            await client.clock.advance(4)
            async with client.connect("/chat?name=Ada", token="ada") as again:
                assert (await again.request("me"))["id"] == mine
                await again.join("here:lobby")
                await client.clock.advance(6)
                await client.settle()
                assert [*place.presence][1:] == [mine]
        await client.clock.advance(6)
        await client.settle()
        assert [info["name"] for info in place.presence.values()] == ["Ben"]


async def test_all_pages_hear_how_many_are_in_each_room(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=Ada") as ada,
        client.connect("/chat?name=Ben") as ben,
    ):
        counts = Log()
        ben.on("counts", counts.append)
        room = await ada.join("here:lobby")
        await ben.join("here:garden")
        await room.leave()
        await counts.reaches(3)
        assert [[count[name] for name in ROOMS] for count in counts] == [
            [1, 0, 0, 0],
            [1, 0, 1, 0],
            [0, 0, 1, 0],
        ]


async def test_typing_is_heard_by_those_in_the_room_alone_and_not_kept(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=Ada") as ada,
        client.connect("/chat?name=Ben") as ben,
        client.connect("/chat?name=Eve") as eve,
    ):
        place = await ada.join("here:lobby")
        heard = [Log(), Log()]
        for each, room, log in ((ben, "lobby", heard[0]), (eve, "garden", heard[1])):
            (await each.join(f"here:{room}")).on("typing", log.append)
        await place.emit("typing", volatile=True)
        await heard[0].reaches(1)
        assert heard[0][0]["name"] == "Ada"
        assert heard[1] == []
        with pytest.raises(RemoteError, match="history"):
            await place.history()


async def test_no_more_is_kept_than_may(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/chat?name=Ada") as ada:
        room = await ada.join("chat:lobby")
        for number in range(60):
            await room.emit("said", {"id": id(number), "text": str(number)})
        assert [one.data["text"] for one in await room.history()] == [str(n) for n in range(10, 60)]


@pytest.mark.parametrize("name", ["chat:cellar", "here:cellar", "cellar", "chat:lobby:2"])
async def test_other_rooms_do_not_exist(app: Any, name: str) -> None:
    async with TestClient(app) as client, client.connect("/chat?name=Ada") as ada:
        with pytest.raises(RemoteError) as caught:
            await ada.join(name)
        assert caught.value.code in ("forbidden", "invalid")


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"id": id(1), "text": " "}, "$.text"),
        ({"id": id(1), "text": "x" * 1001}, "$.text"),
        ({"id": "1", "text": "x"}, "$.id"),
        ({"id": id(1)}, "$"),
    ],
)
async def test_nonsense_is_refused(app: Any, data: Any, path: str) -> None:
    async with TestClient(app) as client, client.connect("/chat?name=Ada") as ada:
        room = await ada.join("chat:lobby")
        with pytest.raises(RemoteError) as caught:
            await room.emit("said", data)
        assert (caught.value.code, caught.value.details) == ("invalid", {"path": path})


@pytest.mark.parametrize("query", ["", "?name=", "?name=%20", f"?name={'x' * 25}"])
async def test_whoever_has_no_name_or_too_long_a_one_is_refused(app: Any, query: str) -> None:
    async with TestClient(app) as client:
        with pytest.raises(HandshakeRefusedError) as refusal:
            await client.connect(f"/chat{query}")
        assert refusal.value.status == 400


async def test_two_workers_serve_one_chat() -> None:
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", str(EXAMPLES / "demo" / "app.py"))
    async with launch(*command, "--port", "0", "--workers", "2") as server, AsyncExitStack() as stack:
        rooms: list[Room] = []
        places: list[Room] = []
        heard: list[Log] = []
        for number in range(8):
            tab = symphony.connect(f"{server.url}/chat?name={number}", token=str(number))
            await stack.enter_async_context(tab)
            rooms.append(await tab.join("chat:lobby", since="start"))
            heard.append(listen(rooms[-1]))
            places.append(await tab.join("here:lobby"))
        for number, room in enumerate(rooms):
            message = {"id": id(number), "text": str(number)}
            position = await room.emit("said", message, key=id(number))
            # A repeat publishes nothing, whatever worker it reaches after a reconnect.
            async with symphony.connect(f"{server.url}/chat?name={number}", token=str(number)) as again:
                repeated = await (await again.join("chat:lobby")).emit("said", message, key=id(number))
                assert repeated == position
        for log in heard:
            await log.reaches(8)
            assert log == [(str(number), str(number)) for number in range(8)]
        kept = await rooms[0].history()
        assert [(one.data["member"]["name"], one.data["text"]) for one in kept] == heard[0]
        assert await places[0].count() == 8
