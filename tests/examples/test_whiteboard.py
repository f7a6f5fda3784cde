import asyncio
import os
import shutil
import signal
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Map, create_sync_message, create_update_message, handle_sync_message

from support.clients import connect
from support.examples import EXAMPLES, load, running, served
from support.fleets import workers
from support.process import outcome
from symphony.testing import TestClient

NAME = "ws/whiteboard.py"
PAGE = Path(__file__).with_name("whiteboard.mjs")
PROVIDER = Path(__file__).parents[2] / "clients" / "javascript" / "node_modules" / "y-websocket"

needs_provider = pytest.mark.skipif(
    (shutil.which("node") is None or not PROVIDER.exists()) and os.environ.get("CI") != "true",
    reason="y-websocket is not installed in clients/javascript",
)


@pytest.fixture
def app() -> Any:
    return load(NAME).app


@needs_provider
async def test_it_serves_an_unchanged_provider_of_yjs() -> None:
    async with running(NAME) as server:
        code, output, errors = await outcome("node", str(PAGE), server.url)
        assert (code, output, errors) == (0, "done\n", "")


@needs_provider
@pytest.mark.timeout(120)
async def test_several_workers_serve_one_board_to_unchanged_providers() -> None:
    """The providers are refused until they meet the home of the board, and again when that is replaced."""
    async with workers(EXAMPLES / NAME, 2) as fleet:
        program = Path(__file__).with_name("whiteboard_workers.mjs")
        node = await asyncio.create_subprocess_exec(
            "node", str(program), fleet.url, "6", stdin=PIPE, stdout=PIPE, stderr=STDOUT
        )
        assert node.stdin is not None
        assert node.stdout is not None
        try:
            for round, replaced in enumerate((None, *fleet.first), 1):
                if replaced is not None:
                    os.kill(replaced, signal.SIGTERM)
                node.stdin.write(b"edit\n")
                shown = (await node.stdout.readline()).decode()
                assert shown == f"{round}\n", shown + (await node.stdout.read()).decode()
            node.stdin.write(b"end\n")
            assert await node.wait() == 0
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()


async def test_a_client_that_comes_later_gets_the_document(app: Any) -> None:
    async with TestClient(app) as client:
        mine = Doc()
        mine["shapes"] = Map({"1": "circle"})
        async with client.connect("/boards/plan") as ann, client.connect("/boards/plan") as ben:
            for each in (ann, ben):
                await each.receive_bytes()
            await ann.send(create_update_message(mine.get_update()))
            await ben.receive_bytes()
            # The sender has it already.
            await ann.nothing_more()
        async with client.connect("/boards/plan") as cleo:
            asked = await cleo.receive_bytes()
            theirs = Doc()
            assert handle_sync_message(asked[1:], theirs) is not None
            await cleo.send(create_sync_message(theirs))
            handle_sync_message((await cleo.receive_bytes())[1:], theirs)
            assert theirs.get("shapes", type=Map).to_py() == {"1": "circle"}


@pytest.mark.parametrize(
    "message",
    [
        b"\x00",
        b"\x00\x00",
        b"\x00\x00\x03\xff\xff\xff",
        b"\x00\x02\x05abc",
        b"\x00\x02\x04\xff\xff\xff\xff",
        b"\x00\x02\x80\x80",
        b"\x01",
        b"\x01\x01",
        b"\x01\x05\x01\x01\x01\x01x",
    ],
)
async def test_what_yjs_cannot_read_closes_the_connection_and_no_other(message: bytes) -> None:
    async with (
        served(NAME) as url,
        connect(f"{url}/boards/plan") as ann,
        connect(f"{url}/boards/plan") as ben,
    ):
        for each in (ann, ben):
            await each.recv()
        await ann.send(message)
        await ann.wait_closed()
        assert (ann.close_code, ann.close_reason) == (1008, "not a message of Yjs")
        document = Doc()
        await ben.send(create_sync_message(document))
        assert await ben.recv()


async def test_text_is_refused() -> None:
    async with served(NAME) as url, connect(f"{url}/boards/plan") as ann:
        await ann.recv()
        await ann.send("hi")
        await ann.wait_closed()
        assert ann.close_code == 1003
