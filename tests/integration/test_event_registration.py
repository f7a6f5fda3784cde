"""Which handler an event has: names, patterns, the nearest layer; and what is wrong at start."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from support.clients import Client, Log, connect
from symphony import Close, ConfigurationError, Room, Router, Socket, Symphony

GAME = "0f8fad5b-d9cb-469f-a165-70867728950e"


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def ask(client: Client, event: str, data: Any = None) -> Any:
    """Return what a request is answered with: its reply's data, or the code of its error."""
    await say(client, event=event, data=data, id=1)
    answer = await hear(client)
    assert answer.pop("reply", None) == 1 or answer.pop("error", None) == 1, answer
    return answer["data"]


async def refusal(client: Client, event: str, data: Any = None) -> Any:
    error = await ask(client, event, data)
    assert set(error) == {"code", "message", "retryable", "details"}
    return error["code"], error["details"]


def named(name: str) -> Callable[[], str]:
    def handler() -> str:
        return name

    return handler


# Names


async def test_an_event_runs_the_handler_of_its_exact_name_and_no_other(serve):
    app = Symphony()
    names = ["chat", "chat.say", "chat.say.loud", "chat.", ".", "a b", "žluť 🐎", "Chat", "x" * 256]
    for name in names:
        app.on(name)(named(name))

    async with serve(app) as url, connect(f"{url}/") as client:
        for name in names:
            assert await ask(client, name) == name
        for name in ("chat.sa", "chat.say.", "CHAT", " chat", "chat\n", "a  b", "y.say"):
            assert await refusal(client, name) == ("not_found", {"event": name})


async def test_a_name_of_256_characters_is_heard_and_a_longer_one_or_none_is_invalid(serve):
    app = Symphony()
    app.on("*")(named("any"))
    async with serve(app) as url, connect(f"{url}/") as client:
        assert await ask(client, "🐎" * 256) == "any"
        for name in ("🐎" * 257, ""):
            assert await refusal(client, name) == ("invalid", {"path": "$.event"})


async def test_a_long_name_without_a_handler_is_not_told_back_in_full(serve):
    app = Symphony()
    app.on("x")(named("x"))
    async with serve(app) as url, connect(f"{url}/") as client:
        code, details = await refusal(client, "y" * 256)
        assert code == "not_found"
        assert details == {"event": "y" * 200 + "…"}


async def test_parameters_of_a_name_are_filled_by_name_and_converted_by_type(serve):
    app = Symphony()
    route = app.route("/{table:int}")

    @route.on("game.{id:uuid}.move.{piece}.{by:float}")
    async def move(by: float, data: list[int], socket: Socket, table: int, *, id: UUID, piece: str) -> Any:
        assert isinstance(id, UUID)
        assert isinstance(by, float)
        assert socket.params == {"table": table}
        return [str(id), piece, by, table, data]

    async with serve(app) as url, connect(f"{url}/7") as client:
        assert await ask(client, f"game.{GAME}.move.ž š.1.5", [1]) == [GAME, "ž š", 1.5, 7, [1]]
        assert await ask(client, f"game.{GAME.upper()}.move.k.2", []) == [GAME, "k", 2.0, 7, []]
        assert await refusal(client, f"game.{GAME}.move.k.2", [None]) == ("invalid", {"path": "$[0]"})
        for name in (
            "game.1.move.k.2",
            f"game.{GAME}.move..2",
            f"game.{GAME}.move.k.",
            f"game.{GAME}.move.k.x",
            f"game.{GAME}.move.k.l.2",
            f"game.{GAME}.move.k.-2",
        ):
            code, _ = await refusal(client, name, [1])
            assert code == "not_found", name


async def test_a_handler_need_not_take_the_parameters_of_its_name_nor_the_data(serve):
    app = Symphony()
    app.on("game.{id:int}.move")(named("move"))
    app.on("*")(named("any"))
    async with serve(app) as url, connect(f"{url}/") as client:
        assert await ask(client, "game.7.move", {"any": "thing"}) == "move"
        assert await ask(client, "whatever", {"any": "thing"}) == "any"


