"""A thousand clients when their server stops."""

import asyncio
import signal
from pathlib import Path

import pytest

from support.crowd import crowd
from support.process import start
from support.raw import text

pytestmark = pytest.mark.alone

CLIENTS = 1_000

APP = """
import asyncio
from symphony import Close, Limits, Socket, Symphony

app = Symphony(limits=Limits(notice_time=None, {limits}))
left: list[int] = []


@app.on_connect
async def enter(socket: Socket) -> None:
    await socket.join("all")


@app.on_message
async def work(message: str) -> str:
    await asyncio.sleep(0.3)
    return message


@app.on_disconnect
async def leave(close: Close) -> None:
    await asyncio.sleep(0.01)
    left.append(close.code)


@app.on_shutdown
async def count() -> None:
    print("left", len(left), sorted(set(left)), flush=True)


app.run(port=0, log_level="error")
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.within("drain_time")
@pytest.mark.beyond("drain_time")
async def test_a_thousand_clients_are_sent_away_with_1012_spread_over_time(
    tmp_path: Path, number: signal.Signals
):
    """All at once they would all come back at once, to whatever takes over."""
    file = tmp_path / "app.py"
    file.write_text(APP.format(limits="drain_time=2"))
    async with start(file) as server, crowd(server.url, CLIENTS) as members:
        server.signal(number)
        await asyncio.gather(*(member.ended for member in members))
        assert {member.close_code for member in members} == {1012}
        times = sorted(member.closed_at for member in members if member.closed_at is not None)
        assert len(times) == CLIENTS
        spread = times[-1] - times[0]
        assert spread > 1
        # Not in two heaps either: each tenth of the time has its share.
        shares = [0] * 10
        for time in times:
            shares[min(int((time - times[0]) / spread * 10), 9)] += 1
        assert min(shares) > CLIENTS / 100
        async with asyncio.timeout(10):
            assert await server.end() == (0, [f"left {CLIENTS} [1012]"])


@pytest.mark.timeout(60)
async def test_a_thousand_running_handlers_finish_before_their_server_stops(tmp_path: Path):
    file = tmp_path / "app.py"
    file.write_text(APP.format(limits="drain_time=0.5"))
    ask = text("hi")
    async with start(file) as server, crowd(server.url, CLIENTS) as members:
        for member in members:
            member.transport.write(ask)
        await members[-1].reaches(1)
        for member in members:
            member.transport.write(ask)
        server.signal()
        await asyncio.gather(*(member.ended for member in members))
        assert {member.close_code for member in members} == {1012}
        assert {bytes(member.got[:4]) for member in members} == {b"\x81\x02hi"}
        async with asyncio.timeout(10):
            assert await server.end() == (0, [f"left {CLIENTS} [1012]"])


@pytest.mark.timeout(60)
@pytest.mark.beyond("close_timeout")
async def test_a_thousand_clients_that_do_not_answer_are_cut_off_in_the_end(tmp_path: Path):
    file = tmp_path / "app.py"
    file.write_text(APP.format(limits="drain_time=0.5, close_timeout=1"))
    async with start(file) as server, crowd(server.url, CLIENTS) as members:
        for member in members:
            member.answers = False
        server.signal()
        await asyncio.gather(*(member.ended for member in members))
        assert {member.close_code for member in members} == {1012}
        async with asyncio.timeout(10):
            assert await server.end() == (0, [f"left {CLIENTS} [1012]"])


@pytest.mark.timeout(60)
async def test_a_second_signal_ends_a_thousand_waits_at_once(tmp_path: Path):
    file = tmp_path / "app.py"
    file.write_text(APP.format(limits="drain_time=30, close_timeout=30, finish_timeout=30"))
    async with start(file) as server, crowd(server.url, CLIENTS) as members:
        for member in members:
            member.answers = False
        server.signal()
        async with asyncio.timeout(10):
            # The first in line is closed first.
            await members[0].reaches(1)
            server.signal()
            await asyncio.gather(*(member.ended for member in members))
            code, _ = await server.end()
        assert code in (-15, 143)
