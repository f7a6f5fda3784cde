"""Is the server still there?"""

import asyncio

import pytest

from client.opened import fast, opened, pair
from client.rawserver import listen, server_frame
from client.scripted import serve
from support.clients import until
from support.raw import PING, TEXT
from symphony.client import connect
from symphony.client.heartbeat import Heartbeat

pytestmark = pytest.mark.usefixtures("each_loop")


@pytest.mark.within("client.heartbeat")
async def test_a_server_that_keeps_silent_is_asked_and_an_answer_keeps_the_connection() -> None:
    async with listen() as server:
        client = connect(server.url, heartbeat=0.1)
        accepting = asyncio.ensure_future(server.accept("symphony.raw"))
        await client
        peer = await accepting
        for _ in range(3):
            before = asyncio.get_running_loop().time()
            assert (await peer.frame()).opcode == PING
            assert asyncio.get_running_loop().time() - before > 0.05
            peer.write(server_frame(TEXT, "any sign of life will do"))
        peer.cut()
        assert client.state == "open"
        await client.close()


@pytest.mark.parametrize("said", [server_frame(TEXT, "talk"), server_frame(PING, "?"), b"\x82\x7dta"])
async def test_every_byte_counts_as_a_sign_of_life(said: bytes) -> None:
    async with listen() as server:
        client = connect(server.url)
        accepting = asyncio.ensure_future(server.accept("symphony.raw"))
        await client
        peer = await accepting
        link = client._outgoing._link
        for _ in range(2):
            link.heard_at = 0.0
            peer.write(said)
            await until(lambda: link.heard_at)
        peer.cut()
        await client.close()


async def test_a_server_that_talks_is_not_asked() -> None:
    talking = Talking()
    heartbeat = Heartbeat(talking, 0.01)
    await until(lambda: talking.looked == 5)
    assert talking.pings == 0
    heartbeat.stop()


@pytest.mark.beyond("client.heartbeat")
async def test_a_server_that_stops_is_given_up_and_called_again() -> None:
    """As with SIGSTOP: the kernel still takes what comes, and nobody answers."""
    async with serve() as server:
        client = connect(server.url, heartbeat=0.1, **fast)
        peer = await opened(server, client)
        waiting = asyncio.ensure_future(client.request("x"))
        await peer.receive()
        peer.silence()
        again = await server.accept()
        assert isinstance(waiting.exception(), Exception)
        assert str(waiting.exception()).startswith(
            f"'x' was not answered: the connection to {server.url} was lost "
            "(1006: the server does not answer)."
        )
        client.emit("hello")
        assert (await again.receive())["event"] == "hello"
        await client.close()
        peer.connection.transport.abort()


async def test_without_a_heartbeat_nobody_is_asked() -> None:
    async with pair(heartbeat=None) as (client, _, _):
        assert client._outgoing._link._heartbeat is None


class Quiet:
    """A connection whose pulse the test feels."""

    def __init__(self) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        self.is_held = False
        self.looked = 0
        self.unsent = 0
        self.pings = 0
        self.given_up = False

    @property
    def held(self) -> bool:
        """Count how often the heartbeat looks."""
        self.looked += 1
        return self.is_held

    def ping(self) -> None:
        self.pings += 1

    def silent(self) -> None:
        self.given_up = True


class Talking(Quiet):
    """A connection on which bytes arrive all the time."""

    @property
    def heard_at(self) -> float:
        return asyncio.get_running_loop().time()

    @heard_at.setter
    def heard_at(self, time: float) -> None: ...


async def test_a_connection_that_is_not_read_from_is_not_judged() -> None:
    quiet = Quiet()
    quiet.is_held = True
    heartbeat = Heartbeat(quiet, 0.01)
    await until(lambda: quiet.looked == 5)
    assert quiet.pings == 0
    quiet.is_held = False
    await until(lambda: quiet.pings)
    quiet.is_held = True
    heartbeat._timer.cancel()
    heartbeat._judge(quiet.heard_at, 0)
    assert not quiet.given_up
    heartbeat.stop()


async def test_a_server_that_takes_an_upload_slowly_is_alive() -> None:
    """The ping waits behind the upload; that bytes go out is a sign of life too."""
    quiet = Quiet()
    quiet.unsent = 10_000
    heartbeat = Heartbeat(quiet, 0.01)
    await until(lambda: quiet.pings)
    heartbeat._timer.cancel()
    quiet.unsent = 9_000
    heartbeat._judge(quiet.heard_at, 10_000)
    assert (quiet.given_up, quiet.pings) == (False, 2)
    heartbeat._timer.cancel()
    heartbeat._judge(quiet.heard_at, 9_000)
    assert quiet.given_up
    heartbeat.stop()
