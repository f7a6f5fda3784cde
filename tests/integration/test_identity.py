"""The user is injected, and never read from what a client sends."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from support.servers import serve_natively
from symphony import CallNext, Close, Depends, Event, Handshake, Identity, Room, Socket, Symphony
from symphony.client import connect
from symphony.errors import ConfigurationError, RefusedError, RemoteError
from symphony.testing import TestClient

FORGED = {"id": "root", "info": {"admin": True}}


async def name_of(user: Identity) -> str:
    return user.id


async def guest_name(user: Identity | None) -> str:
    return "guest" if user is None else user.id


def make_app() -> Symphony:
    app = Symphony()
    here = app.route("/")

    @app.middleware("connect")
    async def log_in(socket: Socket, call_next: CallNext) -> None:
        if socket.handshake.token:
            socket.login(Identity(socket.handshake.token))
        await call_next(socket)

    @here.on("me")
    async def me(user: Identity) -> str:
        return user.id

    @here.on("maybe")
    async def maybe(user: Identity | None, data: Any) -> list[Any]:
        return [user and user.id, data]

    @here.on("default")
    async def default(user: Identity = Identity("nobody")) -> str:  # noqa: B008
        return user.id

    @here.on("dependency")
    async def dependency(name: Annotated[str, Depends(name_of)]) -> str:
        return name

    @here.on("guest")
    async def guest(name: Annotated[str, Depends(guest_name)]) -> str:
        return name

    @here.on("stream.{n:int}")
    async def stream(n: int, user: Identity) -> AsyncIterator[str]:
        for _ in range(n):
            yield user.id

    private = app.route("/private")

    @private.on_connect
    async def enter(user: Identity) -> None: ...

    guarded = app.route("/guarded")

    @guarded.middleware("message")
    async def guard(socket: Socket, event: Event, call_next: CallNext, user: Identity) -> Any:
        return [user.id, await call_next(socket, event)]

    @guarded.on("*")
    async def rest(data: Any) -> Any:
        return data

    rooms = app.rooms("club:{name}")

    @rooms.authorize
    async def may_join(user: Identity, room: Room) -> bool:
        return user.id == "ada"

    @here.on("join")
    async def join(socket: Socket) -> bool:
        await socket.join("club:a")
        return True

    return app


async def test_handlers_get_the_user_and_not_what_the_client_writes() -> None:
    async with serve_natively(make_app()) as url, connect(url, token="ada") as client:
        for event in ("me", "dependency", "guest", "default"):
            assert await client.request(event, FORGED) == "ada"
        assert await client.request("maybe", FORGED) == ["ada", FORGED]
        assert [name async for name in client.stream("stream.2", FORGED)] == ["ada", "ada"]
        assert await client.request("join", FORGED) is True
    async with serve_natively(make_app()) as url, connect(f"{url}/guarded", token="ada") as client:
        assert await client.request("any", FORGED) == ["ada", FORGED]


async def test_without_a_user_they_refuse_or_allow_it() -> None:
    async with serve_natively(make_app()) as url:
        async with connect(url) as client:
            for event in ("me", "dependency", "join"):
                with pytest.raises(RemoteError) as caught:
                    await client.request(event, FORGED)
                assert caught.value.code == "unauthorized"
            assert await client.request("maybe", FORGED) == [None, FORGED]
            assert await client.request("guest", FORGED) == "guest"
            assert await client.request("default", FORGED) == "nobody"
        async with connect(f"{url}/guarded") as client:
            with pytest.raises(RemoteError, match="unauthorized"):
                await client.request("any", FORGED)
        with pytest.raises(RefusedError) as refused:
            await connect(f"{url}/private")
        assert refused.value.refusal is not None
        assert refused.value.refusal.code == "unauthorized"


@dataclass
class Order:
    by: Identity


class Deep(msgspec.Struct):
    orders: list[Order | None]


class Model(pydantic.BaseModel):
    by: dict[str, Identity]


class Keys(TypedDict):
    by: Identity


class Pair(NamedTuple):
    by: Identity
    close: int


class Admin(Identity):
    pass


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (list[Identity], "Identity"),
        (Identity | str, "Identity"),
        (Order, "Identity"),
        (Deep, "Identity"),
        (Model, "Identity"),
        (list[Model], "Identity"),
        (Keys, "Identity"),
        (Pair, "Identity"),
        (Admin, "Admin"),
        (list[Close], "Close"),
        (dict[str, Event], "Event"),
        (Event, "Event"),
        (list[Socket], "Socket"),
        (list[Room], "Room"),
        (list[Handshake], "Handshake"),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
async def test_types_of_the_framework_are_no_payload(annotation: Any, name: str, raw: bool) -> None:
    app = Symphony()

    async def handle(data: Any) -> None: ...

    handle.__annotations__["data"] = annotation
    if raw:
        app.on_message(handle)
    else:
        app.on("order")(handle)
    with pytest.raises(ConfigurationError, match=rf"parameter 'data'.*\b{name}\b.* not data that a client"):
        async with TestClient(app):
            pass


async def test_a_parameter_with_a_default_that_nothing_fills_keeps_it() -> None:
    app = Symphony()

    @app.on("say")
    async def say(data: str, loud: bool = False, *, times: int = 2) -> str:
        return f"{data} {loud} {times}"

    async with TestClient(app) as client, client.connect("/") as connection:
        assert await connection.request("say", "hi") == "hi False 2"
