"""The JavaScript client: its types hold, and its own tests pass, in Node."""

import json
import shlex
import subprocess
from itertools import groupby
from pathlib import Path

import pytest

from support.node import CLIENT, require_node
from support.process import outcome
from support.servers import serve_natively
from symphony import Identity, Socket, Symphony

# What `npm test` runs: a command, and the files.
COMMAND, _, TESTS = json.loads((CLIENT / "package.json").read_text())["scripts"]["test"].rpartition(" ")

# What npm fetches, and what the tests start, takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300)


def run(*command: str) -> None:
    """Run a command in the client's folder; fail with all that it said."""
    done = subprocess.run(
        command,
        cwd=CLIENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{shlex.join(command)} failed:\n{done.stdout}", pytrace=False)


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    require_node()


def test_its_types_hold() -> None:
    run("npm", "run", "--silent", "check")


@pytest.mark.parametrize("file", sorted(CLIENT.glob(TESTS)), ids=lambda file: file.name)
def test_its_own_tests_pass(file: Path) -> None:
    """Each file is a test: the files with the most tests are handed out first, and do not end last."""
    run(*shlex.split(COMMAND), str(file))


def test_no_test_is_left_out() -> None:
    assert {file.name for file in CLIENT.glob(TESTS)} == {
        file.name for file in CLIENT.rglob("*.test.js") if "node_modules" not in file.parts
    }
    assert COMMAND.startswith("node --test ")


def test_what_is_published_comes_with_its_types() -> None:
    listed = subprocess.run(
        ["npm", "pack", "--dry-run", "--json"], cwd=CLIENT, capture_output=True, text=True, check=True
    ).stdout
    assert '"symphony.js"' in listed
    assert '"msgpack.js"' in listed
    assert '"types/symphony.d.ts"' in listed
    assert '"types/msgpack.d.ts"' in listed


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_members_of_a_room_miss_nothing_and_hear_nothing_twice_however_often_they_are_cut_off(
    protocol: str,
) -> None:
    count = 300
    app = Symphony()
    rooms = app.route("/rooms")
    served = app.route("/served")
    app.rooms("feed:{number}", history=2 * count, client_join=True)

    @rooms.on("post")
    async def post(data: int) -> None:
        await app.room("feed:1").emit("said", data)

    @served.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("feed:1")

    @served.on("is_in")
    async def is_in(socket: Socket) -> bool:
        return "feed:1" in socket.rooms

    async with serve_natively(app) as url:
        script = Path(__file__).with_name("rooms.js")
        code, output, errors = await outcome("node", str(script), url, protocol, str(count))
    # It says only that connections end again and again.
    unexpected = [line for line in errors.splitlines() if "connections in a row" not in line]
    assert (code, unexpected) == (0, [])
    found = json.loads(output)
    for member in found["members"]:
        assert member["got"] == list(range(1, count + 1))
        assert member["lost"] == []
    assert [member["position"]["offset"] for member in found["members"] if member["position"]] == [count] * 3
    # After it has left, it hears nothing.
    assert found["after"] == count


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_member_sees_who_comes_and_goes_and_nobody_flickers_who_is_away_for_a_moment(
    protocol: str,
) -> None:
    app = Symphony()
    app.rooms("chat:{name}", presence=True, client_join=True, grace=60)
    app.rooms("quiet:{name}", max_members=5, client_join=True)
    route = app.route("/{user}")

    @route.on_connect
    async def enter(socket: Socket, user: str) -> None:
        socket.login(Identity(user, {"name": user}))

    @route.on("rename")
    async def rename(socket: Socket, data: str) -> None:
        assert socket.user is not None
        socket.login(Identity(socket.user.id, {"name": data}))

    async with serve_natively(app) as url:
        script = Path(__file__).with_name("presence.js")
        code, output, errors = await outcome("node", str(script), url, protocol)
    assert (code, errors) == (0, "")
    found = json.loads(output)
    # What is told twice, after a reconnect, is the same.
    steps = [names for names, _ in groupby([[info["name"] for _, info in view] for view in found["seen"]])]
    assert steps == [
        ["ann"],
        ["ann", "bob"],
        ["ann", "Bobby"],
        ["ann", "Bobby", "eve"],
        ["ann", "eve"],
        ["ann"],
    ]
    assert found["counts"] == [2, 2, 2, 1, 1]
    assert found["quiet"] == [False, 0]
