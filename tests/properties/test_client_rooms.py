"""Rooms of the Python client under random faults: each publication once, in order, or told to be lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.clients import until
from symphony.client import Client, Position, Room
from symphony.client.link import Close, Listener, Offer
from symphony.client.options import Options

ROOM = "chat:lobby"


class FakeLink:
    """The client's end of a connection to the server below; messages arrive in later turns of the loop."""

    subprotocol = "symphony.v1.json"
    congested = False

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.listener: Listener | None = None
        self.open = True
        self.member = False
        self.ended = asyncio.get_running_loop().create_future()

    def start(self, listener: Listener) -> None:
        self.listener = listener
        self.server.opened(self)

    def say(self, **envelope: Any) -> None:
        asyncio.get_running_loop().call_soon(self._arrive, json.dumps(envelope))

    def _arrive(self, message: str) -> None:
        if self.open and self.listener is not None:
            self.listener.received(message)

    def send(self, message: str | bytes) -> None:
        if self.open:
            self.server.received(self, json.loads(message))

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.end(Close(code, reason, clean=True))

    def abort(self) -> None:
        self.end(Close(1006, "", clean=False))

    def end(self, close: Close) -> None:
        if self.open:
            self.open = False
            self.ended.set_result(None)
            assert self.listener is not None
            asyncio.get_running_loop().call_soon(self.listener.closed, close)

    async def wait_closed(self) -> None:
        await self.ended


class FakeServer:
    """One room with a history, as `docs/protocol.md` describes it, and the faults of a network.

    Attributes:
        puts: Whether the server puts its clients into the room.
        refusals: How many of the next joins are refused for now.
    """

    where = "ws://memory/chat"

    def __init__(self, *, puts: bool) -> None:
        self.puts = puts
        self.epoch = 0
        self.offset = 0
        self.count = 0
        # Of this epoch, and of those that it continues: offset and content.
        self.history: list[tuple[int, int]] = []
        # The oldest epoch that is continued.
        self.oldest = 0
        self.link: FakeLink | None = None
        self.named = 0
        self.refusals = 0

    async def __call__(self, offer: Offer) -> FakeLink:
        self.link = FakeLink(self)
        return self.link

    @property
    def top(self) -> dict[str, Any]:
        return {"epoch": f"e{self.epoch}", "offset": self.offset}

    def opened(self, link: FakeLink) -> None:
        if self.puts:
            link.member = True
            self.named = self.epoch
            link.say(joined=ROOM, position=self.top)

    def received(self, link: FakeLink, envelope: dict[str, Any]) -> None:
        if "join" not in envelope:
            return
        if self.refusals:
            self.refusals -= 1
            data = {"code": "too_many", "message": "later", "retryable": True, "details": None}
            link.say(error=envelope["id"], data=data)
            return
        since = envelope.get("since")
        link.member = True
        self.named = self.epoch
        if since is None:
            link.say(joined=ROOM, position=self.top)
        else:
            after = [item for item in self.history if item[0] > since["offset"]]
            valid = self.oldest <= int(since["epoch"][1:]) <= self.epoch and since["offset"] <= self.offset
            whole = valid and len(after) == self.offset - since["offset"]
            position = {"epoch": f"e{self.epoch}", "offset": since["offset"]} if whole else self.top
            link.say(joined=ROOM, position=position, recovered=whole)
            for offset, content in after if whole else ():
                link.say(event="said", data=content, room=ROOM, offset=offset)
        link.say(reply=envelope["id"], data=None)

    # What happens

    def publish(self, times: int = 1, *, silently: bool = False) -> None:
        """Publish; silently: the client is not told, by a fault of the server."""
        self.count += 1
        self.offset += 1
        self.history.append((self.offset, self.count))
        link = self.link
        if link is not None and link.open and link.member and not silently:
            more = {} if self.named == self.epoch else {"epoch": f"e{self.epoch}"}
            self.named = self.epoch
            for _ in range(times):
                link.say(event="said", data=self.count, room=ROOM, offset=self.offset, **more)
        elif self.named != self.epoch:
            self.named = -1

    def drop(self) -> None:
        if self.link is not None:
            self.link.abort()

    def trim(self) -> None:
        del self.history[:-1]

    def change_epoch(self) -> None:
        """Another node continues the same history."""
        self.epoch += 1

    def begin_anew(self) -> None:
        """The history is lost."""
        self.epoch += 1
        self.oldest = self.named = self.epoch
        self.offset = 0
        self.history = []
        if self.link is not None and self.link.open and self.link.member:
            self.link.say(lost=ROOM, position=self.top)


