"""A parameter whose name is nearly one of the path's, and handlers registered twice: found at start."""

import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

import pytest

from support.clients import connect, refused
from symphony import ConfigurationError, Depends, Query, Room, Router, Socket, Symphony
from symphony.testing import TestClient


async def error_of(app: Symphony) -> str:
    with pytest.raises(ConfigurationError) as caught:
        async with TestClient(app):
            pass
    return str(caught.value)


async def test_a_connect_handler_that_misspells_the_path() -> None:
    """It was taken for a query parameter: the app started, and refused everybody."""
    app = Symphony()

    @app.route("/chat/{room}")
    async def enter(socket: Socket, rom: str) -> None: ...

    error = await error_of(app)
    assert error.startswith("on_connect of route '/chat/{room}': handler ")
    assert re.search(rf"enter \({re.escape(__file__)}:\d+\), parameter 'rom': ", error)
    assert error.endswith(
        "did you mean 'room', a parameter of the path? "
        "For a query parameter of that name write `rom: Annotated[str, Query()]`."
    )


async def test_a_message_handler_that_misspells_the_path() -> None:
    """`rom` was the payload, and `text` was blamed for being a second one."""
    app = Symphony()

    @app.route("/chat/{room}").on_message
    async def say(rom: str, text: str) -> None: ...

    error = await error_of(app)
    assert "parameter 'rom': did you mean 'room', a parameter of the path?" in error
    assert "If it is the payload, give it another name." in error


async def test_a_misspelled_parameter_behind_the_payload() -> None:
    app = Symphony()

    @app.route("/chat/{room}").on_message
    async def say(text: str, rom: str) -> None: ...

    assert "parameter 'rom': did you mean 'room', a parameter of the path?" in await error_of(app)


async def test_an_event_handler_that_misspells_its_name() -> None:
    app = Symphony()

    @app.on("game.{number:int}.move")
    async def move(nummber: int, to: str) -> None: ...

    assert "parameter 'nummber': did you mean 'number', a parameter of the event or room?" in await error_of(
        app
    )


async def test_a_room_hook_that_misspells_its_name() -> None:
    app = Symphony()

    @app.rooms("chat:{channel}").on_join
    async def joined(room: Room, chanel: str) -> None: ...

    assert "parameter 'chanel': did you mean 'channel', a parameter of the event or room?" in await error_of(
        app
    )


async def test_a_dependency_that_misspells_the_path() -> None:
    def member(usr: str) -> str:
        return usr

    app = Symphony()

    @app.route("/of/{user}")
    async def enter(socket: Socket, member: Annotated[str, Depends(member)]) -> None: ...

    error = await error_of(app)
    assert "dependency " in error
    assert "parameter 'usr': did you mean 'user', a parameter of the path?" in error


async def test_a_parameter_with_a_default_that_misspells_the_path() -> None:
    app = Symphony()

    @app.route("/chat/{room}").on_disconnect
    async def leave(socket: Socket, rooom: str = "lobby") -> None: ...

    assert "parameter 'rooom': did you mean 'room', a parameter of the path?" in await error_of(app)


async def test_what_only_looks_alike_is_left_alone() -> None:
    app = Symphony()
    route = app.route("/{room}/{date}")

    @route.on_connect
    async def enter(
        socket: Socket, room: str, rooms: int, rom: Annotated[str, Query()], limit: int = 5
    ) -> None: ...

    @route.on_message
    async def say(data: str) -> None: ...

    async with TestClient(app) as test, test.connect("/a/b?rooms=3&rom=x"):
        pass


async def test_a_query_parameter_of_a_wrong_type_says_what_else_could_fill_it() -> None:
    app = Symphony()

    @app.route("/chat/{room}")
    async def enter(socket: Socket, user: dict[str, Any]) -> None: ...

    error = await error_of(app)
    assert "It is read from the query string because nothing else fills it." in error
    for part in ("Socket, Handshake", "Depends(...)", "Query()", "the pattern (room)"):
        assert part in error


async def test_a_second_payload_says_what_else_could_fill_it() -> None:
    app = Symphony()

    @app.route("/chat/{room}").on_message
    async def say(text: str, user: str) -> None: ...

    error = await error_of(app)
    for part in ("'text' is already the payload", "Socket, Handshake", "Depends(...)", "the pattern (room)"):
        assert part in error


# Twice


def place(function: Any) -> str:
    return re.escape(f"{function.__qualname__} ({__file__}:{function.__code__.co_firstlineno})")