async def test_the_catch_all_gets_the_name_and_the_data_of_what_no_other_handler_takes(serve):
    app = Symphony()
    app.on("say")(named("say"))

    @app.on("*")
    async def rest(event: str, data: Any, socket: Socket) -> Any:
        return [event, data, socket.protocol]

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await ask(client, "say") == "say"
        assert await ask(client, "a.b.c", 1) == ["a.b.c", 1, "symphony.v1.json"]
        assert await ask(client, "*", None) == ["*", None, "symphony.v1.json"]
        assert await ask(client, "message", 1) == ["message", 1, "symphony.v1.json"]


@pytest.mark.parametrize("order", [1, -1])
async def test_an_exact_name_beats_a_pattern_and_a_pattern_the_catch_all_in_any_order(serve, order):
    app = Symphony()
    for name in ["game.7", "game.{id:int}", "game.{x:float}", "game.{name}", "{kind}.{name}", "*"][::order]:
        app.on(name)(named(name))
    expected = {
        "game.7": "game.7",
        "game.8": "game.{id:int}",
        "game.8.5": "game.{x:float}",
        "game.x": "game.{name}",
        "chess.7": "{kind}.{name}",
        "chess": "*",
        "game.": "*",
        "game.x.y": "*",
    }
    async with serve(app) as url, connect(f"{url}/") as client:
        assert {name: await ask(client, name) for name in expected} == expected


async def test_a_client_that_says_error_is_not_heard_by_any_handler(serve):
    """Else two peers that do not understand each other would never stop telling each other."""
    app = Symphony()
    heard = Log()

    @app.on("*")
    async def rest(event: str) -> None:
        heard.append(event)

    @app.on("{name}")
    async def pattern(name: str) -> None:
        heard.append(name)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="error", data={"code": "invalid"})
        await say(client, ping=1)
        assert await hear(client) == {"pong": 1}
    assert heard == []


# Layers


async def test_the_nearest_handler_of_an_event_runs_and_only_that(serve):
    app, outer, inner = Symphony(), Router("/outer"), Router("/inner")
    for event, layers in {
        "a": (app, outer, inner),
        "b": (app, outer),
        "c": (app,),
        "d.{n:int}": (app, inner),
    }.items():
        for layer in layers:
            layer.on(event)(named(f"{event} of {layer!r}"))
    route = inner.route("/x")
    route.on("a")(named("a of the route"))
    inner.route("/y")
    outer.include(inner)
    app.include(outer, prefix="/v1")

    async with (
        serve(app) as url,
        connect(f"{url}/v1/outer/inner/x") as x,
        connect(f"{url}/v1/outer/inner/y") as y,
    ):
        assert await ask(x, "a") == "a of the route"
        assert await ask(y, "a") == "a of router '/inner'"
        for client in (x, y):
            assert await ask(client, "b") == "b of router '/outer'"
            assert await ask(client, "c") == "c of app"
            assert await ask(client, "d.1") == "d.{n:int} of router '/inner'"


async def test_an_app_without_routes_speaks_events_on_every_path(serve):
    app = Symphony()
    app.on("x")(named("x"))
    async with serve(app) as url, connect(f"{url}/any/where") as client:
        assert await ask(client, "x") == "x"


async def test_a_handler_added_to_a_router_behind_its_include_counts(serve):
    app, router = Symphony(), Router("/r")
    app.include(router)
    router.route("/x")
    router.on("late")(named("late"))
    async with serve(app) as url, connect(f"{url}/r/x") as client:
        assert await ask(client, "late") == "late"


async def protocol_of(socket: Socket) -> None:
    await socket.send(socket.protocol)


@pytest.mark.parametrize(
    ("app_has", "router_has", "route_has", "events"),
    [
        ("", "", "message", False),
        ("", "", "", False),
        ("", "", "on", True),
        ("", "", "on message", True),
        ("on", "", "", True),
        ("", "on", "", True),
        ("on", "", "message", False),
        ("", "on", "message", False),
        ("on", "message", "", False),
        ("message", "", "on", True),
        ("message", "on", "", True),
        ("on", "message", "on", True),
    ],
)
async def test_the_nearest_layer_with_handlers_decides_whether_a_route_is_raw(
    serve, app_has, router_has, route_has, events
):
    app, router = Symphony(), Router("/r")
    route = router.route("/x")
    app.include(router)
    for layer, has in ((app, app_has), (router, router_has), (route, route_has)):
        if "on" in has.split():
            layer.on("hi")(named("hi"))
        if "message" in has:
            layer.on_message(lambda message: message)
    app.on_connect(protocol_of)

    async with serve(app) as url, connect(f"{url}/r/x") as client:
        greeting = await client.recv()
        assert greeting == ('{"event":"message","data":"symphony.v1.json"}' if events else "raw")
        if events:
            assert await ask(client, "hi") == "hi"
        if "message" in app_has + router_has + route_has:
            await say(client, event="message", data="x", id=1)
            expected = '{"reply":1,"data":"x"}' if events else '{"event": "message", "data": "x", "id": 1}'
            assert await client.recv() == expected


