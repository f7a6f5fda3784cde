"""`symphony run --reload`, as processes: a supervisor, and the server that it starts again."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.clients import Client, closed, connect
from support.greeter import GREETER, greeting, write_greeter
from support.process import Running, launch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_greeter(tmp_path)


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)


@asynccontextmanager
async def reloading(file: Path, name: str = "") -> AsyncIterator[tuple[Running, Client]]:
    """Serve with `--reload` in a session of its own, with a client that has been greeted."""
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", f"{file}{name}")
    async with launch(*command, "--port", "0", "--reload", own_session=True) as running:
        try:
            async with connect(running.url) as client:
                assert await client.recv() == "hello"
                yield running, client
        finally:
            # A supervisor that is killed would leave its server behind.
            if running.process.returncode is None:
                running.signal(signal.SIGTERM)
                await running.end()


async def test_an_edit_closes_with_1012_and_the_new_code_answers_on_the_same_port(file: Path) -> None:
    async with reloading(file) as (running, client):
        rewrite(file, GREETER.format(greeting="hello from the new code"))
        assert await closed(client) == (1012, "the server restarts")
        # Nobody is refused meanwhile: the port stays open.
        assert await greeting(running.url) == "hello from the new code"
        assert await running.line() == f"Symphony listens on {running.address} (stop it with Ctrl+C)"


async def test_a_factory_is_called_again_after_an_edit(file: Path) -> None:
    factory = GREETER.replace("app = Symphony()", "made = Symphony()").replace("@app", "@made")
    factory += "\ndef create_app() -> Symphony:\n    return made\n"
    rewrite(file, factory.format(greeting="hello"))
    async with reloading(file, ":create_app") as (running, client):
        rewrite(file, factory.format(greeting="hello from the new code"))
        await closed(client)
        assert await greeting(running.url) == "hello from the new code"


async def test_an_edit_that_breaks_the_file_is_survived(file: Path) -> None:
    async with reloading(file) as (running, client):
        rewrite(file, "print('broken', flush=True)\nraise ValueError")
        await closed(client)
        assert await running.line() == "broken"
        rewrite(file, GREETER.format(greeting="mended"))
        assert await greeting(running.url) == "mended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_supervisor_stops_both_in_order(file: Path, number: signal.Signals) -> None:
    async with reloading(file) as (running, client):
        running.signal(number)
        assert await closed(client) == (1012, "the server restarts")
        assert await running.end() == (0, [])


async def test_ctrl_c_lets_handlers_finish_though_both_processes_get_it(tmp_path: Path) -> None:
    """The supervisor's SIGTERM comes after the terminal's SIGINT and was taken for a second Ctrl+C."""
    file = tmp_path / "slow_app.py"
    slow = "import asyncio\n@app.on_message\nasync def work(message: str) -> str:\n"
    slow += "    await socket_of_the_test()\n    return 'done'\n"
    # The handler ends when both signals have come: the supervisor's is the second.
    slow += (
        "import signal\n"
        "from symphony.transport.native.stopping import Signals\n"
        "signals = []\n"
        "handle = Signals.handle\n"
        "def count(self, number, frame=None):\n"
        "    signals.append(number)\n"
        "    handle(self, number, frame)\n"
        "Signals.handle = count\n"
        "async def socket_of_the_test() -> None:\n"
        "    while len(signals) < 2:\n"
        "        await asyncio.sleep(0.01)\n"
    )
    rewrite(file, GREETER.format(greeting="hello") + slow)
    async with reloading(file) as (running, client):
        await client.send("go")
        os.killpg(running.process.pid, signal.SIGINT)
        assert await client.recv() == "done"
        assert await closed(client) == (1012, "the server restarts")
        assert await running.end() == (0, [])
