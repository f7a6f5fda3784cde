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
