"""The clients among the examples, as processes, and the server that they talk to."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.clients import Client, connect, refused
from support.examples import EXAMPLES, load, running
from support.process import start
from symphony.testing import TestClient

APP = "clients/app.py"
CLIENTS = EXAMPLES / "clients"
PYTHON = [sys.executable, "-W", "error", str(CLIENTS / "python_client.py")]
# The flag is for Node 20; later ones have a WebSocket without it.
NODE = ["node", "--experimental-websocket", str(CLIENTS / "node_client.mjs")]
WS = EXAMPLES.parent / "clients" / "javascript" / "node_modules" / "ws"

needs_node = pytest.mark.skipif(
    shutil.which("node") is None and os.environ.get("CI") != "true", reason="there is no Node"
)
each_client = pytest.mark.parametrize(
    ("command", "choice"),
    [pytest.param(PYTHON, "tea", id="python"), pytest.param(NODE, "coffee", id="node", marks=needs_node)],
)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Speaker:
    """A client as a process, line by line."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self) -> str:
        """Return its next line, those of its state left out."""
        assert self.process.stdout is not None
        while True:
            async with asyncio.timeout(10):
                line = (await self.process.stdout.readline()).decode()
            assert line, "it has ended"
            if not line.startswith("("):
                return line.rstrip("\n")

    async def state(self, state: str) -> None:
        """Wait until it is in a state."""
        assert self.process.stdout is not None
        async with asyncio.timeout(10):
            while (line := await self.process.stdout.readline()) != f"({state})\n".encode():
                assert line, "it has ended"

    async def end(self) -> tuple[int | None, str, str]:
        """Wait until it has ended: exit code, what is left of its output, and its errors."""
        async with asyncio.timeout(10):
            output, errors = await self.process.communicate()
        return self.process.returncode, output.decode(), errors.decode()


def _as_from_a_terminal() -> None:
    """Let Ctrl+C count.

    What a script starts in the background ignores it, and hands that down: tests
    run so once hung here, for Python then leaves it ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def speaking(command: list[str], url: str, *arguments: str) -> AsyncIterator[Speaker]:
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "URL": f"{url}/chat"},
        preexec_fn=_as_from_a_terminal,
    )
    try:
        yield Speaker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(10):
        return json.loads(await client.recv())


@each_client
async def test_a_client_does_all_that_it_shows_and_ends_in_order(command: list[str], choice: str) -> None:
    async with running(APP) as server, connect(f"{server.url}/chat?name=Bob") as bob:
        async with speaking(command, server.url, "Ada", "hello, all") as ada:
            assert await ada.line() == "here: Bob, Ada"
            assert await hear(bob) == {"event": "said", "data": {"name": "Ada", "text": "hello, all"}}
            assert await ada.line() == "Ada: hello, all"
            question = await hear(bob)
            assert question["event"] == "vote"
            assert question["data"] == {"question": "Tea or coffee?", "options": ["tea", "coffee"]}
            await say(bob, reply=question["id"], data="tea")
            assert await ada.line() == f"Tea or coffee? {choice}!"
            shown = await ada.line()
            if choice == "tea":
                assert shown == "votes: {'tea': 2}"
            else:
                assert shown == "votes: { tea: 1, coffee: 1 }"
            assert [await ada.line() for _ in range(2)] == [
                "  Tyger Tyger, burning bright,",
                "  In the forests of the night;",
            ]
            await say(bob, event="say", data={"text": "good bye"})
            assert await ada.line() == "Bob: good bye"
            ada.process.send_signal(signal.SIGINT)
            code, output, errors = await ada.end()
            assert (code, output.split(), errors) == (0, ["(closed)", "Bye!"], "")
        await say(bob, event="who", id=1)
        while (answer := await hear(bob)).get("reply") is None:
            pass
        assert answer == {"reply": 1, "data": ["Bob"]}


@each_client
async def test_a_client_comes_back_when_the_server_does(command: list[str], choice: str, port: int) -> None:
    env = {"PORT": str(port)}
    async with start(EXAMPLES / APP, env=env) as server, speaking(command, server.url, "Ada") as ada:
        while not (await ada.line()).endswith(";"):
            pass
        server.signal(signal.SIGKILL)
        await server.end()
        await ada.state("waiting")
        async with start(EXAMPLES / APP, env=env) as server:
            await ada.state("open")
            async with connect(f"{server.url}/chat?name=Bob") as bob:
                await say(bob, event="say", data={"text": "there you are"})
                assert await ada.line() == "Bob: there you are"


@each_client
async def test_a_client_that_is_refused_says_so(command: list[str], choice: str) -> None:
    async with running(APP) as server, speaking(command, f"{server.url}/nowhere", "Ada") as ada:
        code, _, errors = await ada.end()
        assert code == 1
        assert "4404" in errors
        assert "Traceback" not in errors


@needs_node
@pytest.mark.skipif(not WS.exists(), reason="`ws` is not installed in clients/javascript")
async def test_the_client_for_node_takes_ws_where_node_has_no_websocket(tmp_path: Path) -> None:
    for file in ("examples/clients/node_client.mjs", "clients/javascript/symphony.js"):
        (tmp_path / file).parent.mkdir(parents=True)
        shutil.copy(EXAMPLES.parent / file, tmp_path / file)
    (tmp_path / "clients/javascript/package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(WS.parent)
    bare = tmp_path / "bare.mjs"
    bare.write_text('delete globalThis.WebSocket; await import("./examples/clients/node_client.mjs");')
    async with running(APP) as server, speaking(["node", str(bare)], server.url, "Ada") as ada:
        # Arguments of a script begin behind its name, here as there.
        assert await ada.line() == "here: Ada"
        assert await ada.line() == "Tea or coffee? coffee!"


async def test_the_server_counts_whoever_votes_for_what_there_is() -> None:
    app: Any = load(APP).app
    poll = {"question": "Tea or coffee?", "options": ["tea", "coffee"]}
    async with (
        TestClient(app) as client,
        client.connect("/chat?name=ada") as ada,
        client.connect("/chat?name=bob") as bob,
        client.connect("/chat?name=cleo"),
        client.connect("/chat?name=dan") as dan,
    ):
        ada.on("vote", lambda: "tea")
        bob.on("vote", lambda: "gin")
        never = asyncio.get_running_loop().create_future()

        @dan.on("vote")
        async def vote() -> str:
            return await never

        counting = asyncio.ensure_future(ada.request("poll", poll, timeout=60))
        await client.clock.advance(6)
        # Cleo has no handler for it, and Dan was too slow.
        assert await counting == {"tea": 1}


async def test_the_server_wants_a_name() -> None:
    async with running(APP) as server:
        refusal = await refused(f"{server.url}/chat")
        assert refusal.status == 400
        assert "name" in refusal.message
