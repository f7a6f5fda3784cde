"""Measures the hot path in process: no network, no client, no other process.

    make bench-micro                          # this tree
    make bench-micro AGAINST=../before        # two trees, in interleaved runs

What is timed runs from the message that a transport hands over to the block
that it is given to write. The figures are CPU time, so that other work on
the machine disturbs them little, and the fastest of 180 parts of the work (9 processes,
20 parts each): a virtual machine changes its speed by a third for seconds at a time,
which medians of 9 runs did not even out (one tree against itself: up to 40 %). They are
for comparing two versions of the code on one machine; `make bench` compares with
other servers.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RUNS = 9
ROOT = Path(__file__).parents[1]
PARTS = 20
ECHOES, REQUESTS, PUBLICATIONS, MEMBERS, IN_FLIGHT = 204_800, 102_400, 1_600, 1_000, 16


def symphony_of_tree() -> tuple[Any, Any, Any]:
    """Return the app's class, the outbox and the native encoding, wherever this tree has them."""
    from symphony import Symphony
    from symphony.transport.native.encoding import PLAIN

    try:
        from symphony.outgoing.outbox import Outbox
    except ImportError:
        from symphony.transport.outbox import Outbox  # type: ignore[import-not-found,no-redef]
    return Symphony, Outbox, PLAIN


class Connection:
    """A transport's connection that throws away what it is given to write."""

    latency = None
    session: Any

    def __init__(self, outbox: Any, encoding: Any) -> None:
        self.outbox = outbox(asyncio.get_running_loop(), self.write, encoding.join)
        self.encoding = encoding
        self.written = 0

    def write(self, block: Any) -> None:
        self.written += 1

    def configure(self, profile: Any) -> None:
        limits = profile.limits
        self.outbox.configure(
            limit=limits.max_outbox_bytes,
            high=limits.high_water_bytes,
            low=limits.low_water_bytes,
            overflow=None,
        )

    def accept(self, subprotocol: str | None) -> None:
        self.outbox.unblock()

    def refuse(self, status: int, headers: Any, body: bytes) -> None:
        raise AssertionError(f"refused with {status}: {body!r}")

    def close(self, code: int, reason: str) -> None:
        self.abort()

    def abort(self) -> None:
        from symphony import Close

        self.outbox.seal()
        self.session.closed(Close(1000, "", clean=True))

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def opened(app: Any, path: str, outbox: Any, encoding: Any) -> tuple[Any, Connection]:
    """Return an open session, and its connection."""
    node = app._core.node if hasattr(app, "_core") else app.node
    connection = Connection(outbox, encoding)
    scope = {
        "type": "websocket",
        "path": path,
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "scheme": "ws",
        "root_path": "",
    }
    connection.session = session = node.connect(scope, connection)
    while not session.socket.opened:  # noqa: ASYNC110
        await asyncio.sleep(0)
    # The lane is idle some turns later.
    for _ in range(5):
        await asyncio.sleep(0)
    return session, connection


async def measured() -> dict[str, float]:
    """Return the nanoseconds of each kind of work."""
    symphony, outbox, encoding = symphony_of_tree()
    app = symphony()

    @app.route("/echo").on_message
    async def echo(message: str) -> str:
        return message

    add = app.route("/add")

    @add.on("add")
    async def total(data: dict[str, int]) -> int:
        return data["a"] + data["b"]

    @app.route("/room").on_connect
    async def enter(socket: Any) -> None:
        await socket.join("room")

    # Annotations are texts here, and `Any` is not how a handler gets its socket.
    from symphony import Socket

    enter.__annotations__["socket"] = Socket
    figures: dict[str, float] = {}
    async with app.lifespan():
        session, connection = await opened(app, "/echo", outbox, encoding)
        figures["echo"] = await timed(session.received, ["x" * 64] * ECHOES, connection)
        assert connection.written >= ECHOES // IN_FLIGHT

        session, connection = await opened(app, "/add", outbox, encoding)
        requests = [f'{{"event":"add","data":{{"a":{id},"b":2}},"id":{id}}}' for id in range(1, REQUESTS + 1)]
        figures["typed request"] = await timed(session.received, requests, connection)
        assert connection.written >= REQUESTS // IN_FLIGHT

        members = [await opened(app, "/room", outbox, encoding) for _ in range(MEMBERS)]
        room = app.room("room")
        parts: list[int] = []
        for _ in range(PARTS):
            began = time.process_time_ns()
            for _ in range(PUBLICATIONS // IN_FLIGHT // PARTS):
                for _ in range(IN_FLIGHT):
                    room.send("x" * 64)
                await asyncio.sleep(0)
            parts.append(time.process_time_ns() - began)
        figures[f"publication to {MEMBERS:,}"] = min(parts) * PARTS / PUBLICATIONS
        assert all(connection.written >= PUBLICATIONS // IN_FLIGHT for _, connection in members)
    return figures


async def timed(received: Any, messages: list[Any], connection: Connection) -> float:
    """Return the nanoseconds of one message, flushed as a read buffer of 16 would be."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[float] = loop.create_future()
    outbox = connection.outbox

    def read() -> None:
        length = len(messages) // PARTS
        parts: list[int] = []
        for start in range(0, len(messages), length):
            began = time.process_time_ns()
            for index in range(start, start + length, IN_FLIGHT):
                outbox.corked = True
                for message in messages[index : index + IN_FLIGHT]:
                    received(message)
                outbox.flush()
            parts.append(time.process_time_ns() - began)
        finished.set_result(min(parts) / length)

    # In a callback of the loop, as a transport does it: no other task is current.
    loop.call_soon(read)
    return await finished


def run(tree: Path) -> dict[str, float]:
    """Measure once, in a process of its own that imports *tree*."""
    python = tree / ".venv" / "bin" / "python"
    command = [str(python if python.exists() else sys.executable), str(Path(__file__)), "--once"]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONHASHSEED": "0"}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another tree, to be measured in turn with this one")
    parser.add_argument("--once", action="store_true", help="measure what is imported, once, as JSON")
    options = parser.parse_args()
    if options.once:
        gc.disable()
        json.dump(asyncio.run(measured()), sys.stdout)
        return
    trees = {"this": ROOT} if options.against is None else {"before": options.against.resolve(), "this": ROOT}
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(RUNS):
        for name, tree in trees.items():
            figures[name].append(run(tree))
    print(f"Nanoseconds, the fastest part of {RUNS} runs" + (" in turn" if len(trees) > 1 else ""))
    for row in figures["this"][0]:
        fastest = {name: min(each[row] for each in runs) for name, runs in figures.items()}
        text = "  ".join(f"{name} {figure:>10,.0f}" for name, figure in fastest.items())
        change = f"  {100 * (fastest['this'] / fastest['before'] - 1):+.1f} %" if "before" in fastest else ""
        print(f"{row:24} {text}{change}")


if __name__ == "__main__":
    main()