class Program:
    """Records what the client gives to it: contents, and "lost"."""

    def __init__(self) -> None:
        self.log: list[int | str] = []
        self.ready = asyncio.Event()
        self.ready.set()

    async def handle(self, content: int) -> None:
        await self.ready.wait()
        self.log.append(content)

    def lose(self, position: Position) -> None:
        self.log.append("lost")

    async def iterate(self, room: Room) -> None:
        async for publication in room:
            await self.handle(publication.data)

    async def hears(self, content: int) -> None:
        """Wait for a publication, or for a loss that it may belong to."""
        earlier = len(self.log)
        await until(lambda: len(self.log) > earlier and self.log[-1] in (content, "lost"))

    def check(self, *, anew: bool) -> None:
        contents = [item for item in self.log if item != "lost"]
        assert contents == sorted(set(contents)), self.log
        before: int | None = None
        lost = False
        for item in self.log:
            if item == "lost":
                lost = True
                continue
            assert isinstance(item, int)
            if before is not None and not anew:
                assert (item == before + 1) is not lost, self.log
            elif before is not None:
                assert item == before + 1 or lost, self.log
            before, lost = item, False


STEPS = st.sampled_from(
    ["publish"] * 6
    + [
        "publish twice",
        "publish silently",
        "drop",
        "trim",
        "change epoch",
        "refuse",
        "turn",
        "turn",
        "stall",
        "go",
    ]
)


async def play(steps: list[str], way: str, *, anew: bool) -> None:
    program = Program()
    server = FakeServer(puts=way == "put")
    client = Client(server, Options(backoff=0, max_backoff=0, max_queue=3))
    iterating: asyncio.Task[None] | None = None
    room: Room | None = None
    if way == "put":
        client.on("said", program.handle)
    async with client:
        if way != "put":
            room = await client.join(ROOM)
            room.on_lost(program.lose)
            if way == "handlers":
                room.on("said", program.handle)
            else:
                iterating = asyncio.ensure_future(program.iterate(room))
        for step in steps:
            match step:
                case "publish":
                    server.publish()
                case "publish twice":
                    server.publish(2)
                case "publish silently":
                    server.publish(silently=True)
                case "drop":
                    server.drop()
                case "trim" if way != "put":
                    server.trim()
                case "change epoch":
                    server.change_epoch()
                case "begin anew" if way != "put":
                    server.begin_anew()
                case "refuse":
                    server.refusals = 1
                case "stall":
                    program.ready.clear()
                case "go":
                    program.ready.set()
                case _:
                    await asyncio.sleep(0)
        program.ready.set()
        server.refusals = 0
        # A last publication that the client hears of shows it what it has missed before.
        await until(lambda: server.link is not None and server.link.open and server.link.member)
        while not program.log or program.log[-1] != server.count:
            server.publish()
            await program.hears(server.count)
        program.check(anew=anew)
        if room is not None:
            await until(lambda: room.position is not None and room.position.offset == server.offset)
    if iterating is not None:
        await asyncio.wait_for(iterating, 5)


@pytest.mark.parametrize("way", ["handlers", "iteration", "put"])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
def test_each_publication_is_handled_once_and_in_order_or_is_told_to_be_lost(
    way: str, steps: list[str]
) -> None:
    asyncio.run(play(steps, way, anew=False))


@pytest.mark.parametrize("way", ["handlers", "iteration"])
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS | st.just("begin anew"), max_size=40))
def test_a_history_that_begins_anew_is_told_to_be_lost(way: str, steps: list[str]) -> None:
    asyncio.run(play(steps, way, anew=True))
