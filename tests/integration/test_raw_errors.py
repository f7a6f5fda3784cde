"""Raw routes speak raw: a client of a binary protocol never receives JSON text."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from msgspec import Meta
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from symphony import ConfigurationError, Reject, Socket, Symphony
from symphony.testing import TestClient

REFUSALS = {
    "refuse": (Reject("forbidden", "read only"), 1008, "read only"),
    "own code": (Reject("shop.closed", "come tomorrow"), 1008, "come tomorrow"),
    "later": (Reject("too_many", "slower"), 1013, "slower"),
    "chosen": (Reject("forbidden", "bye", close_code=4000), 4000, "bye"),
    "normal": (Reject("forbidden", "done", close_code=1000), 1000, "done"),
    "the default": (Reject("forbidden", "no", close_code=4403), 4403, "no"),
    "fail": (LookupError("secret"), 1011, "the server failed to handle the message"),
}


async def ends(url: str, message: str | bytes) -> tuple[Any, Any]:
    """Send a message, and return how the connection ended; fails if anything is received before."""
    async with connect(url) as client:
        await client.send(message)
        with pytest.raises(ConnectionClosed):
            raise AssertionError(await client.recv())
        return client.close_code, client.close_reason


def raising(error: Exception) -> Any:
    async def plain(message: bytes) -> bytes:
        raise error

    async def stream(message: bytes) -> AsyncIterator[bytes]:
        if message:
            raise error
        yield b""

    def bounded(message: Annotated[bytes, Meta(max_length=100)]) -> bytes:
        raise error

    return plain, stream, bounded


@pytest.mark.parametrize("case", REFUSALS)
async def test_an_error_closes_a_route_whose_handler_takes_bytes(serve, case: str) -> None:
    """A binary client received JSON text, and y-websocket in Node ended its process."""
    error, code, reason = REFUSALS[case]
    app = Symphony()
    for index, handler in enumerate(raising(error)):
        app.route(f"/{index}").on_message(handler)

    async with serve(app) as url:
        for index in range(3):
            assert await ends(f"{url}/{index}", b"x") == (code, reason)


async def test_what_refuses_before_the_handler_closes_as_well(serve) -> None:
    app = Symphony()
    checked, around, bounded = app.route("/checked"), app.route("/around"), app.route("/bounded")

    @checked.on_message
    @around.on_message
    async def handle(message: bytes) -> None: ...

    @checked.check
    def check(socket: Socket, message: str | bytes) -> None:
        raise Reject("too_many", "slower")

    @around.middleware("message")
    async def refuse(socket: Socket, message: Any, call_next: Any) -> None:
        raise Reject("forbidden", "not you")

    @bounded.on_message
    async def short(message: Annotated[bytes, Meta(max_length=1)]) -> None: ...

    async with serve(app) as url:
        assert await ends(f"{url}/checked", b"x") == (1013, "slower")
        assert await ends(f"{url}/around", b"x") == (1008, "not you")
        assert (await ends(f"{url}/bounded", b"xx"))[0] == 1008
        assert (await ends(f"{url}/bounded", "x"))[0] == 1003


@pytest.mark.parametrize("kind", [str, dict, str | bytes, Any])
async def test_errors_are_messages_where_the_handler_takes_more_than_bytes(serve, kind: Any) -> None:
    app = Symphony()
    as_text, closing = app.route("/message"), app.route("/close", errors="close")

    async def handle(message: kind) -> None:
        raise Reject("forbidden", "read only")

    as_text.on_message(handle)
    closing.on_message(handle)
    async with serve(app) as url:
        async with connect(f"{url}/message") as client:
            for _ in range(2):
                await client.send("{}")
                assert '"read only"' in await client.recv()
        assert await ends(f"{url}/close", "{}") == (1008, "read only")


async def test_a_route_of_bytes_may_ask_for_messages(serve) -> None:
    app = Symphony()

    @app.route("/", errors="message").on_message
    async def handle(message: bytes) -> None:
        raise Reject("forbidden", "read only")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send(b"x")
        assert '"read only"' in await client.recv()


@pytest.mark.parametrize(
    "options", [{"errors": "text"}, {"errors": True}, {"errors": "close", "events": True}]
)
async def test_errors_that_a_route_cannot_keep_are_refused(options: Any) -> None:
    app = Symphony()
    app.route("/", **options)
    with pytest.raises(ConfigurationError, match="errors= is"):
        async with TestClient(app):
            pass


async def test_everyone_is_all_but_routes_of_bytes_unless_they_say_so(serve) -> None:
    app = Symphony()

    async def take(message: bytes) -> bytes:
        return message

    async def take_text(message: str) -> str:
        return message

    app.route("/binary").on_message(take)
    app.route("/binary/all", everyone=True).on_message(take)
    app.route("/text").on_message(take_text)
    app.route("/text/none", everyone=False).on_message(take_text)
    app.route("/events/none", everyone=False).on("say")(take_text)

    async with (
        serve(app) as url,
        connect(f"{url}/binary") as binary,
        connect(f"{url}/text/none") as none,
        connect(f"{url}/binary/all") as everything,
        connect(f"{url}/text") as text,
        connect(f"{url}/events/none"),
    ):
        assert await app.everyone.count() == 2
        await app.everyone.send("hello")
        await app.everyone.emit("hello", 1)
        for client in (everything, text):
            assert await client.recv() == "hello"
            assert await client.recv() == '{"event":"hello","data":1}'
        # Nothing has arrived before the echo.
        await binary.send(b"x")
        assert await binary.recv() == b"x"
        await none.send("y")
        assert await none.recv() == "y"


# Close codes


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 1014, 3000, 3999, 4000, 4999])
async def test_an_app_chooses_its_close_codes(serve, code: int) -> None:
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: bytes) -> None:
        await socket.close(code, "chosen")

    async with serve(app) as url:
        assert await ends(f"{url}/", b"x") == (code, "chosen")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (1004, "reserved"),
        (1005, "it reports that a close frame had no code"),
        (1006, "it reports that a connection was lost"),
        (1015, "it reports that TLS failed"),
        (1016, "reserved"),
        (2999, "reserved"),
        (999, "integers from 1000 to 4999"),
        (5000, "integers from 1000 to 4999"),
        (-1, "integers from 1000 to 4999"),
        (4000.5, "integers from 1000 to 4999"),
        ("1000", "integers from 1000 to 4999"),
        (True, "integers from 1000 to 4999"),
    ],
)
async def test_a_close_code_that_may_not_be_sent_is_refused_with_the_reason(code: Any, why: str) -> None:
    app = Symphony()
    errors: list[str] = []

    @app.on("close")
    async def close(socket: Socket) -> None:
        with pytest.raises(ValueError, match=why) as caught:
            await socket.close(code)
        errors.append(str(caught.value))

    with pytest.raises(ValueError, match=why):
        Reject("forbidden", close_code=code)
    async with TestClient(app) as test, test.connect("/") as client:
        await client.request("close")
        with pytest.raises(ValueError, match=why):
            await client.close(code)
    assert errors[0].startswith(f"The close code {code!r} may not be sent: ")
