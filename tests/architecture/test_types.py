"""What type checkers and editors know of the API: one run of pyright over one program."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from symphony.errors import CODES, KnownCode

ROOT = Path(__file__).parents[2]

PROGRAM = """
# pyright: strict
from typing import Any, reveal_type

import symphony
from symphony import Reject, Socket, Symphony
from symphony.client import Pool, sync

app = Symphony()


@app.on("ask")
async def ask(socket: Socket) -> None:
    reveal_type(await socket.request("a", response_type=int))  # int
    reveal_type(await socket.request("a", response_type=int | None))  # int | None
    reveal_type(await socket.request("a", response_type=list[str]))  # list[str]
    reveal_type(await socket.request("a"))  # Any


async def use(client: symphony.Client) -> None:
    reveal_type(await client.request("a", response_type=int))  # int
    reveal_type(await client.request("a", response_type=int | None))  # int | None
    reveal_type(await client.request("a", response_type=dict[str, int]))  # dict[str, int]
    reveal_type(await client.request("a"))  # Any
    async for item in client.stream("a", response_type=int | str):
        reveal_type(item)  # int | str
    async for anything in client.stream("a"):
        reveal_type(anything)  # Any


async def use_pool(pool: Pool) -> None:
    reveal_type(await pool.request("a", response_type=int))  # int
    reveal_type(await pool.request("a", key="k"))  # Any
    async for item in pool.stream("a", response_type=int | str):
        reveal_type(item)  # int | str


Pool("ws://x", size=2, connect_timeout=3.0, max_queue=10)
Pool("ws://x", conect_timeout=3.0)  # error: reportCallIssue


def use_blocking(client: sync.Client) -> None:
    reveal_type(client.request("a", response_type=list[int]))  # list[int]
    reveal_type(client.request("a"))  # Any
    reveal_type(client.receive("a", response_type=int | None))  # int | None
    reveal_type(client.receive())  # Any
    for item in client.stream("a", response_type=int | str):
        reveal_type(item)  # int | str


sync.connect("ws://x", connect_timeout=3.0, unix=None)
sync.connect("ws://x", conect_timeout=3.0)  # error: reportCallIssue


@app.middleware("message")
async def note(socket: Socket, message: Any, call_next: Any) -> Any:
    return await call_next(socket, message)


class Guard:
    async def connect(self, socket: Socket, call_next: Any) -> None:
        await call_next(socket)


app.middleware(Guard())
app.middleware("mesage")  # error: reportArgumentType, reportCallIssue
app.middleware(object())  # error: reportArgumentType, reportCallIssue

Reject("not_found")
Reject("shop.sold_out")
Reject(404)  # error: reportArgumentType
"""


def test_the_types_are_what_editors_are_to_know(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [Path(sys.executable).with_name("pyright"), "--outputjson", "--pythonpath", sys.executable, program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[int, set[str]] = {}
    for each in json.loads(run.stdout)["generalDiagnostics"]:
        revealed = re.search(r'is "(.*)"$', each["message"]) if each["severity"] == "information" else None
        said = revealed[1] if revealed else f"error: {each.get('rule', each['message'])}"
        found.setdefault(each["range"]["start"]["line"], set()).add(said)
    expected: dict[int, set[str]] = {}
    for number, line in enumerate(PROGRAM.splitlines()):
        if "  # " in line:
            said = line.partition("  # ")[2]
            expected[number] = {said}
    lines = PROGRAM.splitlines()
    for number, said in found.items():
        assert number in expected, f"line {number}, {lines[number]!r}: {said}"
    for number, (said,) in ((number, tuple(said)) for number, said in expected.items()):
        if said.startswith("error: "):
            rules = {f"error: {rule}" for rule in said.removeprefix("error: ").split(", ")}
            assert found.get(number, set()) & rules, f"no error in {lines[number]!r}"
        else:
            assert found.get(number) == {said}, lines[number]


def test_the_codes_that_editors_complete_are_all() -> None:
    assert get_args(KnownCode) == tuple(CODES)
