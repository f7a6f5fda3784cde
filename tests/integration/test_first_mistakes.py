"""Mistakes of a first chat with history, presence and private messages: each says what to do."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from symphony import Identity, Reject, Socket, Symphony
from symphony.cli.workers.sharing import broker_in
from symphony.errors import ConfigurationError, RemoteError
from symphony.testing import TestClient


def chat(room: str | None = "chat:{room}", **options: Any) -> Symphony:
    app = Symphony()
    app.rooms("chat:{name}", **options)
    app.route("/chat/{room}", room=room, events=True)
    return app


async def test_a_room_that_clients_may_not_join_says_what_lets_them() -> None:
    app = chat(history=10)
    async with TestClient(app) as client, client.connect("/chat/lobby") as ann:
        # The route has let it in, so it may have the room.
        assert (await ann.join("chat:lobby")).name == "chat:lobby"
        texts: set[str] = set()
        for name in ("chat:kitchen", "chta:lobby", "lobby"):
            with pytest.raises(RemoteError, match="client_join=True or an authorize hook") as refused:
                await ann.join(name)
            texts.add(refused.value.message.replace(name, "NAME"))
        # A client does not learn which rooms the app knows.
        assert len(texts) == 1


@pytest.mark.parametrize("event", ["say", "sayd", "Said"])
async def test_an_event_that_clients_may_not_publish_names_the_hook(event: str) -> None:
    app = Symphony()
    rooms = app.rooms("chat:{name}", client_join=True)
    rooms.on_publish("said")(lambda data: data)
    app.route("/", events=True)
    async with TestClient(app) as client, client.connect("/") as ann:
        room = await ann.join("chat:lobby")
        with pytest.raises(RemoteError, match="no on_publish of its rooms is for it"):
            await room.emit(event, "hi")


@pytest.mark.parametrize(("first", "second"), [({"at": 1}, {"at": 2}), ("hi", "ho"), (None, 0)])
async def test_a_key_with_other_data_says_that_a_repeat_must_be_the_same(first: Any, second: Any) -> None:
    app = chat(history=10)
    async with TestClient(app):
        room = app.room("chat:lobby")
        position = await room.emit("said", first, key="1")
        assert await room.emit("said", first, key="1") == position
        with pytest.raises(Reject, match="a repeat must have the same event and data"):
            await room.emit("said", second, key="1")
        with pytest.raises(Reject, match="a repeat must have the same event and data"):
            await room.emit("meant", first, key="1")


@pytest.mark.parametrize("handler", ["plain", "coroutine"])
async def test_a_client_that_asks_who_is_there_is_warned_if_nothing_will_tell(
    handler: str, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(presence: object) -> None: ...

    async def coroutine(presence: object) -> None: ...

    app = Symphony()
    app.rooms("told:{name}", client_join=True, presence=True)
    app.rooms("quiet:{name}", client_join=True, history=10, grace=5)
    app.route("/", events=True)
    with caplog.at_level(logging.WARNING, "symphony.client"):
        async with TestClient(app) as client, client.connect("/") as ann:
            (await ann.join("told:a")).on_presence({"plain": plain, "coroutine": coroutine}[handler])
            assert caplog.messages == []
            (await ann.join("quiet:a")).on_presence({"plain": plain, "coroutine": coroutine}[handler])
    assert caplog.messages == [
        f"The server does not tell who is in the room 'quiet:a', so {handler} is not called. "
        "The server tells it in rooms with presence=True."
    ]


@pytest.mark.parametrize(
    ("room", "near"),
    [
        ("chta:{room}", "chat:{name}"),
        ("chat/{room}", "chat:{name}"),
        ("chats:{room}", "chat:{name}"),
        ("lobbies:{room}", "lobby:{id}"),
        ("chat:{room}", None),
        ("chat:lobby", None),
        ("game:{room}", None),
        ("{room}", None),
    ],
)
async def test_the_room_of_a_route_that_is_misspelled_is_logged(
    room: str, near: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    app = chat(room, history=10)
    app.rooms("lobby:{id}")
    with caplog.at_level(logging.WARNING, "symphony.app"):
        async with TestClient(app) as client, client.connect("/chat/a"):
            pass
    expected = f"route '/chat/{{room}}': room='{room}' has no app.rooms(). Did you mean '{near}'?"
    assert caplog.messages == ([] if near is None else [expected])


@pytest.mark.parametrize("id", [7, b"ann", ("ann",), 1.5])
def test_the_id_of_a_user_is_text(id: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"Identity.id is text, not {id!r}.")):
        Identity(id)


@pytest.mark.parametrize("use", ["request", "emit", "join", "receive_event", "close"])
async def test_a_connection_that_is_not_open_says_how_to_open_it(use: str) -> None:
    async with TestClient(chat()) as client:
        connecting: Any = client.connect("/chat/lobby")
        with pytest.raises(AttributeError, match=re.escape("Write `async with client.connect(...)")):
            getattr(connecting, use)
        with pytest.raises(AttributeError, match="'Connecting' object has no attribute 'ask'"):
            _ = connecting.ask


async def test_who_waits_for_a_publication_in_the_wrong_place_is_told_where_it_is() -> None:
    app = chat(history=10)
    async with TestClient(app, timeout=0.05) as client, client.connect("/chat/lobby") as ann:
        with pytest.raises(TimeoutError) as before:
            await ann.receive_event("said")
        assert "room" not in str(before.value)
        room = await ann.join("chat:lobby")
        await app.room("chat:lobby").emit("said", "hi")
        with pytest.raises(TimeoutError, match=r"'chat:lobby' are for the room that join\(\) has returned"):
            await ann.receive_event("said")
        assert (await anext(room)).data == "hi"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"limit": "10"}, "limit is a number of publications, not '10'."),
        ({"limit": None}, "limit is a number of publications, not None."),
        ({"before": 7}, "before is a Position, not 7."),
        ({"before": {"epoch": "a", "offset": 1}}, "before is a Position, not {"),
    ],
)
async def test_a_client_that_reads_a_history_with_wrong_types_is_told_which(
    options: dict[str, Any], error: str
) -> None:
    async with TestClient(chat(history=10)) as client, client.connect("/chat/lobby") as ann:
        room = await ann.join("chat:lobby")
        with pytest.raises(TypeError, match=re.escape(error)):
            await room.history(**options)


def test_data_names_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "rooms.db"
    file.touch()
    with pytest.raises(ConfigurationError, match="this is a file"):
        broker_in(file)
    assert broker_in(tmp_path / "new" / "rooms.db").endswith("/new/rooms.db/rooms.db")


async def test_a_handler_of_a_room_with_too_many_parameters_says_how_to_get_the_publication() -> None:
    async with TestClient(chat(history=10)) as client, client.connect("/chat/lobby") as ann:
        room = await ann.join("chat:lobby")
        with pytest.raises(ConfigurationError, match="annotated with Publication"):
            room.on("said", lambda data, publication: None)


async def test_a_user_gets_the_messages_that_are_kept_by_joining_their_own_room_alone() -> None:
    app = Symphony()
    app.rooms("user:{id}", history=10)
    letters = app.route("/{name}", events=True)

    @letters.on_connect
    async def enter(socket: Socket, name: str) -> None:
        socket.login(Identity(name))

    async with TestClient(app) as client, client.connect("/ann") as ann:
        await app.user("ann").emit("letter", "hi")
        room = await ann.join("user:ann", since="start")
        assert (await anext(room)).data == "hi"
        with pytest.raises(RemoteError) as refused:
            await ann.join("user:bob", since="start")
        assert refused.value.code == "forbidden"
