from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest

from symphony.errors import ConfigurationError, Reject
from symphony.routing.markers import Depends
from symphony.session.threads import run_in_thread
from unit.routing.stages import Close, Handshake, Socket, error_of, on_connect, on_disconnect, on_message


class Say(msgspec.Struct):
    text: str


class Foreign:
    pass


# Calling


def test_the_plain_shape_is_the_handler_itself() -> None:
    async def handler(socket: Socket, message: str) -> None: ...

    assert on_message(handler).call is handler


def test_the_shapes_of_message_handlers() -> None:
    def both(socket: Socket, message: str) -> Any:
        return socket, message

    def reversed_(message: str, socket: Socket) -> Any:
        return socket, message

    def message_only(message: str) -> Any:
        return message

    def socket_only(socket: Socket) -> Any:
        return socket

    def neither() -> Any:
        return "nothing"

    def named(socket: Socket, room: str, message: str) -> Any:
        return socket, room, message

    def many(room: str, opening: Handshake, socket: Socket, message: str) -> Any:
        return room, opening, socket, message

    def by_keyword(*, message: str, socket: Socket) -> Any:
        return socket, message

    socket = Socket[None](room="lobby")

    def call(handler: Any) -> Any:
        return on_message(handler, path_names={"room": "str"}).call(socket, "hi")

    assert call(both) == (socket, "hi")
    assert call(reversed_) == (socket, "hi")
    assert call(message_only) == "hi"
    assert call(socket_only) is socket
    assert call(neither) == "nothing"
    assert call(named) == (socket, "lobby", "hi")
    assert call(many) == ("lobby", socket.handshake, socket, "hi")
    assert call(by_keyword) == (socket, "hi")


async def test_an_async_handler_gives_a_coroutine() -> None:
    async def handler(message: str) -> str:
        return message.upper()

    plan = on_message(handler)
    assert (plan.is_async, plan.is_generator) == (True, False)
    assert await plan.call(Socket(), "hi") == "HI"


def test_a_plain_handler_gives_its_value() -> None:
    def handler(message: str) -> str:
        return message.upper()

    plan = on_message(handler)
    assert (plan.is_async, plan.is_generator, plan.thread) == (False, False, False)
    assert plan.call(Socket(), "hi") == "HI"


async def test_an_async_generator_gives_a_stream() -> None:
    async def handler(message: str) -> AsyncIterator[str]:
        for letter in message:
            yield letter

    plan = on_message(handler)
    assert (plan.is_async, plan.is_generator) == (False, True)
    assert [letter async for letter in plan.call(Socket(), "hi")] == ["h", "i"]


class Handlers:
    async def method(self, socket: Socket, message: str) -> str:
        return message

    async def __call__(self, socket: Socket, message: str) -> str:
        return message


async def praise(socket: Socket, message: str, *, word: str) -> str:
    return f"{message} {word}"


async def greet(greeting: str, socket: Socket, message: str) -> str:
    return f"{greeting} {message}"


@pytest.mark.parametrize(
    ("handler", "reply"),
    [
        (Handlers().method, "hi"),
        (Handlers(), "hi"),
        (functools.partial(greet, "well,"), "well, hi"),
        (functools.partial(praise, word="there"), "hi there"),
    ],
)
async def test_methods_objects_and_partials_are_handlers(handler: Any, reply: str) -> None:
    plan = on_message(handler)
    assert plan.is_async
    assert await plan.call(Socket(), "hi") == reply


def test_a_plan_knows_the_name_of_its_handler() -> None:
    assert on_message(functools.partial(greet, "well,")).name == f"{__name__}.greet"


def test_filling_may_refuse_before_the_handler_is_called() -> None:
    async def handler(socket: Socket, page: int) -> None: ...

    with pytest.raises(Reject, match="query parameter 'page' is missing"):
        on_connect(handler).call(Socket(), None)


# Payloads


def test_the_payload_is_what_remains_and_has_a_reader() -> None:
    def handler(socket: Socket, room: str, say: Say) -> Any:
        return say

    plan = on_message(handler, path_names={"room": "str"})
    assert plan.reader is not None
    payload = plan.reader('{"text": "hi"}')
    assert plan.call(Socket(room="a"), payload) == Say("hi")


