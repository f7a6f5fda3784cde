"""What clients and proxies see of a server that gets SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from support.clients import get
from support.fleets import workers
from support.process import Running, start
from support.raw import Response, connect, dial, handshake, text
from symphony import Limits

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

APP = """
from symphony import Limits, Symphony

app = Symphony(limits=Limits(notice_time={notice_time!r}, drain_time=0.2, finish_timeout=1))


@app.on_connect
async def greet(socket) -> None:
    await socket.send("hello")


@app.on_message
async def echo(message: str) -> str:
    return message


if __name__ == "__main__":
    app.run(port=0)
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(notice_time: float | None) -> Path:
        file = tmp_path / "retiring_app.py"
        file.write_text(APP.format(notice_time=notice_time))
        return file

    return write


async def not_ready(url: str) -> None:
    """Return when the server says that it is not ready; it is asked as a proxy asks."""
    while (answer := await get(f"{url}/_symphony/ready")).status_code == 200:
        pass
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "broker": "ok", "stopping": True}


async def of_a_browser(url: str) -> Response:
    """Return the answer to a handshake whose client could be told more by a close frame.

    No proxy would give it to another server after a 101.
    """
    async with await dial(url) as browser:
        await browser.send(handshake(sec_websocket_protocol="symphony.v1.json, symphony.refuse"))
        return await browser.response()


@pytest.mark.within("notice_time")
@pytest.mark.parametrize("count", [1, 2])
async def test_it_first_refuses_new_clients_so_that_proxies_take_another_server(write, count: int) -> None:
    file = write(600.0)
    running = start(file) if count == 1 else workers(file, count)
    async with running as server:
        process: Running = server if isinstance(server, Running) else server.running
        async with connect(server.url) as client:
            assert await client.message() == "hello"
            process.signal(signal.SIGTERM)
            await not_ready(server.url)
            assert (await get(f"{server.url}/_symphony/live")).status_code == 200
            # The workers do not look at the same moment.
            while (refusal := await of_a_browser(server.url)).status == 101:
                pass
            assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
            # Those that are there do not notice anything yet.
            await client.send(text("x"))
            assert await client.message() == "x"
            process.signal(signal.SIGTERM)
            code, _ = await process.end()
            assert code in (-signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.beyond("notice_time")
@pytest.mark.parametrize("count", [1, 2])
async def test_then_it_stops_in_order(write, count: int) -> None:
    file = write(0.01)
    running = start(file) if count == 1 else workers(file, count)
    async with running as server:
        process: Running = server if isinstance(server, Running) else server.running
        async with connect(server.url) as client:
            assert await client.message() == "hello"
            process.signal(signal.SIGTERM)
            assert (await client.frame()).code == 1012
        assert (await process.end())[0] == 0


async def test_ctrl_c_waits_for_no_proxy(write) -> None:
    async with start(write(600.0)) as server, connect(server.url) as client:
        assert await client.message() == "hello"
        server.signal(signal.SIGINT)
        assert (await client.frame()).code == 1012
        assert (await server.end())[0] == 0


async def test_a_server_whose_workers_are_replaced_stays_ready(write) -> None:
    """A probe reaches any worker, also the one that is about to leave."""
    async with workers(write(600.0), 2) as fleet:
        old, probed = set(fleet.first), 0
        replaced = asyncio.ensure_future(fleet.logged("All workers have been replaced"))
        os.kill(fleet.pid, signal.SIGHUP)
        while not replaced.done():
            answer = await get(f"{fleet.url}/_symphony/ready")
            assert answer.status_code == 200, answer.text
            probed += 1
        assert probed > 0
        assert not old & fleet.processes()
        fleet.running.signal(signal.SIGINT)


async def test_the_time_of_a_stop_contains_the_notice() -> None:
    assert Limits(notice_time=7.0).stop_time == pytest.approx(Limits(notice_time=None).stop_time + 7)