async def test_on_message_is_the_event_message_and_send_is_its_emit(serve):
    app = Symphony()
    app.on("x")(named("x"))

    @app.on_message
    async def handle(socket: Socket, data: int) -> int:
        await socket.send({"n": data})
        await socket.emit("message", {"n": data})
        return -data

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="message", data=7, id=3)
        sent = '{"event":"message","data":{"n":7}}'
        assert [await client.recv() for _ in range(3)] == [sent, sent, '{"reply":3,"data":-7}']
        assert await refusal(client, "message", "x") == ("invalid", {"path": "$"})


async def test_on_of_the_route_beats_on_message_of_the_app_and_the_other_way_round(serve):
    app = Symphony()
    app.on_message(named("app's on_message"))
    app.route("/a").on("message")(named("route's on"))
    router = Router("/r")
    router.on("message")(named("router's on"))
    route = router.route("/b")
    route.on("x")(named("x"))
    route.on_message(named("route's on_message"))
    app.include(router)
    async with serve(app) as url, connect(f"{url}/a") as a, connect(f"{url}/r/b") as b:
        assert await ask(a, "message") == "route's on"
        assert await ask(b, "message") == "route's on_message"


# Forms of handlers


async def test_plain_functions_threads_methods_partials_and_objects_handle_events(serve):
    class Chat:
        async def say(self, data: str) -> str:
            return f"method {data}"

        def __call__(self, data: str) -> str:
            return f"object {data}"

    async def add(a: int, data: int) -> int:
        return a + data

    app = Symphony()

    @app.on("plain")
    def plain(socket: Socket, data: str) -> str:
        socket.emit("before")
        return data.upper()

    @app.on("thread", thread=True)
    def thread(data: str) -> str:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return data.lower()

    app.on("method")(Chat().say)
    app.on("object")(Chat())
    app.on("partial")(partial(add, 40))

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="plain", data="x", id=1)
        assert [await hear(client), await hear(client)] == [
            {"event": "before", "data": None},
            {"reply": 1, "data": "X"},
        ]
        assert await ask(client, "thread", "X") == "x"
        assert await ask(client, "method", "x") == "method x"
        assert await ask(client, "object", "x") == "object x"
        assert await ask(client, "partial", 2) == 42


# What is wrong at start


async def starts(app: Symphony) -> None:
    async with app.lifespan():
        pass


@pytest.mark.parametrize("place", ["app", "router", "route"])
async def test_the_reserved_name_of_symphony_v1_is_refused_at_start(place):
    app = Symphony()
    router = Router("/in")
    app.include(router)
    route = router.route("/")
    route.on("other")(lambda: None)
    {"app": app, "router": router, "route": route}[place].on("error")(lambda: None)
    with pytest.raises(ConfigurationError, match=r"symphony\.v1 reserves the event 'error'"):
        await starts(app)


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ("chat.*", "Use a parameter for a part that varies, 'chat.{name}'. '*' alone matches every event"),
        ("", "cannot be empty"),
        ("x" * 257, "at most 256 characters"),
        ("a.{", "braces are not balanced"),
        ("a.}", "braces are not balanced"),
        ("a.{}", "{} is not a parameter"),
        ("a.{x y}", "is not a parameter"),
        ("a.{x:nothing}", "unknown converter"),
        ("a.{x}.{x}", "the parameter 'x' is used twice"),
        ("a.{x}{y}", "two parameters need text between them"),
        ("a.{x:path}.b", "nothing may come after it"),
        (7, "Write @app.on('say')"),
        (len, "Write @app.on('say')"),
    ],
)
def test_what_is_no_name_of_an_event_is_refused_where_it_is_written(event, problem):
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        Symphony().on(event)