def test_a_handler_of_any_message_has_no_reader() -> None:
    def unannotated(socket, message) -> None: ...

    def both(message: str | bytes) -> None: ...

    def no_payload(socket: Socket) -> None: ...

    assert [on_message(each).reader for each in (unannotated, both, no_payload)] == [None, None, None]


def test_a_second_payload_is_an_error_that_suggests_query() -> None:
    def handler(say: Say, page: int) -> None: ...

    def unannotated(a, b) -> None: ...

    assert error_of(on_message, handler) == (
        "on_message of route '/': handler handler, parameter 'page': 'say' is already the payload, and "
        "a handler has only one. "
        "For a query parameter, write `page: Annotated[int, Query()]`. For several fields of the payload, "
        "use one type with these fields. Otherwise annotate it with a type known here (Socket, "
        "Handshake) or with Annotated[..., Depends(...)] or Annotated[..., Query()], or name it like a "
        "parameter of the pattern (none)."
    )
    assert "write `b: Annotated[str, Query()]`" in error_of(on_message, unannotated)


def test_a_payload_that_json_does_not_give_is_an_error() -> None:
    def handler(socket: Socket, thing: Foreign) -> None: ...

    assert error_of(on_message, handler) == (
        "on_message of route '/': handler handler, parameter 'thing': <class 'Foreign'> cannot be "
        "decoded from JSON; "
        "a payload is a msgspec Struct, a dataclass, a TypedDict, a pydantic model, a builtin type, or "
        "a combination of these. It is taken for the payload because nothing else fills it. "
        "If that is wrong, annotate it with a type known here (Socket, Handshake) or with "
        "Annotated[..., Depends(...)] or "
        "Annotated[..., Query()], "
        "or name it like a parameter of the pattern (none)."
    )


# Handlers that are refused


def test_a_plain_generator_is_an_error() -> None:
    def handler(message: str) -> Iterator[str]:
        yield message

    assert error_of(on_message, handler) == (
        "on_message of route '/': handler handler: it is a plain generator. Write an async "
        "generator, with `async def`."
    )


def test_what_cannot_be_called_is_an_error() -> None:
    handler: Any = "greet"
    with pytest.raises(
        ConfigurationError, match="on_message of route '/': a handler is a function, not 'greet'"
    ):
        on_message(handler)


def test_an_error_in_the_signature_names_the_handler() -> None:
    def handler(socket: Socket, *messages: str) -> None: ...

    assert error_of(on_message, handler) == (
        "on_message of route '/': handler handler: *messages cannot be filled; name each parameter."
    )


# Threads


async def test_a_handler_in_a_thread_runs_there_with_its_arguments_filled_here() -> None:
    here = threading.get_ident()

    @dataclass
    class Params(dict[str, Any]):
        filled_in: int = 0

        def __getitem__(self, name: str) -> Any:
            self.filled_in = threading.get_ident()
            return "lobby"

    def handler(room: str, *, close: Close) -> Any:
        return room, close, threading.get_ident()

    plan = on_disconnect(handler, path_names={"room": "str"}, thread=run_in_thread)
    assert (plan.is_async, plan.thread) == (True, True)
    socket, close = Socket[None](), Close()
    socket.params = Params()
    room, given, thread = await plan.call(socket, close)
    assert (room, given) == ("lobby", close)
    assert thread != here
    assert socket.params.filled_in == here


async def test_async_dependencies_of_a_handler_in_a_thread_stay_on_the_loop_and_outlive_it() -> None:
    events: list[Any] = []
    here = threading.get_ident()

    async def session() -> AsyncIterator[str]:
        events.append(("open", threading.get_ident() == here))
        yield "a session"
        events.append(("close", threading.get_ident() == here))

    def handler(message: str, db: Annotated[str, Depends(session)]) -> str:
        events.append((db, threading.get_ident() == here))
        return message

    handler.__annotations__["db"] = Annotated[str, Depends(session)]
    plan = on_message(handler, thread=run_in_thread)
    assert await plan.call(Socket(), "hi") == "hi"
    assert events == [("open", True), ("a session", False), ("close", True)]


def test_an_async_handler_in_a_thread_is_an_error() -> None:
    async def handler(message: str) -> None: ...

    async def stream(message: str) -> AsyncIterator[str]:
        yield message

    for each in (handler, stream):
        assert error_of(on_message, each, thread=run_in_thread).endswith(
            "thread=True is for a plain `def`, and this handler is async."
        )
