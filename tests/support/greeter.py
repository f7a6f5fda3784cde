"""A small app in a file, for tests of the command line."""

from pathlib import Path

from support.clients import connect

GREETER = """
from symphony import Socket, Symphony

app = Symphony()

@app.on_connect
async def greet(socket: Socket) -> None:
    await socket.send("{greeting}")
"""


def write_greeter(folder: Path, greeting: str = "hello") -> Path:
    path = folder / "chat_app.py"
    path.write_text(GREETER.format(greeting=greeting))
    return path


async def greeting(url: str) -> str | bytes:
    async with connect(url) as client:
        return await client.recv()
