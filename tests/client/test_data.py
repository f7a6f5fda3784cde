"""The table of data in docs/events.md, between a real server and the Python client, in both codecs."""

import datetime
import enum
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from support.clients import until
from support.servers import serve_natively
from symphony import Socket, Symphony
from symphony.client import connect
from symphony.errors import RemoteError

AT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class Mood(enum.Enum):
    calm = "calm"


@dataclass
class Said:
    text: str
    name: str = "somebody"


class Note(msgspec.Struct):
    text: str
    pinned: bool = False


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    photo: bytes
    lives: Annotated[int, pydantic.Field(gt=0)] = 9


class Dog(pydantic.BaseModel, strict=True):
    kind: Literal["dog"] = "dog"
    born: datetime.date
    id: uuid.UUID


@pydantic.dataclasses.dataclass
class Priced:
    price: Annotated[int, pydantic.Field(gt=0)]


TABLE: list[tuple[Any, Any, Any, Any]] = [
    # The type, a value, and what an untyped handler of the client sees in JSON and in MessagePack.
    (float, 1.5, 1.5, 1.5),
    (int, 2**53, 2**53, 2**53),
    (bytes, b"\xff", "/w==", b"\xff"),
    (datetime.datetime, AT, "2026-01-02T03:04:05Z", AT),
    (datetime.date, AT.date(), "2026-01-02", "2026-01-02"),
    (datetime.timedelta, datetime.timedelta(minutes=90), "PT5400S", "PT5400S"),
    (uuid.UUID, uuid.UUID(int=5), str(uuid.UUID(int=5)), str(uuid.UUID(int=5))),
    (Decimal, Decimal("1.50"), "1.50", "1.50"),
    (Mood, Mood.calm, "calm", "calm"),
    (set[int], {1}, [1], [1]),
    (tuple[int, str], (1, "a"), [1, "a"], [1, "a"]),
    (dict[int, str], {1: "a"}, {"1": "a"}, {1: "a"}),
    (dict[float, str], {1.5: "a"}, {"1.5": "a"}, {"1.5": "a"}),
    (Said, Said("hi"), {"text": "hi", "name": "somebody"}, {"text": "hi", "name": "somebody"}),
    (Note, Note("hi"), {"text": "hi", "pinned": False}, {"text": "hi", "pinned": False}),
    (
        Cat | Dog,
        Cat(photo=b"\xff"),
        {"kind": "cat", "photo": "/w==", "lives": 9},
        {"kind": "cat", "photo": b"\xff", "lives": 9},
    ),
    (
        list[Cat | Dog],
        [Dog(born=AT.date(), id=uuid.UUID(int=5))],
        [{"kind": "dog", "born": "2026-01-02", "id": str(uuid.UUID(int=5))}],
        [{"kind": "dog", "born": "2026-01-02", "id": str(uuid.UUID(int=5))}],
    ),
    (Priced, Priced(1), {"price": 1}, {"price": 1}),
]


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_the_table_of_data(protocol: Any) -> None:
    """Both codecs carry the same values: there, and back, and to handlers of the client."""
    app = Symphony()
    for at, (annotation, _, _, _) in enumerate(TABLE):

        async def echo(socket: Socket, data: Any) -> Any:
            await socket.request("typed", data)
            return data

        echo.__annotations__ = {"socket": Socket, "data": annotation, "return": Any}
        app.on(f"echo{at}")(echo)
    async with serve_natively(app) as url:
        for at, (annotation, value, in_json, in_msgpack) in enumerate(TABLE):
            client = connect(url, protocol=protocol)
            came: list[Any] = []

            def typed(data: Any, came: list[Any] = came) -> None:
                came.append(data)

            typed.__annotations__ = {"data": annotation, "came": Any}

            async with client:
                client.on("typed", lambda data, handle=typed: handle(data))
                untyped = await client.request(f"echo{at}", value)
                assert untyped == (in_json if protocol == "json" else in_msgpack)
                assert came == [untyped]
                again = await client.request(f"echo{at}", value, response_type=annotation)
                assert again == value


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize("wrong", [math.nan, [math.inf], {"a": Said("x", -math.inf)}, {(1, 2): 3}])  # type: ignore[arg-type]
async def test_what_is_no_data_is_an_error_at_the_sender(protocol: Any, wrong: Any) -> None:
    app = Symphony()

    @app.on("wrong")
    async def answer() -> Any:
        return wrong

    async with serve_natively(app) as url, connect(url, protocol=protocol) as client:
        for send in (client.request, client.emit):
            with pytest.raises(TypeError):
                await send("wrong", wrong)
        with pytest.raises(RemoteError) as caught:
            await client.request("wrong")
        assert caught.value.code == "internal"


@pytest.mark.parametrize("number", [2**53 + 1, 2**64 - 1, -(2**63)])
async def test_integers_beyond_2_to_the_53(number: int) -> None:
    app = Symphony()

    @app.on("number")
    async def answer(data: str) -> Any:
        return [int(data)]

    async with serve_natively(app) as url:
        async with connect(url, protocol="msgpack") as client:
            assert await client.request("number", str(number)) == [number]
        async with connect(url, protocol="json") as client:
            with pytest.raises(TypeError, match="exact up to 2\\^53"):
                await client.request("number", [number])
            with pytest.raises(RemoteError, match="internal"):
                await client.request("number", str(number))


@pytest.mark.parametrize("method", ["emit", "send"])
@pytest.mark.parametrize("data", [2**60, [None, 2**63], {"id": -(2**55)}])
async def test_a_codec_that_cannot_encode_a_publication_keeps_it_from_its_members_only(
    data: Any, method: str
) -> None:
    errors: list[BaseException] = []
    app = Symphony()

    @app.on_error
    async def told(error: BaseException) -> None:
        errors.append(error)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("room")

    @app.on("publish")
    async def publish(data: str) -> None:
        room = app.room("room")
        value = msgspec.json.decode(data)
        for message in ("before", value, "after"):
            await (room.emit("message", message) if method == "emit" else room.send(message))

    async with serve_natively(app) as url:
        heard: dict[str, list[Any]] = {"json": [], "msgpack": [], "msgpack2": []}
        clients = [connect(url, protocol="msgpack" if "2" in name else name) for name in heard]  # type: ignore[arg-type]
        for client, messages in zip(clients, heard.values(), strict=True):
            client.on("message", messages.append)
        async with clients[0], clients[1], clients[2]:
            await clients[0].request("publish", msgspec.json.encode(data).decode())
            await until(lambda: all(messages[-1:] == ["after"] for messages in heard.values()))
    assert heard == {
        "json": ["before", "after"],
        "msgpack": ["before", data, "after"],
        "msgpack2": ["before", data, "after"],
    }
    assert [type(error).__name__ for error in errors] == ["UnencodableError"]
