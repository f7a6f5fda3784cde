"""What fills the parameters of handlers, and what a query string that does not fit is answered."""

import json
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pytest

from support.clients import Log, connect, error_in, refused
from symphony import Close, Handshake, Query, Socket, Symphony


class Color(Enum):
    RED = "red"
    BLUE = "blue"


async def test_connect_handlers_take_query_parameters_of_every_type(serve):
    app = Symphony()

    @app.route("/search").on_connect
    async def search(
        socket: Socket,
        q: str,
        page: int,
        ratio: float,
        exact: bool,
        user: UUID,
        color: Color,
        order: Literal["up", "down"],
        tag: list[str],
        size: list[int] = [],  # noqa: B006
        after: int | None = None,
        limit: int = 10,
    ) -> None:
        assert isinstance(user, UUID)
        assert color is Color.BLUE
        await socket.send([q, page, ratio, exact, str(user), order, tag, size, after, limit])

    query = (
        "q=a%20b&page=2&ratio=0.5&exact=true&user=12345678-1234-5678-1234-567812345678"
        "&color=blue&order=up&tag=x&tag=y"
    )
    async with serve(app) as url, connect(f"{url}/search?{query}") as client:
        assert json.loads(await client.recv()) == [
            "a b",
            2,
            0.5,
            True,
            "12345678-1234-5678-1234-567812345678",
            "up",
            ["x", "y"],
            [],
            None,
            10,
        ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "query parameter 'page' is missing"),
        ("page=", "query parameter 'page' must be an integer, not ''"),
        ("page=two", "query parameter 'page' must be an integer, not 'two'"),
        ("page=1.5", "query parameter 'page' must be an integer, not '1.5'"),
        ("page=-1", "query parameter 'page': Expected `int` >= 0"),
        ("page=1&ratio=x", "query parameter 'ratio' must be a number, not 'x'"),
        ("page=1&exact=maybe", "query parameter 'exact' must be true or false, not 'maybe'"),
        ("page=1&user=me", "query parameter 'user' must be a UUID, not 'me'"),
        ("page=1&color=green", "query parameter 'color' must be one of 'red', 'blue', not 'green'"),
        ("page=1&order=left", "query parameter 'order' must be one of 'up', 'down', not 'left'"),
        ("page=1&size=1&size=x", "query parameter 'size' must be an integer, not 'x'"),
    ],
)
async def test_a_query_that_does_not_convert_is_a_400_that_names_it(serve, query, message):
    app = Symphony()
    log = Log()

    @app.route("/search").on_connect
    async def search(
        page: Annotated[int, msgspec.Meta(ge=0)],
        ratio: float = 1.0,
        exact: bool = False,
        user: UUID | None = None,
        color: Color = Color.RED,
        order: Literal["up", "down"] = "up",
        size: list[int] | None = None,
    ) -> None:
        log.append("called")

    async with serve(app) as url:
        refusal = await refused(f"{url}/search?{query}")
    assert refusal.status == 400
    assert refusal.code == "invalid"
    assert refusal.message == message
    assert refusal.body["details"]["parameter"] in message
    assert log == []


async def test_path_parameters_are_filled_by_name_in_every_handler(serve):
    app = Symphony()
    log = Log()
    route = app.route("/chat/{room}/{number:int}")

    @route.on_connect
    async def enter(socket: Socket, room: str, number: int, nick: str = "anon") -> None:
        await socket.send([room, number, nick])

    @route.on_message
    async def say(number: int, message: str, room: str) -> list:
        return [room, number, message]

    @route.on_disconnect
    async def leave(room: str, close: Close, number: int) -> None:
        log.append((room, number, close.code))

    async with serve(app) as url:
        async with connect(f"{url}/chat/caf%C3%A9/7?nick=bo") as client:
            assert json.loads(await client.recv()) == ["café", 7, "bo"]
            await client.send("hi")
            assert json.loads(await client.recv()) == ["café", 7, "hi"]
        await log.reaches(1)
    assert log == [("café", 7, 1000)]


async def test_message_handlers_read_the_query_where_they_say_so(serve):
    app = Symphony()

    @app.on_message
    async def say(
        message: str, nick: Annotated[str, Query(alias="name")], page: Annotated[int, Query()] = 1
    ) -> list:
        return [nick, page, message]

    async with serve(app) as url:
        async with connect(f"{url}/?name=bo&page=3") as client:
            await client.send("hi")
            assert json.loads(await client.recv()) == ["bo", 3, "hi"]
        async with connect(f"{url}/") as client:
            await client.send("hi")
            error = error_in(await client.recv())
            assert (error["code"], error["message"]) == ("invalid", "query parameter 'name' is missing")


async def test_known_types_are_filled_wherever_they_stand(serve):
    app = Symphony()

    @app.on_message
    async def handle(message: str, handshake: Handshake, *, sender: Socket) -> bool:
        return sender.handshake is handshake

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "true"


async def test_a_first_parameter_named_socket_needs_no_annotation(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket):
        await socket.send("hi")

    @app.on_message
    async def handle(socket, message):
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "hi"
        for message in ("text", b"bytes"):
            await client.send(message)
            assert await client.recv() == message


async def test_handlers_need_no_parameters_at_all(serve):
    app = Symphony()
    log = Log()

    @app.on_connect
    async def enter() -> None:
        log.append("connect")

    @app.on_message
    async def handle() -> str:
        return "pong"

    @app.on_disconnect
    async def leave() -> None:
        log.append("disconnect")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("whatever")
            assert await client.recv() == "pong"
        await log.reaches(2)
    assert log == ["connect", "disconnect"]


async def test_a_payload_with_a_default_is_still_the_payload(serve):
    app = Symphony()

    @app.on_message
    async def handle(message: str = "nothing") -> str:
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("something")
        assert await client.recv() == "something"


async def test_string_annotations_and_types_defined_later_are_resolved_at_start(serve):
    app = Symphony()

    @app.on_message
    async def handle(message: "Later") -> str:
        return message.text

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send('{"text": "hi"}')
        assert await client.recv() == "hi"


class Later(msgspec.Struct):
    text: str
