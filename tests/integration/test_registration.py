"""Mistakes in how an app is put together: found at start, named with handler and parameter."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
import pytest
from starlette.requests import HTTPConnection, Request

from support.clients import connect
from symphony import (
    Close,
    ConfigurationError,
    Depends,
    Handshake,
    Limits,
    Query,
    Reject,
    Room,
    Router,
    Socket,
    Symphony,
)


class ChatState:
    pass


class OtherState:
    pass


async def starts(app: Symphony) -> None:
    async with app.lifespan():
        pass


async def refuses(app: Symphony, *parts: str) -> None:
    """Check that the app does not start, and that the error says all of *parts*."""
    with pytest.raises(ConfigurationError) as caught:
        await starts(app)
    for part in parts:
        assert part in str(caught.value)
    # The app is as it was: it can be mended and started.
    assert not app._core.started


async def test_a_second_payload_is_an_error_that_suggests_query():
    app = Symphony()

    @app.route("/chat").on_message
    async def say(message: str, page: int) -> None: ...

    await refuses(
        app,
        "on_message of route '/chat'",
        "test_a_second_payload_is_an_error_that_suggests_query.<locals>.say",
        "parameter 'page'",
        "'message' is already the payload",
        "page: Annotated[int, Query()]",
    )


async def test_what_cannot_be_filled_in_a_disconnect_handler_is_named():
    app = Symphony()

    @app.on_disconnect
    async def leave(socket: Socket, code: int) -> None: ...

    await refuses(app, "on_disconnect of the app", ".leave", "parameter 'code': nothing fills it", "Close")


async def test_a_close_is_for_disconnect_handlers_only():
    app = Symphony()

    @app.on_connect
    async def enter(close: Close) -> None: ...

    await refuses(app, "parameter 'close'", "only a disconnect handler has a Close")


async def test_a_room_is_for_room_hooks_only():
    app = Symphony()

    @app.on_connect
    async def enter(room: Room) -> None: ...

    await refuses(app, "parameter 'room'", "app.room(name)", "socket.join(name)")


async def test_a_query_type_that_a_query_string_cannot_give_is_named():
    app = Symphony()

    @app.on_connect
    async def enter(options: dict) -> None: ...

    await refuses(app, ".enter", "parameter 'options'", "is not supported in a query string")


async def test_a_payload_type_that_json_cannot_give_is_named():
    app = Symphony()

    @app.on_message
    async def handle(message: Callable) -> None: ...

    await refuses(app, ".handle", "parameter 'message'")


async def test_a_path_parameter_of_another_type_than_its_pattern_gives_is_named():
    app = Symphony()

    @app.route("/things/{id}").on_connect
    async def enter(id: int) -> None: ...

    await refuses(app, "parameter 'id'", "{id} in the pattern gives str", "Write {id:int} in the pattern")


async def test_an_annotation_that_does_not_resolve_is_named():
    app = Symphony()

    @app.on_message
    async def handle(message: "Missing") -> None: ...  # noqa: F821

    await refuses(app, ".handle", "parameter 'message'", "'Missing'", "not known at run time")


async def test_fastapis_own_marks_are_refused_with_a_hint():
    app = Symphony()

    @app.on_connect
    async def enter(db: Annotated[Any, fastapi.Depends(dict)]) -> None: ...

    await refuses(
        app, "parameter 'db'", "Depends is FastAPI's and has no effect here", "from symphony import Depends"
    )


async def test_a_mark_as_default_value_is_refused_with_what_to_write():
    app = Symphony()

    @app.on_connect
    async def enter(page: int = Query()) -> None: ...

    await refuses(app, "parameter 'page'", "Write `page: Annotated[<type>, Query()]`")


async def test_star_parameters_are_refused():
    app = Symphony()

    @app.on_message
    async def handle(*parts: str) -> None: ...

    await refuses(app, ".handle", "*parts cannot be filled")


async def test_a_decorator_that_hides_a_handlers_parameters_is_seen_through():
    def logged(handler):
        @functools.wraps(handler)
        async def inner(*args, **kwargs):
            return await handler(*args, **kwargs)

        return inner

    app = Symphony()

    @app.on_message
    @logged
    async def handle(socket: Socket, message: str) -> None: ...

    await starts(app)


async def test_a_plain_generator_is_refused():
    app = Symphony()

    @app.on_message
    def count(message: str) -> Iterator[int]:
        yield 1

    await refuses(app, ".count", "Write an async generator")


@pytest.mark.parametrize("stage", ["on_connect", "on_disconnect", "on_error"])
async def test_only_message_handlers_may_be_generators(stage):
    app = Symphony()

    async def handler(socket: Socket):
        yield 1

    getattr(app, stage)(handler)
    await refuses(app, stage, ".handler", "Only a message handler may `yield`")


async def test_an_async_handler_cannot_run_in_a_thread():
    app = Symphony()

    @app.on_message(thread=True)
    async def handle(message: str) -> None: ...

    await refuses(app, ".handle", "thread=True is for a plain `def`")


async def test_the_state_that_a_handler_wants_is_checked():
    app = Symphony()

    @app.route("/typed", state=ChatState).on_connect
    async def enter(socket: Socket[OtherState]) -> None: ...

    await refuses(app, ".enter", "wants Socket[OtherState], but the state of the route is ChatState")


async def test_a_handler_that_wants_state_of_a_route_without_is_told_what_to_write():
    app = Symphony()

    @app.route("/plain").on_message
    async def handle(socket: Socket[ChatState], message: str) -> None: ...

    await refuses(app, ".handle", "Give it state=ChatState")


class Demanding:
    def __init__(self, name: str) -> None:
        self.name = name


async def test_a_state_that_needs_arguments_is_an_error_at_start_and_not_at_the_first_message():
    app = Symphony()
    app.route("/typed", state=Demanding)

    await refuses(app, "route '/typed'", "state=Demanding", "missing a required argument: 'name'")


async def test_so_is_a_state_of_rooms_with_a_parameter_that_nothing_fills():
    app = Symphony()
    app.rooms("chat:{room}", state=Demanding)

    await refuses(app, "state= of rooms 'chat:{room}'", "'name'")


async def test_a_state_without_a_signature_is_taken_on_trust():
    app = Symphony()
    app.route("/typed", state=dict)

    await starts(app)


async def test_a_hook_that_nobody_in_particular_calls_has_no_socket():
    app = Symphony()
    rooms = app.rooms("chat:{name}")

    @rooms.on_empty
    async def gone(socket: Socket) -> None: ...

    await refuses(app, "on_empty of rooms 'chat:{name}'", "parameter 'socket'", "not called for one socket")


async def test_a_hook_parameter_that_nothing_fills_is_named():
    app = Symphony()

    @app.rooms("chat:{name}").on_join
    async def joined(room: Room, nickname: str) -> None: ...

    await refuses(app, "on_join of rooms 'chat:{name}'", "parameter 'nickname': nothing fills it", "(name)")


async def test_dependencies_that_need_each_other_are_refused():
    def first(second: Annotated[Any, Depends(lambda: None)]) -> None: ...

    def second(first: Annotated[Any, Depends(first)]) -> None: ...

    first.__annotations__["second"] = Annotated[Any, Depends(second)]
    app = Symphony()

    @app.on_connect
    async def enter(value: Annotated[Any, Depends(first)]) -> None: ...

    await refuses(app, "parameter 'value'", "these dependencies form a cycle", "first -> ")


async def test_a_socket_dependency_cannot_use_one_of_a_call():
    def session() -> None: ...

    def cache(session: Annotated[Any, Depends(session)]) -> None: ...

    app = Symphony()

    @app.on_connect
    async def enter(cache: Annotated[Any, Depends(cache, scope="socket")]) -> None: ...

    await refuses(app, "cache", "outlives one with scope='call'", "session")


async def test_a_hidden_generator_dependency_is_refused():
    @asynccontextmanager
    async def session():
        yield 1

    app = Symphony()

    @app.on_connect
    async def enter(db: Annotated[Any, Depends(session)]) -> None: ...

    await refuses(app, "parameter 'db'", "Remove @asynccontextmanager")


async def test_duplicate_paths_are_refused_at_start():
    app, router = Symphony(), Router("/api")
    app.route("/api/{id}")
    router.route("/{name}")
    app.include(router)
    await refuses(app, "Pattern '/api/{name}' matches the same as '/api/{id}'")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("chat", "Path 'chat' must start with '/'"),
        ("/{a}{b}", "two parameters need text between them"),
        ("/{a}/{a}", "the parameter 'a' is used twice"),
        ("/{a", "its braces are not balanced"),
        ("/{a:integer}", "has an unknown converter; known are"),
        ("/{a:path}/x", "nothing may come after it"),
        ("/{}", "{} is not a parameter"),
    ],
)
async def test_a_wrong_path_is_refused_where_it_is_written(path, problem):
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        Symphony().route(path)


async def test_a_second_handler_of_a_kind_is_refused_where_it_is_registered():
    app = Symphony()

    @app.on_message
    async def first(message: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"already has an on_message handler, .*\.first .*\.second"):

        @app.on_message
        async def second(message: str) -> None: ...


async def test_something_that_is_no_function_is_refused():
    with pytest.raises(ConfigurationError, match="on_connect decorates a function, not 'hello'"):
        Symphony().on_connect("hello")


async def test_a_router_cannot_include_itself():
    outer, inner = Router("/a"), Router("/b")
    outer.include(inner)
    with pytest.raises(ConfigurationError, match="cannot be included into itself"):
        inner.include(outer)


@pytest.mark.parametrize("prefix", ["api", "/api/", "/"])
async def test_a_wrong_prefix_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="must start with '/' and not end with it"):
        Router(prefix)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"origins": ["example.com"]}, "https://example.com"),
        ({"origins": "https://example.com"}, "list"),
        ({"subprotocols": ["two words"]}, "must be one word"),
        (
            {"slow_consumer": "wait"},
            "slow_consumer= is 'disconnect', 'drop_oldest', 'conflate' or 'resync', not 'wait'",
        ),
    ],
)
async def test_a_wrong_option_is_refused_with_what_to_write(options, problem):
    await refuses(Symphony(**options), problem)


async def test_limits_are_checked_where_they_are_made():
    with pytest.raises(ValueError, match=r"Limits\.max_queue must be above 0, not 0"):
        Limits(max_queue=0)
    for wrong in ("1MB", None, True, [1]):
        with pytest.raises(
            TypeError, match=re.escape(f"Limits.max_message_bytes must be a number, not {wrong!r}.")
        ):
            Limits(max_message_bytes=wrong)
    for name in ("max_recovery", "max_queue", "max_history_bytes", "min_body_rate"):
        with pytest.raises(TypeError, match=rf"Limits\.{name} must be a whole number, not 2\.5"):
            Limits(**{name: 2.5})
    assert Limits(page_timeout=2.5, idle_timeout=1, max_outbox_age=0.5).page_timeout == 2.5
    with pytest.raises(ValueError, match=r"Limits\.close_timeout must be above 0, not nan"):
        Limits(close_timeout=float("nan"))
    assert Limits(max_outbox_age=None).max_outbox_age is None
    with pytest.raises(ValueError, match="low_water_bytes must not be above high_water_bytes"):
        Limits(low_water_bytes=2, high_water_bytes=1)


async def test_a_reject_code_without_a_namespace_is_refused():
    with pytest.raises(ValueError, match=r"'sold_out' is not one of Symphony's .* 'shop\.sold_out'"):
        Reject("sold_out")
    with pytest.raises(ValueError, match=r"such as 'shop\.no_stock'"):
        Reject("no stock")
    for wrong in (404, None, b"not_found"):
        with pytest.raises(
            TypeError,
            match=re.escape(f"not {wrong!r}. For an HTTP status, write Reject('not_found', status=404)"),
        ):
            Reject(wrong)
    with pytest.raises(ValueError, match=r"status 302 is not an HTTP error"):
        Reject("forbidden", status=302)


async def test_an_app_that_was_mended_starts(serve):
    app = Symphony()
    route = app.route("/x")

    @route.on_connect
    async def enter(socket: Socket, handshake: Handshake) -> None:
        await socket.send("hi")

    app.rooms("chat:{name}")
    with pytest.raises(ConfigurationError, match=r"There are rooms 'chat:{name}' already"):
        app.rooms("chat:{name}")
    async with serve(app) as url, connect(f"{url}/x") as client:
        assert await client.recv() == "hi"


async def test_rooms_and_sockets_before_the_start_are_an_error_that_says_so():
    app = Symphony()
    for use in (lambda: app.room("a"), lambda: app.everyone, lambda: app.socket("x"), lambda: app.user("x")):
        with pytest.raises(RuntimeError, match="The app is not running"):
            use()


async def test_an_app_cannot_run_twice_at_once():
    app = Symphony()
    async with app.lifespan():
        with pytest.raises(RuntimeError, match="This app runs already"):
            await starts(app)
    await starts(app)


@pytest.mark.parametrize("kind", [Request, HTTPConnection, fastapi.WebSocket, Request | None])
@pytest.mark.parametrize(
    "stage", ["on_connect", "on_message", "on_disconnect", "event", "dependency", "hook"]
)
async def test_types_of_starlette_and_fastapi_are_refused_with_what_to_write(kind, stage):
    app = Symphony()

    async def handler(socket: Socket, request: kind) -> None: ...

    def depends(request: kind) -> int:
        return 1

    async def indirect(socket: Socket, number: Annotated[int, Depends(depends)]) -> None: ...

    if stage == "event":
        app.on("say")(handler)
    elif stage == "dependency":
        app.on("say")(indirect)
    elif stage == "hook":
        app.rooms("chat:{name}").on_join(handler)
    else:
        getattr(app, stage)(handler)
    name = getattr(kind, "__name__", "Request")
    await refuses(
        app,
        f"parameter 'request': {name} is a type of Starlette and FastAPI, which Symphony does not provide. "
        "Annotate it with Socket for the connection, or with Handshake for its opening request.",
    )
