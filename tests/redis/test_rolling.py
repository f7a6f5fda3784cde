"""Three servers behind a proxy restart one after the other, while clients publish and ask.

Nothing is lost, nothing comes twice, nobody leaves, and no request fails. With `-s`, it prints what it
has counted.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import symphony
from support.balancers import Balancer, haproxy, nginx
from support.clients import until
from support.examples import EXAMPLES
from support.ports import free_port
from support.process import START, Running, launch
from support.redisservers import RedisServer
from support.sizes import size
from symphony.errors import RemoteError

pytestmark = pytest.mark.timeout(size(120, full=600))

PUBLISHERS = 4
# Seconds between the publications of one of them, and between the requests of one client.
PACE = size(100, full=400) / 1000
ASKING = size(200, full=2000) / 1000

Proxy = Callable[[Path, list[int]], AbstractAsyncContextManager[Balancer]]


class Node:
    """A server that is started again at the same port."""

    def __init__(self, url: str, port: int) -> None:
        self.port = port
        self._url = url
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        command = (*START, "-m", "symphony", "run", str(EXAMPLES / "deploy" / "chat.py"))
        options = ("--port", str(self.port), "--broker", self._url, "--proxy-headers")
        self._running: Running = await self._stack.enter_async_context(launch(*command, *options))

    @property
    def pid(self) -> int:
        return self._running.process.pid

    async def restart(self) -> None:
        self._running.signal(signal.SIGTERM)
        code, _ = await self._running.end()
        assert code == 0
        await self._stack.aclose()
        await self.start()

    async def aclose(self) -> None:
        await self._stack.aclose()


class Member:
    """A client that hears a room, and asks its server again and again."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.heard: list[str] = []
        self.lost = 0
        self.answered = 0
        self.refused = 0
        self.presence: Counter[int] = Counter()
        self.client = symphony.connect(f"{url}/chat", backoff=0.2, connect_timeout=60, request_timeout=60)
        self.client.on_open(self._login)

    async def _login(self) -> None:
        await self.client.request("login", self.name)

    async def join(self) -> None:
        await self.client
        self.room = room = await self.client.join("chat:all")

        @room.on("said")
        def said(data: str) -> None:
            self.heard.append(data)

        @room.on_lost
        def lost(position: symphony.Position) -> None:
            self.lost += 1

    def watch(self) -> None:
        """Count how many are there from now on, each time it changes."""

        @self.room.on_presence
        def changed(presence: Any) -> None:
            self.presence[presence.total] += 1

    async def ask(self, stopped: asyncio.Event) -> None:
        """Ask until *stopped*; only what the server did not begin is asked again."""
        while not stopped.is_set():
            try:
                await self.client.request("where", response_type=int)
            except RemoteError as error:
                if error.code != "unavailable":
                    raise
                self.refused += 1
            else:
                self.answered += 1
                await asyncio.sleep(ASKING)


async def publish(member: Member, stopped: asyncio.Event) -> list[str]:
    said: list[str] = []
    while not stopped.is_set():
        text = f"{member.name} {len(said)}"
        await member.room.emit("said", text)
        said.append(text)
        await asyncio.sleep(PACE)
    return said


async def reached(balancer: Balancer, node: Node) -> None:
    """Return when the proxy sends new clients to a server again."""
    while True:
        async with symphony.connect(f"{balancer.url}/chat") as client:
            if await client.request("where", response_type=int) == node.pid:
                return


@asynccontextmanager
async def members(url: str, count: int) -> AsyncIterator[list[Member]]:
    everyone = [Member(url, f"user{number}") for number in range(count)]
    try:
        # Not all at once: this process has one core.
        for first in range(0, count, 50):
            await asyncio.gather(*(each.join() for each in everyone[first : first + 50]))
        yield everyone
    finally:
        await asyncio.gather(*(each.client.close() for each in everyone))


async def roll(server: RedisServer, folder: Path, proxy: Proxy, count: int) -> None:
    ports: set[int] = set()
    while len(ports) < 3:
        ports.add(free_port())
    nodes = [Node(server.url, port) for port in ports]
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.push_async_callback(node.aclose)
        await asyncio.gather(*(node.start() for node in nodes))
        balancer = await stack.enter_async_context(proxy(folder, [node.port for node in nodes]))
        everyone = await stack.enter_async_context(members(balancer.url, count))
        watcher = everyone[0]
        await until(lambda: watcher.room.presence.total == count, timeout=60)
        watcher.watch()
        stopped = asyncio.Event()
        asking = [asyncio.ensure_future(each.ask(stopped)) for each in everyone]
        publishing = [asyncio.ensure_future(publish(each, stopped)) for each in everyone[:PUBLISHERS]]
        began = time.monotonic()
        for node in nodes:
            old = node.pid
            await node.restart()
            assert node.pid != old
            await reached(balancer, node)
        took = time.monotonic() - began
        stopped.set()
        # What failed is raised here.
        await asyncio.gather(*asking)
        said = await asyncio.gather(*publishing)
        total = sum(map(len, said))
        await until(lambda: all(len(each.heard) >= total for each in everyone), timeout=60)
    first = everyone[0].heard
    for each in everyone:
        # In one order for all, and in that of each publisher.
        assert each.heard == first
        assert each.lost == 0
    for number, texts in enumerate(said):
        assert [text for text in first if text.startswith(f"user{number} ")] == texts
    assert total == len(first)
    # Nobody has come or gone.
    assert set(watcher.presence) <= {count}
    answered, refused = (sum(getattr(each, name) for each in everyone) for name in ("answered", "refused"))
    print(
        f"\n{count} clients, 3 restarts in {took:.1f} s: {total} publications, each heard {count} times; "
        f"{answered} requests answered, {refused} refused and repeated; presence changed "
        f"{watcher.presence.total()} times"
    )


async def test_nothing_is_lost_behind_haproxy(server: RedisServer, tmp_path: Path) -> None:
    await roll(server, tmp_path, haproxy, size(30, full=500))


async def test_nothing_is_lost_behind_nginx(server: RedisServer, tmp_path: Path) -> None:
    await roll(server, tmp_path, nginx, size(15, full=100))
