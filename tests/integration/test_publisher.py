"""`app.publisher()`: another process publishes to the rooms of a running server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import symphony
from support.clients import until
from support.fleets import workers
from symphony import (
    BrokerUnavailableError,
    ConfigurationError,
    Identity,
    Limits,
    OutcomeUnknownError,
    Position,
    Reject,
    Socket,
    Symphony,
    WrongThreadError,
)
from symphony.broker.engines import serve
from symphony.broker.ipc import ServedBroker
from symphony.testing import TestClient

PATIENCE = 20
SHORT = Limits(publish_timeout=0.5)

APP = """
import os

from symphony import Identity, Socket, Symphony

app = Symphony()
app.rooms("kept:{name}", history=100)
chat = app.route("/", events=True)


@chat.on_connect
async def enter(socket: Socket) -> None:
    socket.login(Identity(socket.handshake.query_params["user"]))
    for name in ("kept:a", "plain:a"):
        await socket.join(name)


@chat.on("where")
async def where(socket: Socket, data: None) -> tuple[int, str]:
    return os.getpid(), socket.id
"""

SCRIPT = """
from app import app

with app.publisher({url!r}) as out:
    assert out.room("kept:a").emit("kept", 1).offset == 1
    assert out.room("kept:a").emit("kept", 2, key="two").offset == 2
    assert out.room("kept:a").emit("kept", 2, key="two").offset == 2
    out.room("plain:a").emit("plain", 3)
    out.user("ann").emit("to ann", 4)
    out.users("ann", "bob").emit("to both", 5)
    for id in {ids!r}:
        out.socket(id).emit("to one", id)
    out.everyone.send("to all")
    print([each.data for each in out.room("kept:a").history()])
