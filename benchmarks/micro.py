"""Measures the hot path in process: no network, no client, no other process.

    make bench-micro                          # this tree
    make bench-micro AGAINST=../before        # two trees, in interleaved runs

What is timed runs from the message that a transport hands over to the block
that it is given to write, in CPU time. A virtual machine changes its speed by a third
for seconds at a time, so two trees are compared part by part: a process of each tree
does one part of about 20 ms, in turn, and the change is the median over all pairs of
parts. Each of 9 pairs of processes has another hash seed, since the layout of the memory
differs with it. The figures compare two versions of the code on one machine;
`make bench` compares with other servers.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

RUNS = 9
ROOT = Path(__file__).parents[1]
PARTS = 20
ECHOES, REQUESTS, PUBLICATIONS, MEMBERS, IN_FLIGHT = 10_240, 5_120, 1_600, 1_000, 16


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


async def serve() -> None:
    """Do one part of the work for each line of the input, and write its nanoseconds for one message."""
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
    async with app.lifespan():
        echoing = await opened(app, "/echo", outbox, encoding)
        adding = await opened(app, "/add", outbox, encoding)
        members = [await opened(app, "/room", outbox, encoding) for _ in range(MEMBERS)]
        room = app.room("room")
        requests = [f'{{"event":"add","data":{{"a":{id},"b":2}},"id":{id}}}' for id in range(1, REQUESTS + 1)]
        while row := sys.stdin.readline().strip():
            if row == "echo":
                figure = await received(*echoing, ["x" * 64] * ECHOES)
            elif row == "typed request":
                figure = await received(*adding, requests)
            else:
                figure = await published(room)
            print(figure, flush=True)
        assert all(connection.written > 0 for _, connection in (echoing, adding, *members))


async def received(session: Any, connection: Connection, messages: list[Any]) -> float:
    """Return the nanoseconds of one message, flushed as a read buffer of 16 would be."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[float] = loop.create_future()
    receive, outbox = session.received, connection.outbox

    def read() -> None:
        began = time.process_time_ns()
        for index in range(0, len(messages), IN_FLIGHT):
            outbox.corked = True
            for message in messages[index : index + IN_FLIGHT]:
                receive(message)
            outbox.flush()
        finished.set_result((time.process_time_ns() - began) / len(messages))

    # In a callback of the loop, as a transport does it: no other task is current.
    loop.call_soon(read)
    return await finished


async def published(room: Any) -> float:
    """Return the nanoseconds of one publication."""
    began = time.process_time_ns()
    for _ in range(PUBLICATIONS // IN_FLIGHT):
        for _ in range(IN_FLIGHT):
            room.send("x" * 64)
        await asyncio.sleep(0)
    return (time.process_time_ns() - began) / PUBLICATIONS


class Tree:
    """A process that does parts of the work with the code of one tree.

    Args:
        path: The tree.
        seed: Its hash seed.
    """

    def __init__(self, path: Path, seed: int) -> None:
        python = path / ".venv" / "bin" / "python"
        command = [str(python if python.exists() else sys.executable), str(Path(__file__)), "--serve"]
        environment = {**os.environ, "PYTHONPATH": str(path / "src"), "PYTHONHASHSEED": str(seed)}
        self._process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def part(self, row: str) -> float:
        """Return the nanoseconds of one message of a part."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(row, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process.

        Raises:
            RuntimeError: It failed.
        """
        self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("the measured process failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another tree, to be measured in turn with this one")
    parser.add_argument("--serve", action="store_true", help="measure what is imported, part by part")
    options = parser.parse_args()
    if options.serve:
        gc.disable()
        asyncio.run(serve())
        return
    paths = [ROOT] if options.against is None else [options.against.resolve(), ROOT]
    rows = ("echo", "typed request", f"publication to {MEMBERS:,}")
    # Of each row, the figures of each part: one for each tree.
    figures: dict[str, list[list[float]]] = {row: [] for row in rows}
    for seed in range(RUNS):
        trees = [Tree(path, seed) for path in paths]
        try:
            for row in rows:
                for part in range(PARTS + 1):
                    # Whoever is first has the colder caches, if the other tree shares them.
                    order = trees if part % 2 else trees[::-1]
                    pair = {id(tree): tree.part(row) for tree in order}
                    # The first part warms up.
                    if part:
                        figures[row].append([pair[id(tree)] for tree in trees])
        finally:
            for tree in trees:
                tree.close()
    print(f"Nanoseconds, medians of {RUNS * PARTS} parts")
    for row, parts in figures.items():
        *before, this = (median(column) for column in zip(*parts, strict=True))
        text = "".join(f"before {figure:>8,.0f}  " for figure in before) + f"this {this:>8,.0f}"
        change = f"  {100 * (median(new / old for old, new in parts) - 1):+.1f} %" if before else ""
        print(f"{row:24} {text}{change}")


if __name__ == "__main__":
    main()
