"""A long stream to a client that takes its time, and a thousand streams at once."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.process import Running, start
from support.raw import RawClient, connect, resident_bytes, text
from support.sizes import size

pytestmark = pytest.mark.alone

MIB = 1024 * 1024
# 16 MiB at least: four times what the server may need for them.
WORD = "x" * 96
ITEMS = size(150_000, full=1_000_000)
WARM_UP = 10_000
CREDIT = 64

APP = """
from collections.abc import AsyncIterator
from symphony import Limits, Symphony

WORD = "x" * 96
app = Symphony(limits=Limits(ping_interval=None))
given = running = most = 0


@app.on("count")
async def count(data: int) -> AsyncIterator[str]:
    global given, running, most
    running += 1
    most = max(most, running)
    try:
        for _ in range(data):
            given += 1
            yield WORD
    finally:
        running -= 1


@app.on("report")
async def report() -> dict[str, int]:
    return {
        "given": given,
        "running": running,
        "most": most,
        "sockets": len(app._core.node.sockets),
        "slow": app.stats.slow_consumers,
        "dropped": app.stats.dropped_frames,
    }


app.run(port=0, log_level="error")
"""

ITEM = b'{"item":1,"data":"%s"}' % WORD.encode()
END = b'{"end":1}'
FRAME = bytes((0x81, len(ITEM))) + ITEM
LAST = bytes((0x81, len(END))) + END


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Running]:
    file = tmp_path / "app.py"
    file.write_text(APP)
    async with start(file) as server:
        yield server


def said(**frame: Any) -> bytes:
    return text(json.dumps(frame))


async def hear(client: RawClient) -> Any:
    async with asyncio.timeout(20):
        return json.loads(await client.message())


async def report(control: RawClient) -> dict[str, int]:
    await control.send(said(event="report", id=1))
    return (await hear(control))["data"]


async def stopped(control: RawClient) -> int:
    """Wait until no generator gives anything any more; return how much they gave."""
    # Not an event: a server that waits for its clients does not say that it will give no more.
    earlier = 0
    async with asyncio.timeout(20):
        while not (earlier and earlier == (await report(control))["given"]):
            earlier = (await report(control))["given"]
            await asyncio.sleep(0.2)
    return earlier


async def become(control: RawClient, **expected: int) -> dict[str, int]:
    async with asyncio.timeout(20):
        # Each look is a round trip.
        while expected.items() - (now := await report(control)).items():
            pass
    return now


async def read_all(client: RawClient, pid: int, count: int, *, credit: int | None) -> int:
    """Read a stream in small bites, granting as a client does; return the most memory of the server."""
    total = count * len(FRAME) + len(LAST)
    got, most, granted = 0, 0, 0 if credit is None else credit
    bites, rest = 0, b""
    while got < total:
        data = await client.reader.read(2048)
        assert data, f"ended after {got // len(FRAME)} items"
        got += len(data)
        rest = rest[-len(FRAME + LAST) :] + data
        taken = got // len(FRAME)
        if credit is not None and granted - taken <= credit // 2:
            # One more than there are, or the end would not come.
            await client.send(said(grant=1, credit=credit - (granted - taken)))
            granted = taken + credit
        bites += 1
        if bites % 50 == 0:
            most = max(most, resident_bytes(pid))
            # Others have their turn, and the server goes ahead as far as it may.
            await asyncio.sleep(0)
    assert got == total
    assert rest.endswith(FRAME + LAST)
    return max(most, resident_bytes(pid))


@pytest.mark.timeout(90)
@pytest.mark.parametrize("credit", [None, CREDIT])
async def test_a_long_stream_to_a_slow_reader_take_no_memory(tmp_path: Path, credit: int | None):
    extra = {} if credit is None else {"credit": credit}
    async with serving(tmp_path) as server, connect(server.url) as control:
        pid = server.process.pid
        async with connect(server.url) as warm:
            await warm.send(said(event="count", data=WARM_UP, id=1))
            await read_all(warm, pid, WARM_UP, credit=None)
        before = resident_bytes(pid)
        async with connect(server.url, buffer=4096) as client:
            await client.send(said(event="count", data=ITEMS, id=1, **extra))
            given = await stopped(control) - WARM_UP
            # Nothing was read yet: all credit is used, or all buffers are full.
            assert given < ITEMS / 2 if credit is None else given == credit
            assert resident_bytes(pid) - before < 4 * MIB
            most = await read_all(client, pid, ITEMS, credit=credit)
            assert most - before < 4 * MIB
            now = await become(control, running=0)
            assert now["given"] == WARM_UP + ITEMS
            assert now["slow"] == now["dropped"] == 0


@pytest.mark.timeout(60)
async def test_a_thousand_streams_of_one_socket_run_at_once_and_each_comes_whole(tmp_path: Path):
    async with serving(tmp_path) as server, connect(server.url) as control, connect(server.url) as client:
        pid = server.process.pid
        before = resident_bytes(pid)
        await client.send(*(said(event="count", data=50, id=id, credit=1) for id in range(1000)))
        begun = Counter([(await hear(client))["item"] for _ in range(1000)])
        assert begun == Counter(range(1000))
        assert (await report(control))["running"] == 1000
        assert resident_bytes(pid) - before < 1000 * 20 * 1024
        await client.send(said(event="count", data=50, id=1000))
        refused = await hear(client)
        assert (refused["error"], refused["data"]["code"]) == (1000, "too_many")
        # Other events are not held up by a thousand that wait.
        await client.send(said(event="report", id=2000))
        assert (await hear(client))["reply"] == 2000
        await client.send(*(said(grant=id, credit=100) for id in range(1000)))
        got: Counter[int] = Counter()
        ended: list[int] = []
        while len(ended) < 1000:
            frame = await hear(client)
            if "end" in frame:
                ended.append(frame["end"])
                assert got[frame["end"]] == 49
            else:
                got[frame["item"]] += 1
        assert sorted(ended) == list(range(1000))
        now = await become(control, running=0)
        assert (now["given"], now["most"], now["dropped"]) == (50_000, 1000, 0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["cancelled", "cut off"])
async def test_a_thousand_endless_streams_are_closed_when_nobody_wants_them(tmp_path: Path, how: str):
    """None of their generators ever waits."""
    async with serving(tmp_path) as server, connect(server.url) as control:
        async with connect(server.url) as client:
            await client.send(*(said(event="count", data=10**9, id=id) for id in range(1000)))
            await become(control, running=1000)
            if how == "cancelled":
                cancels = client.in_background(client.send(*(said(cancel=id) for id in range(1000))))
                over = 0
                while over < 1000:
                    over += "error" in await hear(client)
                await cancels
            else:
                client.reset()
        now = await become(control, running=0, sockets=1)
        assert now["slow"] == 0


@pytest.mark.timeout(60)
async def test_ten_streams_on_each_of_a_hundred_sockets_are_independent(tmp_path: Path):
    async def read(client: RawClient) -> None:
        """Take the rest of all ten, whatever others do."""
        got: Counter[int] = Counter()
        await client.send(*(said(grant=id, credit=200) for id in range(10)))
        ends = 0
        while ends < 10:
            frame = await hear(client)
            ends += "end" in frame
            if "item" in frame:
                got[frame["item"]] += 1
        assert got == Counter(dict.fromkeys(range(10), 99))

    async with serving(tmp_path) as server, connect(server.url) as control, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(server.url)) for _ in range(100)]
        for client in clients:
            await client.send(*(said(event="count", data=100, id=id, credit=1) for id in range(10)))
        for client in clients:
            assert {(await hear(client))["item"] for _ in range(10)} == set(range(10))
        assert (await report(control))["running"] == 1000
        for client in clients[::2]:
            client.reset()
        await become(control, running=500, sockets=51)
        await asyncio.gather(*(read(client) for client in clients[1::2]))
        now = await become(control, running=0)
        assert now["given"] == 50 * 10 * 1 + 50 * 10 * 100
