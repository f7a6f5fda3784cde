"""The rules of the chat that `make demo` runs, in memory; tests/browser has its page."""

import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest

import symphony
from support.clients import Log
from support.examples import EXAMPLES, load
from support.process import launch
from symphony.errors import RemoteError
from symphony.testing import HandshakeRefusedError, TestClient, TestConnection


@pytest.fixture
def app() -> Any:
    return load("demo/app.py").app


def id(number: int) -> str:
    return f"{number:016x}"


def listen(member: TestConnection) -> Log:
    """Collect what somebody hears from now on: the event, and whom it is about."""
    heard = Log()
    for event in ("said", "joined", "left", "typing"):

        def hear(data: Any, event: str = event) -> None:
            heard.append((event, data["member"]["name"], data.get("text")))

        member.on(event, hear)
    return heard


async def test_what_is_said_twice_with_one_id_is_heard_once(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=Ada", token="a") as ada,
        client.connect("/chat?name=Ben") as ben,
    ):
        await ben.request("enter", "lobby")
        heard = listen(ben)
        message = {"id": id(1), "room": "lobby", "text": "hi"}
        first = await ada.request("say", message)
        assert await ada.request("say", message) == first
        await ada.request("say", {**message, "id": id(2), "text": "again"})
        await heard.reaches(3)
        assert heard == [("joined", "Ada", None), ("said", "Ada", "hi"), ("said", "Ada", "again")]
        assert [said["text"] for said in (await ben.request("enter", "lobby"))["said"]] == ["hi", "again"]


async def test_who_speaks_in_a_room_is_in_it(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=Ada") as ada,
        client.connect("/chat?name=Ben") as ben,
    ):
        await ada.request("enter", "lobby")
        await ben.request("enter", "lobby")
        await ada.request("say", {"id": id(1), "room": "garden", "text": "here"})
        members = (await ben.request("enter", "lobby"))["members"]
        assert [member["name"] for member in members] == ["Ben"]
        members = (await ben.request("enter", "garden"))["members"]
        assert [member["name"] for member in members] == ["Ada", "Ben"]


async def test_every_page_gets_the_news_of_a_message_but_only_the_room_its_text(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=Ada") as ada,
        client.connect("/chat?name=Ben") as ben,
    ):
        me = (await ada.request("enter", "kitchen"))["you"]
        await ben.request("enter", "lobby")
        heard, news = listen(ben), Log()
        ben.on("news", news.append)
        message = {"id": id(1), "room": "kitchen", "text": "a secret"}
        said = await ada.request("say", message)
        # A repeated message is no news.
        await ada.request("say", message)
        await ada.request("say", {**message, "id": id(2)})
        await news.reaches(2)
        assert news[0] == {"id": id(1), "room": "kitchen", "by": me, "at": said["at"]}
        assert [one["id"] for one in news] == [id(1), id(2)]
        assert heard == []


async def test_entering_a_room_gives_the_news_of_all_rooms(app: Any) -> None:
    async with TestClient(app) as client:
        async with client.connect("/chat?name=Ada") as ada:
            for number, room in enumerate(("garden", "kitchen", "lobby")):
                await ada.request("say", {"id": id(number), "room": room, "text": "hi"})
        # The rooms are empty now, and still remember their messages.
        async with client.connect("/chat?name=Ben") as ben:
            entered = await ben.request("enter", "library")
            assert entered["said"] == []
            assert {one["room"]: one["id"] for one in entered["news"]} == {
                "garden": id(0),
                "kitchen": id(1),
                "lobby": id(2),
            }
            assert max(one["at"] for one in entered["news"]) <= entered["at"]


async def test_somebody_who_is_there_twice_came_once_and_leaves_once(app: Any) -> None:
    """A page that comes back is here before it is noticed that it was gone."""
    async with TestClient(app) as client, client.connect("/chat?name=Ben") as ben:
        await ben.request("enter", "lobby")
        heard = listen(ben)
        async with client.connect("/chat?name=Ada", token="ada") as before:
            mine = (await before.request("enter", "lobby"))["you"]
            async with client.connect("/chat?name=Ada", token="ada") as after:
                entered = await after.request("enter", "lobby")
                assert entered["you"] == mine
                assert [member["name"] for member in entered["members"]] == ["Ben", "Ada"]
                await before.drop()
                await after.request("say", {"id": id(1), "room": "lobby", "text": "hi"})
        await heard.reaches(3)
        assert heard == [("joined", "Ada", None), ("said", "Ada", "hi"), ("left", "Ada", None)]
        # What others see must not be what it comes back with.
        assert "ada" not in mine


async def test_typing_is_heard_by_the_others_in_the_room_alone(app: Any) -> None:
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=Ada") as ada,
        client.connect("/chat?name=Ben") as ben,
        client.connect("/chat?name=Eve") as eve,
    ):
        for member, room in ((ben, "lobby"), (eve, "garden")):
            await member.request("enter", room)
        ears = [listen(member) for member in (ada, ben, eve)]
        # In no room yet.
        ada.emit("typing")
        await ada.request("enter", "lobby")
        ada.emit("typing")
        await ada.request("enter", "garden")
        await ears[1].reaches(3)
        await ears[2].reaches(1)
        assert ears == [
            [],
            [("joined", "Ada", None), ("typing", "Ada", None), ("left", "Ada", None)],
            [("joined", "Ada", None)],
        ]


async def test_no_more_is_kept_than_may(app: Any) -> None:
    async with TestClient(app) as client, client.connect("/chat?name=Ada") as ada:
        for number in range(60):
            await ada.request("say", {"id": id(number), "room": "lobby", "text": str(number)})
        said = (await ada.request("enter", "lobby"))["said"]
        assert [message["text"] for message in said] == [str(number) for number in range(10, 60)]


@pytest.mark.parametrize(
    ("event", "data", "path"),
    [
        ("enter", "cellar", "$"),
        ("say", {"id": id(1), "room": "lobby", "text": " "}, "$.text"),
        ("say", {"id": id(1), "room": "lobby", "text": "x" * 1001}, "$.text"),
        ("say", {"id": "1", "room": "lobby", "text": "x"}, "$.id"),
        ("say", {"id": id(1), "room": "cellar", "text": "x"}, "$.room"),
    ],
)
async def test_nonsense_is_refused(app: Any, event: str, data: Any, path: str) -> None:
    async with TestClient(app) as client, client.connect("/chat?name=Ada") as ada:
        with pytest.raises(RemoteError) as caught:
            await ada.request(event, data)
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
        tabs: list[symphony.Client] = []
        heard = [Log() for _ in range(8)]
        for number, log in enumerate(heard):
            tab = symphony.connect(f"{server.url}/chat?name={number}", token=str(number))
            tab.on("said", lambda said, log=log: log.append(said["text"]))
            await stack.enter_async_context(tab)
            await tab.request("enter", "lobby")
            tabs.append(tab)
        for number, tab in enumerate(tabs):
            message = {"id": id(number), "room": "lobby", "text": str(number)}
            assert (await tab.request("say", message))["id"] == id(number)
            # A repeat publishes nothing, whatever worker it reaches after a reconnect.
            async with symphony.connect(f"{server.url}/chat?name={number}", token=str(number)) as again:
                assert (await again.request("say", message))["id"] == id(number)
        for log in heard:
            await log.reaches(8)
        assert all(log == [str(number) for number in range(8)] for log in heard)
        entered = await tabs[0].request("enter", "lobby")
        assert [said["text"] for said in entered["said"]] == heard[0]
        assert sorted(member["name"] for member in entered["members"]) == heard[0]
