"""The demo with Redis and HAProxy, as `make demo-cluster` serves it, while all of these are killed."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import expect

from browser.demo import Open, all_have, log, members, room, say, status
from support.balancers import haproxy_binary
from support.chromium import IN_CHROMIUM
from support.examples import EXAMPLES
from support.redisservers import redis_binary

pytestmark = [*IN_CHROMIUM, pytest.mark.timeout(120)]

PROGRAM = EXAMPLES / "ws" / "scaling" / "cluster.py"
NAMES = ["Ada", "Ben", "Cleo", "Dan"]


class Cluster:
    """The program that runs the cluster.

    Attributes:
        process: Its process.
        pids: The newest process of each of its programs.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pids: dict[str, int] = {}

    async def until(self, text: str) -> None:
        """Read what it says up to a line with a text."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            if found := re.match(r"(.+): process (\d+)$", line):
                self.pids[found[1]] = int(found[2])
            if text in line:
                return
        raise AssertionError(f"it has ended before it said {text!r}")

    async def kill(self, name: str) -> None:
        """Kill one of its programs, and wait until it has started another one."""
        os.kill(self.pids[name], signal.SIGKILL)
        await self.until(f"{name}: process")


@asynccontextmanager
async def running(port: int) -> AsyncIterator[Cluster]:
    redis_binary(), haproxy_binary()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), env={**os.environ, "PORT": str(port)}, stdout=PIPE, stderr=STDOUT
    )
    cluster = Cluster(process)
    try:
        await cluster.until("The demo is on")
        yield cluster
    finally:
        if process.returncode is None:
            process.terminate()
        assert await process.wait() == 0
    for pid in cluster.pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_servers_and_redis_are_killed_and_the_pages_miss_nothing(port: int, enter: Open) -> None:
    async with running(port) as cluster:
        tabs = [await enter(name) for name in NAMES]
        for tab in tabs:
            await expect(members(tab)).to_have_count(4)
        said: list[str] = []
        for killed in ("server one", "server two", "Redis"):
            await cluster.kill(killed)
            for name, tab in zip(NAMES, tabs, strict=True):
                await say(tab, f"{name}: {killed}")
                said.append(f"{name}: {killed}")
            for tab in tabs:
                await expect(status(tab)).to_have_text("Connected")
                await expect(log(tab).locator(".said:not(.pending)")).to_have_count(len(said))
        lines = await log(tabs[0]).locator(".text").all_text_contents()
        assert sorted(lines) == sorted(said)
        # All of them have one order, and nobody was gone.
        await all_have(tabs, *lines)
        for tab in tabs:
            await expect(members(tab)).to_have_count(4)
            await expect(room(tab, "lobby")).to_have_accessible_name("lobby, 4 here")
            assert "left" not in await log(tab).inner_text()