def test_two_handlers_of_one_event_are_refused_and_both_are_named():
    async def first() -> None: ...

    async def second() -> None: ...

    def twice(one: Callable[[Any], Any], other: Callable[[Any], Any]) -> None:
        one(first)
        with pytest.raises(ConfigurationError) as caught:
            other(second)
        assert ".first" in str(caught.value)
        assert ".second" in str(caught.value)
        assert "route '/x'" in str(caught.value)

    for event in ("say", "game.{id}", "*"):
        route = Symphony().route("/x")
        twice(route.on(event), route.on(event))
    route = Symphony().route("/x")
    twice(route.on_message, route.on("message"))
    route = Symphony().route("/x")
    twice(route.on("message"), route.on_message)


class Foreign:
    pass


async def two_payloads(data: str, page: int) -> None: ...
async def wrong_type(id: str, data: Any) -> None: ...
async def foreign(data: Foreign) -> None: ...
async def unknown(data: "Nowhere") -> None: ...  # noqa: F821
async def with_close(close: Close) -> None: ...
async def with_room(room: Room) -> None: ...
async def with_id(id: int) -> None: ...


def generator(data: int) -> Iterator[int]:
    yield data


async def stream(data: int) -> AsyncIterator[int]:
    yield data


@pytest.mark.parametrize(
    ("path", "event", "handler", "parts"),
    [
        ("/x", "say", two_payloads, ["two_payloads", "'page'", "'data' is already", "[int, Query()]"]),
        ("/x", "game.{id:int}", wrong_type, ["wrong_type", "parameter 'id'", "gives int", "is str"]),
        ("/x", "say", foreign, ["foreign", "parameter 'data'", "Foreign", "cannot be decoded"]),
        ("/x", "say", unknown, ["unknown", "Nowhere"]),
        ("/x", "say", with_close, ["with_close", "parameter 'close'", "only a disconnect handler"]),
        ("/x", "say", with_room, ["with_room", "parameter 'room'", "app.room(name)"]),
        ("/{id:int}", "game.{id:int}", with_id, ["with_id", "{id} is a parameter of two patterns"]),
        ("/{event}", "*", with_id, ["with_id", "{event} is a parameter of two patterns"]),
        ("/x", "say", generator, ["generator", "it is a plain generator", "async def"]),
    ],
)  # fmt: skip
async def test_a_handler_that_cannot_be_called_is_named_at_start(path, event, handler, parts):
    app = Symphony()
    app.route(path).on(event)(handler)
    with pytest.raises(ConfigurationError) as caught:
        await starts(app)
    for part in (*parts, f"on({event!r}) of route {path!r}"):
        assert part in str(caught.value)
    assert not app._core.started


@pytest.mark.parametrize("handler", [two_payloads, stream])
async def test_only_a_plain_function_runs_in_a_thread(handler):
    app = Symphony()
    app.on("say", thread=True)(handler)
    with pytest.raises(ConfigurationError, match="thread=True is for a plain `def`"):
        await starts(app)


@pytest.mark.parametrize("register", ["on_connect", "on_disconnect"])
async def test_only_handlers_of_messages_and_events_may_stream(register):
    async def endless() -> AsyncIterator[int]:
        yield 1

    app = Symphony()
    app.on("x")(stream)
    getattr(app, register)(endless)
    with pytest.raises(ConfigurationError, match=r"endless is a generator\. Only a message handler may"):
        await starts(app)


async def test_two_patterns_of_the_same_names_are_refused():
    app = Symphony()
    route = app.route("/x")
    route.on("game.{id:int}")(named("a"))
    route.on("game.{number:int}")(named("b"))
    with pytest.raises(ConfigurationError) as caught:
        await starts(app)
    for part in ("on('game.{number:int}') of route '/x'", "matches the same as 'game.{id:int}'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_concurrency_below_1_is_refused(concurrency):
    app = Symphony()
    app.route("/x", concurrency=concurrency).on("x")(named("x"))
    with pytest.raises(ConfigurationError, match="concurrency= must be at least 1"):
        await starts(app)


def test_what_is_no_function_is_refused():
    with pytest.raises(ConfigurationError, match=r"@app\.on\('x'\) decorates a function, not 7"):
        Symphony().on("x")(7)


def test_the_handler_is_given_back_unchanged():
    assert Symphony().on("x")(stream) is stream