async def test_two_routes_of_one_path_name_both_handlers() -> None:
    app, router = Symphony(), Router("/api")

    @app.route("/api/{id}").on_connect
    async def one(socket: Socket) -> None: ...

    @router.route("/{name}").on("say")
    async def other(socket: Socket) -> None: ...

    app.include(router)
    error = await error_of(app)
    assert re.search(
        rf"Pattern '/api/{{name}}' matches the same as '/api/{{id}}': "
        rf"handler .*{place(one)} and handler .*{place(other)}\. Remove one of them, or rename it\.",
        error,
    )


async def test_routes_without_handlers_name_their_lines() -> None:
    app = Symphony()
    app.route("/a")
    app.route("/a")
    lines = re.findall(rf"{re.escape(__file__)}:(\d+)", await error_of(app))
    assert len(lines) == 2
    assert int(lines[1]) == int(lines[0]) + 1


async def test_event_patterns_that_match_the_same_name_both_handlers() -> None:
    app = Symphony()

    @app.on("game.{id:int}")
    async def one(id: int) -> None: ...

    @app.on("game.{number:int}")
    async def other(number: int) -> None: ...

    error = await error_of(app)
    assert re.search(
        rf"matches the same as 'game\.{{id:int}}': handler .*{place(one)} and handler .*{place(other)}", error
    )


@pytest.mark.parametrize("kind", ["on_connect", "on_message", "on_disconnect", "event", "message event"])
def test_a_handler_registered_twice_names_both(kind: str) -> None:
    app = Symphony()
    router = app.route("/x")
    first, second = {
        "on_connect": (router.on_connect, router),
        "on_message": (app.on_message, app.on_message(thread=True)),
        "on_disconnect": (router.on_disconnect, router.on_disconnect),
        "event": (app.on("say"), app.on("say")),
        "message event": (app.on("message"), app.on_message),
    }[kind]

    def one() -> None: ...

    def other() -> None: ...

    first(one)
    with pytest.raises(
        ConfigurationError, match=rf"already has an .*{place(one)}; .*{place(other)} would never run"
    ):
        second(other)


@pytest.mark.parametrize(
    ("path", "lacking"),
    [("/chat/{room}", "'room'"), ("/{a}/{b:int}", "'a' or 'b'"), ("/files/{name:path}", "'name'")],
)
async def test_a_parameter_that_is_like_no_name_of_the_path_is_told_the_names(
    path: str, lacking: str
) -> None:
    """It was taken for the payload, and `text` was blamed for being a second one."""
    app = Symphony()

    @app.route(path).on_message
    async def say(xyz: str, text: str) -> None: ...

    assert f"The handler does not take {lacking} of the pattern. " in await error_of(app)


async def test_no_name_is_told_if_all_are_taken() -> None:
    app = Symphony()

    @app.route("/chat/{room}").on_message
    async def say(room: str, xyz: str, text: str) -> None: ...

    assert "Of the pattern" not in await error_of(app)


async def test_a_client_that_misspells_an_event_is_told_and_the_log_has_the_name(serve, caplog):
    app = Symphony()
    chat = app.route("/chat/{room}")

    @chat.on("say")
    async def say(data: str) -> None: ...

    @chat.on("game.{id:int}.move")
    async def move(data: str) -> None: ...

    async with serve(app) as url, connect(f"{url}/chat/lobby") as socket:
        for event in ("sya", "sya", "game.seven.move", "weather", "game.7.mvoe"):
            await socket.send(json.dumps({"event": event}))
            told = json.loads(await socket.recv())
            assert (told["event"], told["data"]["code"]) == ("error", "not_found")
            # Which names there are is for the log.
            assert told["data"]["message"] == f"no handler for the event '{event}'"
            await socket.send(json.dumps({"event": event, "id": 1}))
            told = json.loads(await socket.recv())
            assert (told["error"], told["data"]["code"]) == (1, "not_found")
    assert [line for line in caplog.messages if "Did you mean" in line] == [
        f"No handler for the event '{event}' in route '/chat/{{room}}'. Did you mean '{meant}'?"
        for event, meant in (
            ("sya", "say"),
            ("game.seven.move", "game.{id:int}.move"),
            ("game.7.mvoe", "game.{id:int}.move"),
        )
    ]


async def test_a_client_that_misspells_a_path_is_told_and_the_log_has_the_path(serve, caplog):
    app = Symphony()
    app.route("/chat/{room}")
    app.route("/news")
    async with serve(app) as url:
        mount = urlsplit(url).path
        for path in ("/chta/lobby", "/nwes", "/nwes", "/admin.php", "/news/", f"/{'n' * 500}"):
            assert (await refused(f"{url}{path}")).status == 404
    assert [line for line in caplog.messages if "Did you mean" in line] == [
        f"No WebSocket route for '{mount}{path}'. Did you mean '{mount}{meant}'?"
        for path, meant in (("/chta/lobby", "/chat/{room}"), ("/nwes", "/news"), ("/news/", "/news"))
    ]
