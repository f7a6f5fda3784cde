"""A client that is sent elsewhere tries again at once: another connection may reach the right node."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from client.rawserver import listen
from support.clients import until
from support.servers import serve_natively
from symphony import Reject, Room, Symphony
from symphony.client import connect


class Delays(logging.Handler):
    """The delays before the attempts of a client."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "retry_in"):
            self.found.append(record.retry_in)


@pytest.fixture
def delays(caplog: pytest.LogCaptureFixture) -> Iterator[list[float]]:
    logger = logging.getLogger("symphony.client")
    handler = Delays()
    caplog.set_level(logging.INFO, "symphony.client")
    logger.addHandler(handler)
    try:
        yield handler.found
    finally:
        logger.removeHandler(handler)


def refusing(times: int, **options: object) -> Symphony:
    """Return an app that sends a client elsewhere so often."""
    app = Symphony()
    attempts = iter(range(times))

    @app.on("hello")
    def hello() -> str:
        return "hi"

    @app.on_connect
    async def enter() -> None:
        if next(attempts, None) is not None:
            raise Reject("elsewhere", "it is on another node", **options)

    return app


@pytest.mark.parametrize("times", [1, 7, 16])
async def test_refused_handshakes_are_repeated_at_once(times: int, delays: list[float]) -> None:
    # With any of the usual delays, it would not be open in time.
    async with serve_natively(refusing(times)) as url, connect(url, backoff=1e6, max_backoff=1e6) as client:
        assert await client.request("hello") == "hi"
    assert delays == [0.0] * times


async def test_after_sixteen_attempts_at_once_it_waits_and_begins_anew(delays: list[float]) -> None:
    async with serve_natively(refusing(35)) as url, connect(url, backoff=0.01) as client:
        assert await client.request("hello") == "hi"
    assert [delay > 0 for delay in delays] == [*[False] * 16, True, *[False] * 16, True, False]


async def test_a_delay_that_the_server_asks_for_is_kept(delays: list[float]) -> None:
    async with serve_natively(refusing(2, retry_after=0.02)) as url, connect(url, backoff=0.01) as client:
        assert await client.request("hello") == "hi"
    assert [delay >= 0.02 for delay in delays] == [True, True]


@pytest.mark.parametrize("raw", [False, True])
async def test_a_connection_that_ends_because_its_room_has_moved_is_made_anew(
    raw: bool, delays: list[float]
) -> None:
    app = Symphony()
    route = app.route("/", room="doc", events=not raw)
    if raw:

        @route.on_message
        async def echo(message: str, room: Room) -> str:
            return message

    async with (
        serve_natively(app) as url,
        connect(f"{url}/", raw=raw, backoff=1e6, max_backoff=1e6) as client,
    ):
        room = app.room("doc")
        await until(lambda: room.sockets)
        (first,) = room.sockets
        await room.close(4421, "it has moved")
        await until(lambda: room.sockets and room.sockets != (first,))
        assert client.state in ("open", "connecting")
    assert delays == [0.0]


async def test_a_421_of_something_else_is_no_reason_to_hurry(delays: list[float]) -> None:
    """HTTP/2 proxies answer like this for other reasons."""
    async with listen() as server:
        client = connect(server.url, raw=True, backoff=0.05)
        opening = asyncio.ensure_future(client._open())
        for _ in range(3):
            peer = await server.peer()
            await peer.read_request()
            peer.write(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n")
        peer = await server.peer()
        await peer.accept(None)
        await opening
        peer.cut()
        await client.close()
    assert [delay > 0 for delay in delays[:3]] == [True] * 3
