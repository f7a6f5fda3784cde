"""What the README shows of wscat is what the examples answer."""

import asyncio
import re
from contextlib import AsyncExitStack

import pytest

from support.clients import Client, connect, refused
from support.examples import EXAMPLES, served
from support.pages import Block, blocks

README = EXAMPLES / "ws" / "README.md"
HEADING = re.compile(r"### `(\S+)`")
# Where a console that does not begin with its command is connected.
PATHS = {"echo_server.py": "/json"}


def example(block: Block) -> str:
    """Return the example under whose heading a block stands; the first ones are about the first."""
    above = README.read_text().splitlines()[: block.line]
    return next(
        (found[1] for line in reversed(above) if (found := HEADING.fullmatch(line))), "simple_server.py"
    )


CONSOLES = [
    block
    for block in blocks(README)
    if block.language == "console" and block.text.startswith(("$ wscat", "> "))
]


def test_the_consoles_are_found() -> None:
    assert {example(block) for block in CONSOLES} == {
        "custom_protocol.py",
        "echo_server.py",
        "middleware.py",
        "requests.py",
        "simple_server.py",
        "streaming.py",
    }


@pytest.mark.parametrize("block", CONSOLES, ids=str)
async def test_a_console_shows_what_comes(block: Block) -> None:
    name = example(block)
    async with served(f"ws/{name}") as origin, AsyncExitStack() as stack:
        client: Client | None = None
        if not block.text.startswith("$ "):
            client = await stack.enter_async_context(connect(origin + PATHS[name]))
        for line in block.text.splitlines():
            if line.startswith("$ "):
                url = line.split()[-1].strip('"').replace("ws://127.0.0.1:8080", origin)
                if "error: " in block.text:
                    refusal = await refused(url)
                    assert f"error: Unexpected server response: {refusal.status}" in block.text
                    return
                client = await stack.enter_async_context(connect(url))
                continue
            assert client is not None
            if line.startswith("> "):
                await client.send(line[2:])
            else:
                async with asyncio.timeout(5):
                    assert f"< {await client.recv()}" == line
