"""What type checkers know about the public API."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.pages import ROOT

PYRIGHT = Path(sys.executable).parent / "pyright"

SOURCE = """
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import Any, assert_type

from symphony import CallNext, Position, Room, Rooms, Router, Socket, Symphony


class Game:
    score: int = 0


app = Symphony()
games = app.rooms("game:{id:int}", state=Game)
assert_type(games, Rooms)
assert_type(Router().rooms("chat:{name}"), Rooms)


@games.on_join
async def joined(socket: Socket, room: Room[Game]) -> None:
    assert_type(room.state, Game)
    assert_type(room.state.score, int)
    room.state.scores  # wrong


@games.on_leave
async def left(room: Room) -> None:
    assert_type(room.state, Any)


# A decorated hook, check or middleware keeps its type.
@games.authorize
def may_join(id: int) -> bool:
    return id > 0


@app.check
def check(socket: Socket, message: str | bytes) -> None: ...


@app.middleware("message")
async def around(socket: Socket, message: str, call_next: CallNext, limit: int = 3) -> object:
    return await call_next(socket, message)


assert_type(may_join(1), bool)
assert_type(check(app.everyone.sockets[0], "x"), None)
may_join("one")  # wrong


def in_a_thread(id: str) -> None:
    socket = app.threadsafe.socket(id)
    assert_type(socket.request("ask", response_type=Game), Future[Game])
    assert_type(socket.request("ask").result(), Any)
    assert_type(app.threadsafe.room("game:1").count(), Future[int])
    assert_type(app.threadsafe.room("game:1").emit("news").result(), Position | None)
    assert_type(socket.emit("news"), Future[None])
    app.threadsafe.everyone.send("x", exclude=[1])  # wrong


def in_another_process(id: str) -> None:
    with app.publisher() as out:
        assert_type(out.socket(id).emit("news"), None)
        assert_type(out.room("game:1").emit("news"), Position | None)
        out.socket(1)  # wrong


async def in_a_coroutine_of_another_process(id: str) -> None:
    async with app.publisher() as out:
        assert_type(await out.socket(id).close(4000), None)
        assert_type(await out.user("ann").emit("news"), Position | None)
        out.socket(id).request("ask")  # wrong
"""


@pytest.mark.timeout(100)
def test_pyright_understands_rooms_checks_middleware_and_threads(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SOURCE)
    settings = {
        "include": ["app.py"],
        "venvPath": str(ROOT),
        "venv": ".venv",
        "pythonVersion": "3.11",
        "reportMissingModuleSource": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [PYRIGHT, "--outputjson", "--project", tmp_path]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    found = {
        problem["range"]["start"]["line"]: problem["message"]
        for problem in json.loads(answer.stdout)["generalDiagnostics"]
        if problem["severity"] == "error"
    }
    wrong = {number for number, line in enumerate(SOURCE.splitlines()) if line.endswith("# wrong")}
    assert set(found) == wrong, found
