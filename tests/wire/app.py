"""The app that `protocol/vectors/README.md` describes, to be held to the vectors."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from symphony import Handshake, Identity, Limits, Position, Reject, Room, Socket, Symphony
from symphony.errors import RemoteError, RequestTimeoutError

__all__ = ("make_app",)


class Say(Struct):
    text: str


class Point(Struct):
    x: int
    y: int


class Move(Struct):
    to: Point
    fast: bool = False


class Tell(Struct):
    event: str
    data: Any = None


class Ask(Struct):
    event: str
    data: Any = None
    timeout: float = 10.0


class Publish(Struct):
    room: str
    event: str
    data: Any = None
    transient: bool = False
    replaces: int | None = None


class Login(Struct):
    id: str
    name: str


class Bye(Struct):
    code: int = 1000
    reason: str = ""


def _busy(app: Symphony, name: str) -> None:
    busy = app.route(f"/{name}")

    @busy.on_connect
    async def keep_waiting(socket: Socket) -> None:
        if name == "busy-late":
            await socket.emit("hello")
        elif name == "busy-late-raw":
            await socket.send("hello")
        raise Reject(
            "test.busy",
            "no seat is left",
            details={"seats": 0},
            retryable=True,
            retry_after=1.5,
            status=409,
            close_code=4999,
        )

    if name == "busy-late-raw":
        busy.on_message(_echo)
    else:
        busy.on("echo")(_echo)


async def _echo(data: Any) -> Any:
    return data


def make_app(limits: Limits | None = None) -> Symphony:
    """Return an app that has not run yet."""
    app = Symphony(limits=limits)
    events = app.route("/")

    @events.on("echo")
    async def echo(data: Any) -> Any:
        return data

    @events.on("nothing")
    async def nothing() -> None:
        return None

    @events.on("sum")
    async def add(numbers: list[int]) -> int:
        return sum(numbers)

    @events.on("say")
    async def say(data: Say) -> None:
        return None

    @events.on("token")
    async def token(handshake: Handshake) -> str | None:
        return handshake.token

    @events.on("move")
    async def move(data: Move) -> Point:
        return data.to

    @events.on("game.{id:int}.move")
    async def play(id: int, data: Any) -> dict[str, Any]:
        return {"game": id, "move": data}

    @events.on("reverse")
    async def reverse(data: bytes) -> bytes:
        return data[::-1]

    @events.on("later")
    async def later(instant: datetime) -> datetime:
        return instant + timedelta(seconds=1)

    @events.on("tell")
    async def tell(socket: Socket, data: Tell) -> None:
        await socket.emit(data.event, data.data)

    @events.on("send")
    async def send(socket: Socket, data: Any) -> None:
        await socket.send(data)

    @events.on("fail")
    async def fail() -> None:
        raise ZeroDivisionError("as it was asked for")

    @events.on("refuse")
    async def refuse(data: Any) -> None:
        raise Reject("test.refused", "no", details=data)

    @events.on("sold_out")
    async def sold_out() -> None:
        raise Reject("test.sold_out", "no ring is left", details={"item": "ring"}, retryable=True)

    @events.on("forbid")
    async def forbid() -> None:
        raise Reject("forbidden", "no")

    @events.on("sleep")
    async def sleep() -> None:
        await asyncio.Event().wait()

    @events.on("count")
    async def count(to: int) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number

    @events.on("each")
    async def each(items: list[Any]) -> AsyncIterator[Any]:
        for item in items:
            yield item

    @events.on("count_then_fail")
    async def count_then_fail(to: int) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number
        raise Reject("test.failed", "no more", details={"after": to}, retryable=True)

    @events.on("count_then_crash")
    async def count_then_crash(to: int) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number
        raise ZeroDivisionError("as it was asked for")

    @events.on("stall")
    async def stall() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    @events.on("ask")
    async def ask(socket: Socket, data: Ask) -> dict[str, Any]:
        try:
            return {"reply": await socket.request(data.event, data.data, timeout=data.timeout)}
        except RemoteError as error:
            fields = ("code", "message", "retryable", "details")
            return {"error": {name: getattr(error, name) for name in fields}}
        except RequestTimeoutError:
            return {"timeout": True}

    kept = app.rooms("kept:{name}", history=3, client_join=True)
    app.rooms("open:{name}", client_join=True)
    drawn = app.rooms("drawn:{name}", history=3, client_join=True)

    @drawn.snapshot
    async def everything(room: Room) -> list[Any]:
        return [publication.data for publication in await room.history()]

    app.rooms("closed:{name}", history=3)
    strict = app.rooms("strict:{name}", client_join=True)

    @strict.on_join
    def refuse_all() -> None:
        raise Reject("forbidden", "not today")

    @kept.on_join
    async def greet(socket: Socket, room: Room, name: str) -> None:
        if name == "greeting":
            await room.emit("came")

    app.rooms("shown:{name}", presence=True, client_join=True)

    @events.on("login")
    async def login(socket: Socket, data: Login) -> None:
        socket.login(Identity(data.id, {"name": data.name}))

    spoken = app.rooms("spoken:{name}", history=3, client_join=True)

    @spoken.on_publish("said")
    def in_public(data: str) -> str | None:
        if data == "rude":
            raise Reject("forbidden", "be polite")
        return "HI" if data == "hi" else None

    @events.on("publish")
    async def publish(data: Publish) -> None:
        room, replaces = app.room(data.room), None
        if data.replaces is not None:
            newest = (await room.history(1))[-1].position
            assert newest is not None
            replaces = Position(newest.epoch, data.replaces)
        await room.emit(data.event, data.data, transient=data.transient, replaces=replaces)

    @events.on("enter")
    async def enter(socket: Socket, room: str) -> None:
        await socket.join(room)

    @events.on("exit")
    async def exit_room(socket: Socket, room: str) -> bool:
        return await socket.leave(room)

    @events.on("bye")
    async def bye(socket: Socket, data: Bye | None) -> None:
        data = data or Bye()
        await socket.close(data.code, data.reason)

    @app.route("/raw").on_message
    async def repeat(message: str | bytes) -> str | bytes:
        return message

    for name in ("busy", "busy-late", "busy-late-raw"):
        _busy(app, name)

    refused = app.route("/refused")

    @refused.on_connect
    async def keep_out() -> None:
        raise Reject("forbidden", "ask the owner")

    @refused.on("echo")
    async def never(data: Any) -> Any:
        return data

    return app
