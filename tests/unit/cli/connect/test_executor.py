"""What `symphony connect` remembers, and how much it asks at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
from rich.text import Text

from client.opened import pair
from client.scripted import Peer
from support.clients import until
from symphony.cli.connect.executor import Executor
from symphony.cli.connect.parser import LineError
from symphony.cli.connect.terminal_view import TerminalView
from symphony.client import Client


@asynccontextmanager
async def executing() -> AsyncIterator[tuple[Executor, Peer, list[Text]]]:
    seen: list[Text] = []
    made: list[Executor] = []

    def register(client: Client) -> None:
        view = TerminalView(seen.append, as_json=False, now=lambda: datetime(2026, 1, 31, 12))
        made.append(Executor(client, view, answers={}, as_json=False))

    async with pair(register=register) as (_, peer, _):
        yield made[0], peer, seen
        await made[0].aclose()


@pytest.mark.within("cli.connect.executor._MAX_NAMES")
@pytest.mark.beyond("cli.connect.executor._MAX_NAMES")
async def test_the_newest_names_of_events_are_remembered() -> None:
    async with executing() as (executor, peer, seen):
        for count in (200, 300):
            for number in range(count):
                await peer.send(event=f"event{number}")
            await until(lambda count=count: any(f"event{count - 1}" in line.plain for line in seen))
            assert [*executor.event_names] == [f"event{number}" for number in range(count - 200, count)]


@pytest.mark.within("cli.connect.executor._MAX_PENDING")
@pytest.mark.beyond("cli.connect.executor._MAX_PENDING")
async def test_a_script_waits_for_an_answer_when_many_requests_wait() -> None:
    async with executing() as (executor, peer, _):
        action = executor.parse("/request sum [1]", script=True)
        for _ in range(100):
            await executor.execute(action, script=True)
        further = asyncio.ensure_future(executor.execute(action, script=True))
        ids = [(await peer.receive())["id"] for _ in range(100)]
        assert await peer.nothing_came()
        assert not further.done()
        await peer.send(reply=ids[0], data=1)
        await further
        ids.append((await peer.receive())["id"])
        for id in ids[1:]:
            await peer.send(reply=id, data=1)
        await executor.wait_for_replies()


async def admit(peer: Peer, name: str, **more: object) -> None:
    asked = await peer.receive()
    assert asked["join"] == name
    await peer.send(joined=name, **more)
    await peer.send(reply=asked["id"])


def said(seen: list[Text]) -> list[str]:
    return [line.plain.removeprefix("12:00:00 ") for line in seen]


async def test_a_room_is_joined_published_to_and_left() -> None:
    async with executing() as (executor, peer, seen):
        await executor.execute(executor.parse("/join chat:a"))
        await admit(peer, "chat:a", position={"epoch": "e", "offset": 3})
        await executor.wait_for_replies()
        await executor.execute(executor.parse('/publish chat:a said "hi"'))
        frame = await peer.receive()
        assert (frame["publish"], frame["room"], frame["data"]) == ("said", "chat:a", "hi")
        await peer.send(event="said", room="chat:a", offset=4, data="hi")
        await peer.send(reply=frame["id"], data={"epoch": "e", "offset": 4})
        await executor.wait_for_replies()
        await peer.send(lost="chat:a", position={"epoch": "e", "offset": 9})
        await until(lambda: len(seen) >= 6)
        with pytest.raises(LineError, match="Join it first: /join chat:b"):
            await executor.execute(executor.parse("/leave chat:b"))
        await executor.execute(executor.parse("/leave chat:a"))
        left = await peer.receive()
        await peer.send(left="chat:a", data={"code": "left", "message": ""})
        await peer.send(reply=left["id"], data=True)
        await executor.wait_for_replies()
        lines = said(seen)
        assert lines[:4] == [
            "> #1 join chat:a",
            "< #1 joined chat:a, after the offset 3",
            '> #2 chat:a said "hi"',
            '< chat:a said "hi" (offset 4)',
        ]
        assert lines[4].startswith('< #2 {"epoch":"e","offset":4} (')
        assert lines[5] == "! chat:a publications are lost: the room goes on after the offset 9"
        assert lines[6] == "> #3 leave chat:a"
        assert lines[7].startswith("< #3 null (")
        assert [*executor.rooms.names] == ["chat:a"]
        assert "said" in executor.event_names
        with pytest.raises(LineError, match="You are not in the room 'chat:a'"):
            await executor.execute(executor.parse("/publish chat:a said 1"))


async def test_what_the_server_refuses_about_a_room_is_told() -> None:
    async with executing() as (executor, peer, seen):
        refusal = {"code": "forbidden", "message": "no", "retryable": False, "details": None}
        await executor.execute(executor.parse("/join chat:a"))
        await peer.send(error=(await peer.receive())["id"], data=refusal)
        await executor.wait_for_replies()
        await executor.execute(executor.parse("/join chat:b"))
        await admit(peer, "chat:b")
        await executor.wait_for_replies()
        await executor.execute(executor.parse("/publish chat:b said"))
        await peer.send(error=(await peer.receive())["id"], data=refusal)
        await executor.wait_for_replies()
        await peer.send(left="chat:b", data={**refusal, "code": "closed", "message": "it is over"})
        await until(lambda: "no longer in this room" in said(seen)[-1])
        lines = said(seen)
        assert lines[1] == "< #1 forbidden: no"
        assert lines[5] == "< #3 forbidden: no"
        assert not executor.failed
        with pytest.raises(LineError):
            await executor.execute(executor.parse("/publish chat:b said"))


async def test_a_script_waits_for_a_join_and_a_room_is_listened_to_once() -> None:
    async with executing() as (executor, peer, seen):
        joining = asyncio.ensure_future(executor.execute(executor.parse("/join chat:a"), script=True))
        asked = await peer.receive()
        assert not joining.done()
        await peer.send(joined="chat:a")
        await peer.send(reply=asked["id"])
        await joining
        assert executor.sent_without_reply
        await executor.execute(executor.parse("/join chat:a"), script=True)
        await peer.send(event="said", room="chat:a", data=1)
        await until(lambda: said(seen)[-1] == "< chat:a said 1")
        assert said(seen).count("< chat:a said 1") == 1


@pytest.mark.within("cli.connect.rooms._MAX_ROOMS")
@pytest.mark.beyond("cli.connect.rooms._MAX_ROOMS")
async def test_the_newest_names_of_rooms_are_remembered() -> None:
    async with executing() as (executor, peer, _):
        for count in (200, 210):
            for number in range(len(executor.rooms.names), count):
                joining = asyncio.ensure_future(executor.rooms.join(f"room{number}"))
                await admit(peer, f"room{number}")
                await joining
            assert [*executor.rooms.names] == [f"room{number}" for number in range(count - 200, count)]
