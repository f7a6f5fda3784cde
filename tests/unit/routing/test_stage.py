"""The rules by which parameters are filled."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, NewType
from uuid import UUID

import pytest

from symphony.errors import Reject
from symphony.routing.markers import Query
from unit.routing.stages import (
    CONNECT,
    Close,
    Handshake,
    Room,
    Socket,
    error_of,
    on_connect,
    on_disconnect,
    on_empty,
    on_join,
    on_message,
)

RoomName = NewType("RoomName", str)


# By annotation


def test_known_types_are_filled_by_annotation_in_any_order_and_under_any_name() -> None:
    def handler(opening: Handshake, who: Socket) -> Any:
        return opening, who

    socket = Socket[None]()
    assert on_connect(handler).call(socket, None) == (socket.handshake, socket)


def test_a_generic_type_is_known_by_its_origin() -> None:
    def handler(who: Socket[dict[str, int]], again: Annotated[Socket[Any], "documentation"]) -> Any:
        return who, again

    socket = Socket[Any]()
    assert on_connect(handler).call(socket, None) == (socket, socket)


def test_a_known_type_that_may_be_none_is_filled_too() -> None:
    """An error handler written as documented, `(socket: Socket | None, error)`, was refused."""

    def handler(who: Socket[Any] | None, opening: Annotated[Handshake | None, "documentation"]) -> Any:
        return who, opening

    socket = Socket[Any]()
    assert on_connect(handler).call(socket, None) == (socket, socket.handshake)


def test_the_subject_of_a_disconnect_is_its_close() -> None:
    def handler(socket: Socket, close: Close) -> Any:
        return close

    close = Close()
    assert on_disconnect(handler).call(Socket(), close) is close


def test_an_unannotated_first_parameter_named_socket_is_the_socket() -> None:
    def handler(socket, close: Close) -> Any:
        return socket

    socket = Socket[None]()
    assert on_disconnect(handler).call(socket, Close()) is socket


def test_a_type_of_another_stage_is_an_error_that_says_why() -> None:
    def handler(socket: Socket, close: Close) -> None: ...

    assert error_of(on_connect, handler) == (
        "on_connect of route '/': handler handler, parameter 'close': a Close is there in disconnect "
        "handlers only."
    )


def test_a_stage_may_look_at_the_annotations_that_it_fills() -> None:
    def check(annotation: Any) -> str | None:
        return "the state of this route is Chat." if annotation == Socket[int] else None

    def right(socket: Socket[str]) -> None: ...

    def wrong(socket: Socket[int]) -> None: ...

    known = replace(CONNECT, check=check)
    on_connect(right, known=known)
    assert error_of(on_connect, wrong, known=known) == (
        "on_connect of route '/': handler wrong, parameter 'socket': the state of this route is Chat."
    )


# By name


def test_a_path_parameter_is_filled_by_its_name() -> None:
    def handler(id: int, message: str, room) -> Any:
        return id, message, room

    plan = on_message(handler, path_names={"room": "str", "id": "int"})
    assert plan.call(Socket(room="lobby", id=7), "hi") == (7, "hi", "lobby")


def test_a_parameter_of_the_rooms_pattern_comes_from_the_room() -> None:
    def handler(socket: Socket, name: str, room: Room) -> Any:
        return name

    assert on_join(handler).call(Socket(name="of the path"), Room(name="a")) == "a"


@pytest.mark.parametrize(
    ("converter", "annotation"),
    [
        ("str", str),
        ("str", RoomName),
        ("str", str | None),
        ("str", Any),
        ("str", object),
        ("str", Annotated[str, "documentation"]),
        ("path", str),
        ("int", int),
        ("int", float),
        ("float", float),
        ("uuid", UUID),
        ("slug", bytes),
    ],
)
def test_an_annotation_that_fits_the_converter_is_taken(converter: str, annotation: Any) -> None:
    def handler(x: Any) -> Any:
        return x

    handler.__annotations__["x"] = annotation
    assert on_connect(handler, path_names={"x": converter}).call(Socket(x="value"), None) == "value"


def test_an_annotation_that_does_not_fit_suggests_the_converter() -> None:
    def number(id: int) -> None: ...

    def key(id: UUID) -> None: ...

    def text(id: str) -> None: ...

    def data(id: bytes) -> None: ...

    where = "on_connect of route '/': handler"
    assert error_of(on_connect, number, path_names={"id": "str"}) == (
        f"{where} number, parameter 'id': {{id}} in the pattern gives str, and its annotation is int. "
        "Write {id:int} in the pattern, or annotate it with str."
    )
    assert error_of(on_connect, key, path_names={"id": "int"}) == (
        f"{where} key, parameter 'id': {{id:int}} in the pattern gives int, and its annotation is UUID. "
        "Write {id:uuid} in the pattern, or annotate it with int."
    )
    assert error_of(on_connect, text, path_names={"id": "int"}) == (
        f"{where} text, parameter 'id': {{id:int}} in the pattern gives int, and its annotation is str. "
        "Write {id} in the pattern, or annotate it with int."
    )
    assert error_of(on_connect, data, path_names={"id": "str"}) == (
        f"{where} data, parameter 'id': {{id}} in the pattern gives str, and its annotation is bytes. "
        "Annotate it with str, or rename it if another value is meant."
    )


def test_a_name_in_two_patterns_is_an_error() -> None:
    def handler(room: Room) -> None: ...

    assert error_of(on_join, handler, path_names={"name": "str"}) == (
        "on_join of rooms 'chat:{name}': handler handler: {name} is a parameter of two patterns. Rename "
        "one of them."
    )


def test_an_annotation_goes_before_the_name() -> None:
    def handler(name: Room, room: Annotated[str, Query()]) -> Any:
        return name, room

    room = Room(name="a")
    assert on_join(handler).call(Socket("room=b"), room) == (room, "b")


# What remains


def test_what_remains_in_a_connect_handler_is_read_from_the_query() -> None:
    def handler(socket: Socket, q, page: int = 1, *, tags: list[str] | None) -> Any:
        return q, page, tags

    plan = on_connect(handler)
    assert plan.call(Socket("q=a&page=3"), None) == ("a", 3, None)
    assert plan.call(Socket("q=a&tags=x&tags=y"), None) == ("a", 1, ["x", "y"])
    with pytest.raises(Reject, match="query parameter 'q' is missing"):
        plan.call(Socket(""), None)
    with pytest.raises(Reject, match="query parameter 'page' must be an integer, not 'x'"):
        plan.call(Socket("q=a&page=x"), None)


def test_query_parameters_work_in_message_handlers_and_under_an_alias() -> None:
    def handler(message: str, size: Annotated[int, Query(alias="page-size")] = 10) -> Any:
        return message, size

    plan = on_message(handler)
    assert plan.call(Socket("page-size=3"), "hi") == ("hi", 3)
    assert plan.call(Socket(), "hi") == ("hi", 10)


def test_each_call_has_a_query_value_of_its_own() -> None:
    def handler(message: str, tags: Annotated[list[str], Query()]) -> Any:
        tags.append(message)
        return tags

    plan, socket = on_message(handler), Socket[None]("tags=a")
    plan.call(socket, "first")
    assert plan.call(socket, "second") == ["a", "second"]


def test_a_type_that_the_query_cannot_give_is_an_error() -> None:
    def handler(socket: Socket, options: dict[str, str]) -> None: ...

    assert error_of(on_connect, handler).startswith(
        "on_connect of route '/': handler handler, parameter 'options': dict[str, str] is not supported "
        "in a query string; use str, int,"
    )


def test_what_nothing_fills_is_an_error_that_says_what_could() -> None:
    def handler(socket: Socket, reason: str) -> None: ...

    assert error_of(on_disconnect, handler, path_names={"room": "str"}) == (
        "on_disconnect of route '/': handler handler, parameter 'reason': nothing fills it. Either "
        "annotate it with "
        "a type known here (Socket, Close) or with Annotated[..., Depends(...)] or Annotated[..., Query()], "
        "or name it like a parameter of the pattern (room)."
    )


def test_what_nothing_fills_keeps_its_default() -> None:
    def handler(socket: Socket, verbose: bool = True, *, level: int = 3) -> Any:
        return verbose, level

    assert on_disconnect(handler).call(Socket(), Close()) == (True, 3)


# A stage without a socket


def test_a_stage_without_a_socket_fills_the_rest() -> None:
    def handler(room: Room, name: str) -> Any:
        return room, name

    room = Room(name="a")
    assert on_empty(handler).call(None, room) == (room, "a")


def test_a_stage_without_a_socket_has_no_query_either() -> None:
    def handler(room: Room, page: Annotated[int, Query()]) -> None: ...

    def unannotated(socket) -> None: ...

    where = "on_empty of rooms 'chat:{name}': handler"
    why = "on_empty has no socket; the last one has left."
    assert error_of(on_empty, handler) == f"{where} handler, parameter 'page': {why}"
    assert error_of(on_empty, unannotated) == f"{where} unannotated, parameter 'socket': {why}"


def test_a_stage_without_a_socket_does_not_suggest_the_query() -> None:
    def handler(room: Room, page: int) -> None: ...

    assert error_of(on_empty, handler).endswith(
        "parameter 'page': nothing fills it. Either annotate it with a type known here (Room) or with "
        "Annotated[..., Depends(...)], or name it like a parameter of the pattern (name)."
    )
