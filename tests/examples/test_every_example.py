"""What holds for each example, run as a process."""

import asyncio
import re
import sys
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from support.clients import connect
from support.examples import EXAMPLES, running
from support.process import launch
from symphony import Symphony
from symphony.cli.finding import load, locate

NAMES = sorted(
    str(path.relative_to(EXAMPLES))
    for path in EXAMPLES.glob("ws/**/*.py")
    # What is in `scaling` runs the demo.
    if not {"__pycache__", "scaling"} & {*path.parts}
)
PATHS = {
    "ws/middleware.py": "/?token=sesame",
    "ws/rooms.py": "/rooms/lobby?user=alice",
    "ws/game.py": "/lobby?user=alice",
    "ws/history.py": "/?user=alice",
    "ws/presence.py": "/?user=alice",
    "ws/private_messages.py": "/?user=alice",
    "ws/ticker.py": "/markets/metals",
    "ws/whiteboard.py": "/boards/plan",
}
# What an example may import beside `from symphony import …`: it is public as well.
MODULES = {"ws/custom_protocol.py": {"symphony.protocol.envelopes", "symphony.protocol.jsonrpc"}}


def test_all_are_here() -> None:
    assert NAMES == [
        "ws/custom_protocol.py",
        "ws/echo_server.py",
        "ws/game.py",
        "ws/history.py",
        "ws/middleware.py",
        "ws/plugins/basic_plugin.py",
        "ws/presence.py",
        "ws/private_messages.py",
        "ws/requests.py",
        "ws/rooms.py",
        "ws/routing.py",
        "ws/simple_server.py",
        "ws/streaming.py",
        "ws/ticker.py",
        "ws/whiteboard.py",
    ]


@pytest.mark.parametrize("name", NAMES)
async def test_it_says_where_it_listens_and_stops_in_order_with_a_client_connected(name: str) -> None:
    async with running(name) as server:
        assert server.address.startswith("http://127.0.0.1:")
        async with connect(server.url + PATHS.get(name, "/")) as client:
            server.signal()
            async with asyncio.timeout(10):
                with suppress(ConnectionClosed):
                    # A client whose queue is full would not notice the close.
                    while True:
                        await client.recv()
                code, _ = await server.end()
        assert code == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_finds_its_app(name: str) -> None:
    assert isinstance(load(locate(str(EXAMPLES / name))), Symphony)


async def test_the_command_line_runs_one_as_well() -> None:
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", str(EXAMPLES / NAMES[0]))
    async with launch(*command, "--port", "0") as server:
        async with connect(server.url) as client:
            # Some say what they have and close at once, so nothing is asked of them.
            assert client.response
            assert client.response.status_code == 101
        server.signal()
        code, _ = await server.end()
        assert code == 0


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_host_and_port_from_the_environment_and_uses_the_public_api_only(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert text.endswith(
        'if __name__ == "__main__":\n'
        '    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))\n'
    )
    assert set(re.findall(r"from (symphony\.\S+)", text)) == MODULES.get(name, set())
    assert "import symphony" not in text


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_tells_about_it(name: str) -> None:
    assert name.removeprefix("ws/") in (EXAMPLES / "ws" / "README.md").read_text()