"""


def make(url: str | None, limits: Limits | None = None) -> Symphony:
    app = Symphony(broker=url, limits=limits)
    app.rooms("kept:{name}", history=10)
    route = app.route("/{user}", events=True)

    @route.on_connect
    async def enter(socket: Socket, user: str) -> None:
        socket.login(Identity(user))
        for name in ("kept:a", "plain:a"):
            await socket.join(name)

    route.on("unused")(lambda: None)
    return app


@pytest.fixture
async def server() -> AsyncIterator[ServedBroker]:
    served = serve("memory://", Limits())
    yield served
    await asyncio.to_thread(served.close)


async def heard(connection: Any) -> tuple[str, Any]:
    while True:
        message = json.loads(await connection.receive(timeout=PATIENCE))
        if "event" in message:
            return message["event"], message["data"]


async def run_script(folder: Path, script: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    (folder / "script.py").write_text(script)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "script.py",
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("finds", ["the file", "the environment", "the socket"])
async def test_a_script_publishes_to_the_members_at_all_workers(tmp_path: Path, finds: str):
    (tmp_path / "app.py").write_text(APP)
    data = tmp_path / "rooms"
    async with workers(tmp_path / "app.py", 2, "--data", str(data)) as fleet:
        [folder] = fleet.broker_folders()
        file = f"sqlite:///{data}/rooms.db"
        url, env = {
            "the file": (file, {}),
            "the environment": (None, {"SYMPHONY_BROKER": file}),
            "the socket": (f"ipc://{folder}/broker", {}),
        }[finds]
        heard: dict[str, list[Any]] = {"ann": [], "bob": []}
        processes: set[int] = set()
        ids: dict[str, str] = {}
        stack = AsyncExitStack()
        # One user at each worker.
        for user in heard:
            while True:
                client = await stack.enter_async_context(symphony.connect(f"{fleet.url}/?user={user}"))
                process, ids[user] = await client.request("where", response_type=tuple[int, str])
                if process not in processes:
                    break
                await client.close()
            processes.add(process)
            client.on("*", lambda event, data, got=heard[user]: got.append((event, data)))
        code, out, err = await run_script(tmp_path, SCRIPT.format(url=url, ids=[*ids.values()]), env)
        assert (code, out.strip(), err) == (0, "[1, 2]", "")
        for user, own in (("ann", [("to ann", 4)]), ("bob", [])):
            expected = [
                ("kept", 1), ("kept", 2), ("plain", 3), *own, ("to both", 5), ("to one", ids[user]),
                ("message", "to all"),
            ]  # fmt: skip
            await until(lambda got=heard[user], wanted=expected: len(got) == len(wanted))
            # What is kept takes another way than what is not.
            assert sorted(map(str, heard[user])) == sorted(map(str, expected))
            assert [each for each in heard[user] if each[0] == "kept"] == expected[:2]
        await stack.aclose()
    # The server has gone.
    code, _, err = await run_script(tmp_path, SCRIPT.format(url=url, ids=[]), env)
    assert code == 1
    assert "BrokerUnavailableError" in err
    assert "symphony run" in err


async def test_a_coroutine_publishes_too(server: ServedBroker):
    app, other = make(server.url), make(server.url)
    async with TestClient(app) as client, client.connect("/ann", protocol="raw") as ann:
        async with other.publisher() as out:
            first = await out.room("kept:a").emit("said", 1)
            assert first is not None
            assert await out.room("kept:a").emit("said", 2, replaces=first) == Position(first.epoch, 2)
            assert await out.room("kept:a").emit("typing", transient=True) is None
            assert [each.data for each in await out.room("kept:a").history()] == [2]
            await out.room("plain:a").emit("plain", "text")
            await out.user("ann").send("hello")
            await out.users("ann", "bob").emit("both")
            await out.everyone.emit("all")
            # What is not awaited is published before the block ends.
            for number in range(50):
                out.room("plain:a").emit("many", number)
        events = [await heard(ann) for _ in range(57)]
        assert [each for each in events if each[0] == "many"] == [("many", number) for number in range(50)]
        assert [each for each in events if each[0] == "said"] == [("said", 1), ("said", 2)]
        assert {"typing", "plain", "message", "both", "all"} < {event for event, _ in events}


async def test_sockets_are_left_out_by_their_ids(server: ServedBroker):
    app = make(server.url)
    async with (
        TestClient(app) as client,
        client.connect("/ann", protocol="raw") as ann,
        client.connect("/bob", protocol="raw") as bob,
    ):
        await until(lambda: len(app.everyone.sockets) == 2)
        id = next(socket.id for socket in app.everyone.sockets if socket.user and socket.user.id == "ann")
        async with make(server.url).publisher() as out:
            await out.room("plain:a").emit("not ann", exclude=[id])
            await out.everyone.emit("not ann", exclude=id)
            await out.everyone.emit("all")
        assert await heard(ann) == ("all", None)
        assert [(await heard(bob))[0] for _ in range(3)] == ["not ann", "not ann", "all"]


async def test_what_publishing_refuses(server: ServedBroker):
    async with make(server.url).publisher() as out:
        with pytest.raises(Reject, match="not the name of a room"):
            out.room("{x}")
        with pytest.raises(Reject):
            out.user("{x}")
        with pytest.raises(ValueError, match="gap"):
            out.room("kept:a").emit("said", exclude=["x"])
        with pytest.raises(ValueError, match="needs a history"):
            out.room("plain:a").emit("said", key="x")
        with pytest.raises(TypeError):
            out.room("kept:a").emit("said", object())
        with pytest.raises(TypeError):
            out.room("plain:a").emit("said", object())
        await out.room("kept:a").emit("said", 1, key="x")
        with pytest.raises(Reject) as caught:
            await out.room("kept:a").emit("said", 2, key="x")
        assert caught.value.code == "conflict"
        with pytest.raises(WrongThreadError):
            await asyncio.to_thread(out.room("kept:a").emit, "said")


async def test_the_blocking_publisher_works_in_several_threads(server: ServedBroker):
    app = make(server.url)
    async with TestClient(app) as client, client.connect("/ann", protocol="raw") as ann:

        def work() -> list[int]:
            with make(server.url).publisher() as out:
                found: list[int] = []

                def publish() -> None:
                    for number in range(20):
                        position = out.room("kept:a").emit("said", number)
                        assert position is not None
                        found.append(position.offset)

                threads = [threading.Thread(target=publish) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            with pytest.raises(RuntimeError, match="closed"):
                out.everyone.send("x")
            return found

        offsets = await asyncio.to_thread(work)
        assert sorted(offsets) == list(range(1, 61))
        assert len([await heard(ann) for _ in range(60)]) == 60


async def test_the_blocking_publisher_is_refused_on_an_event_loop(server: ServedBroker):
    with pytest.raises(WrongThreadError, match="Use `async with`"):
        make(server.url).publisher().__enter__()


async def test_a_publisher_is_open_once_at_a_time(server: ServedBroker):
    publisher = make(server.url).publisher()
    async with publisher as out:
        await out.everyone.send("x")
        with pytest.raises(RuntimeError, match="open already"):
            await publisher.__aenter__()
    async with publisher as out:
        await out.everyone.send("x")


async def test_a_broker_in_memory_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SYMPHONY_BROKER", raising=False)
    for url in (None, "memory://"):
        with pytest.raises(
            ConfigurationError, match=r"memory:// is in the process of the server.*--data DIR"
        ):
            async with make(url).publisher():
                pass


async def test_a_file_that_no_server_serves_is_told(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/rooms.db"
    with pytest.raises(BrokerUnavailableError, match="no server with workers that serves it"):
        async with make(url).publisher():
            pass
    # A server that was killed has left its note.
    (tmp_path / "rooms.db.served").write_text(f"ipc://{tmp_path}/gone")
    with pytest.raises(BrokerUnavailableError, match=r"cannot be reached.*Is the server running"):
        async with make(url, SHORT).publisher():
            pass


async def test_an_unknown_broker_is_refused():
    with pytest.raises(ConfigurationError, match="is not known"):
        make(None).publisher("redis2://x")


async def test_a_broker_that_goes_is_told():
    served = serve("memory://", Limits())
    app = make(served.url, Limits(publish_timeout=3))
    async with app.publisher() as out:
        await out.room("kept:a").emit("said", 1)
        await asyncio.to_thread(served.close)
        with pytest.raises((BrokerUnavailableError, OutcomeUnknownError)):
            await out.room("kept:a").emit("said", 2)
        with pytest.raises(BrokerUnavailableError):
            await out.everyone.send("x")


def test_a_blocking_publisher_that_cannot_connect_leaves_no_thread(tmp_path: Path):
    before = threading.active_count()
    with pytest.raises(BrokerUnavailableError), make(f"ipc://{tmp_path}/gone", SHORT).publisher():
        pass
    assert threading.active_count() == before


async def test_the_server_leaves_no_note_behind(tmp_path: Path):
    (tmp_path / "app.py").write_text(APP)
    note = tmp_path / "rooms" / "rooms.db.served"
    async with workers(tmp_path / "app.py", 2, "--data", str(tmp_path / "rooms")):
        assert note.read_text().startswith("ipc://")
        assert note.stat().st_mode & 0o777 == 0o600
    assert not note.exists()


async def test_workers_with_a_broker_in_memory_of_their_own_are_warned_about(tmp_path: Path):
    (tmp_path / "app.py").write_text(APP.replace("Symphony()", 'Symphony(broker="memory://")', 1))
    async with workers(tmp_path / "app.py", 2) as fleet, asyncio.timeout(PATIENCE):
        await fleet.logged(r"broker=.memory://.*each worker has its own rooms", 2)
    (tmp_path / "app.py").write_text(APP)
    async with workers(tmp_path / "app.py", 2) as fleet:
        assert not [line for line in fleet.log if "its own rooms" in line]
