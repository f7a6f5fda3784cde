"""Clients publish to rooms: the app decides about it in `on_publish`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from msgspec import Struct

from support.clients import until
from support.members import Member, member
from symphony import ConfigurationError, Depends, Identity, Position, Reject, Room, Socket, Symphony

codecs = pytest.mark.parametrize("codec", ["json", "msgpack"])


class Say(Struct):
    text: str
    loud: bool = False


class Store:
    """What the hooks have stored, in order."""

    def __init__(self) -> None:
        self.saved: list[Any] = []
        self.log: list[str] = []
        self.begun = 0
        self.gate = asyncio.Event()
        self.gate.set()


def make(history: int | None = 100) -> tuple[Symphony, Store]:
    app, store = Symphony(), Store()
    rooms = app.rooms("chat:{name}", history=history, client_join=True)
    app.rooms("mute:{name}", history=history, client_join=True)
    route = app.route("/", events=True)

    @contextmanager
    def transaction() -> Iterator[list[Any]]:
        said: list[Any] = []
        try:
            yield said
        except BaseException:
            store.log.append("rolled back")
            raise
        store.saved += said
        store.log.append("committed")

    def open_transaction() -> Iterator[list[Any]]:
        with transaction() as said:
            yield said

    @route.on_connect
    def enter(socket: Socket) -> None:
        user = socket.handshake.query_params.get("user")
        if user is not None:
            socket.login(Identity(user))

    @rooms.on_publish("say", "shout")
    async def say(
        room: Room, name: str, data: Say, saved: Annotated[list[Any], Depends(open_transaction)]
    ) -> Say | None:
        saved.append(data.text)
        store.begun += 1
        await store.gate.wait()
        if data.text == "rude":
            raise Reject("chat.rude", "be polite")
        if data.text == "broken":
            raise RuntimeError("broken")
        if data.text == "upper":
            return Say(f"UPPER in {name} of {room.name}")
        return None

    @rooms.on_publish("signed")
    async def signed(user: Identity, data: str) -> dict[str, str]:
        return {"by": user.id, "text": data}

    @rooms.on_publish("bare")
    def bare() -> None:
        store.log.append("bare")

    @rooms.on_publish("order")
    async def in_order(data: int) -> None:
        # The first ones take longer.
        for _ in range(10 - data % 10):
            await asyncio.sleep(0)
        store.saved.append(data)

    return app, store


async def publish(to: Member, event: str, data: Any, id: int | None = 9, **fields: Any) -> None:
    ids = {} if id is None else {"id": id}
    await to.say({"publish": event, "room": "chat:a", "data": data, **ids, **fields})


@codecs
async def test_what_a_member_publishes_is_heard_by_all_and_by_itself_before_the_reply(serve, codec: str):
    app, store = make()
    async with serve(app) as url, member(url, codec) as one, member(url) as two:
        position = await one.join("chat:a")
        await two.join("chat:a")
        await publish(one, "say", {"text": "hi", "unknown": 1})
        published = {"event": "say", "data": {"text": "hi", "loud": False}, "room": "chat:a", "offset": 1}
        await one.hears(published, {"reply": 9, "data": {"epoch": position.epoch, "offset": 1}})
        await two.hears(published)
        assert (store.saved, store.log) == (["hi"], ["committed"])


async def test_what_the_hook_returns_is_published(serve):
    app, _ = make()
    async with serve(app) as url, member(url, path="/?user=ann") as one:
        await one.join("chat:a")
        await publish(one, "say", {"text": "upper"})
        await one.hears({"event": "say", "data": {"text": "UPPER in a of chat:a", "loud": False}})
        await one.hear()
        await publish(one, "signed", "hello")
        await one.hears({"event": "signed", "data": {"by": "ann", "text": "hello"}})
        await one.hear()
        # A hook without a parameter for the data.
        await publish(one, "bare", {"any": ["thing"]})
        await one.hears({"event": "bare", "data": {"any": ["thing"]}}, {"reply": 9})


async def test_nothing_is_published_if_the_hook_fails_and_its_dependencies_notice(serve):
    app, store = make()
    async with serve(app) as url, member(url) as one:
        await one.join("chat:a")
        for text, code in (("rude", "chat.rude"), ("broken", "internal")):
            await publish(one, "say", {"text": text})
            refused = await one.hear()
            assert (refused["error"], refused["data"]["code"]) == (9, code)
        assert (store.saved, store.log) == ([], ["rolled back"] * 2)
        assert await app.room("chat:a").history() == []


@pytest.mark.parametrize("history", [100, None])
@pytest.mark.parametrize(
    ("codec", "event", "data"),
    [
        ("json", "order", 2**70),
        ("json", "bare", [2**60]),
        ("msgpack", "order", 2**60),
        ("msgpack", "bare", {(1, 2): 3}),
        ("msgpack", "bare", [{None: 1}]),
    ],
)
async def test_data_that_the_other_members_cannot_be_sent_is_invalid(
    serve, history: int | None, codec: str, event: str, data: Any
):
    """It was an internal error with a traceback in the log, or the other members did not get it."""
    app, _ = make(history)
    async with serve(app) as url, member(url, codec) as one, member(url) as two:
        for each in (one, two):
            await each.say({"join": "chat:a", "id": 1})
            await each.hears({"joined": "chat:a"}, {"reply": 1})
        await publish(one, event, data)
        refused = await one.hear()
        assert (refused["error"], refused["data"]["code"]) == (9, "invalid")
        # Nobody has heard of it.
        await publish(one, "bare", "next")
        assert (await two.hear())["data"] == "next"
    assert app.stats.failed_handlers == 0


@pytest.mark.parametrize(
    ("event", "data", "fields", "code"),
    [
        ("say", {"text": 1}, {}, "invalid"),
        ("say", None, {}, "invalid"),
        ("signed", "hello", {}, "unauthorized"),
        ("whisper", "hello", {}, "forbidden"),
        ("said", "hello", {}, "forbidden"),
        ("say", {"text": "hi"}, {"room": "chat:other"}, "forbidden"),
        ("say", {"text": "hi"}, {"room": "mute:a"}, "forbidden"),
        ("say", {"text": "hi"}, {"room": "no such"}, "forbidden"),
        ("say", {"text": "hi"}, {"key": ""}, "invalid"),
        ("say", {"text": "hi"}, {"key": "k" * 129}, "invalid"),
        ("say", {"text": "hi"}, {"client": "c" * 65}, "invalid"),
        ("say", {"text": "hi"}, {"room": None}, "invalid"),
    ],
)
async def test_what_is_not_allowed_is_refused(serve, event: str, data: Any, fields: Any, code: str):
    app, _ = make()
    async with serve(app) as url, member(url) as one:
        await one.join("chat:a")
        await one.join("mute:a", 2)
        await publish(one, event, data, **fields)
        refused = await one.hear()
        assert (refused["error"], refused["data"]["code"]) == (9, code)
        assert await app.room("chat:a").history() == []
        # The connection goes on.
        await publish(one, "say", {"text": "hi"})
        await one.hears({"event": "say"}, {"reply": 9})


async def test_a_member_that_has_left_cannot_publish(serve):
    app, _ = make()
    async with serve(app) as url, member(url) as one:
        await one.join("chat:a")
        await one.say({"leave": "chat:a", "id": 2})
        await publish(one, "say", {"text": "hi"})
        await one.hears({"left": "chat:a"}, {"reply": 2}, {"error": 9})


@codecs
async def test_a_repeat_with_its_key_has_the_first_position_also_on_another_connection(serve, codec: str):
    app, _ = make()
    mine: dict[str, Any] = {"key": "k1", "client": "me"}
    async with serve(app) as url:
        async with member(url, codec) as one:
            await one.join("chat:a")
            await publish(one, "say", {"text": "hi"}, **mine)
            await one.hears({"event": "say", "offset": 1}, {"reply": 9})
            await publish(one, "say", {"text": "hi"}, **mine)
            await one.hears({"reply": 9})
        async with member(url, codec) as one:
            position = await one.join("chat:a")
            assert position.offset == 1
            await publish(one, "say", {"text": "hi"}, **mine)
            await one.hears({"reply": 9, "data": at(position)})
            await publish(one, "say", {"text": "bye"}, **mine)
            refused = await one.hear()
            assert (refused["error"], refused["data"]["code"]) == (9, "conflict")
            # The same key of another publisher, and of one that does not say who it is.
            for client in ("other", None):
                await publish(one, "say", {"text": "bye"}, key="k1", **({"client": client} if client else {}))
                await one.hears({"event": "say", "data": {"text": "bye", "loud": False}}, {"reply": 9})
        assert len(await app.room("chat:a").history()) == 3


async def test_the_keys_of_a_user_hold_on_all_of_its_devices(serve):
    app, _ = make()
    async with serve(app) as url:
        for client in ("phone", "laptop"):
            async with member(url, path="/?user=ann") as one:
                await one.join("chat:a")
                await publish(one, "say", {"text": "hi"}, key="k", client=client)
                while "reply" not in (heard := await one.hear()):
                    pass
                assert heard["data"]["offset"] == 1
        async with member(url, path="/?user=bob") as one:
            await one.join("chat:a")
            await publish(one, "say", {"text": "hi"}, key="k", client="phone")
            await one.hears({"event": "say", "offset": 2}, {"reply": 9})


async def test_repeats_of_who_may_not_publish_wait_for_the_first_and_have_its_position(serve):
    app, store = make()
    mine: dict[str, Any] = {"key": "k", "client": "me"}
    ids = range(100, 108)
    store.gate.clear()
    async with (
        serve(app) as url,
        member(url, path="/?user=ann") as one,
        member(url, path="/?user=ann") as two,
    ):
        await one.join("chat:a")
        await publish(one, "say", {"text": "hi"}, **mine)
        await until(lambda: store.begun)
        # The second connection is not a member.
        for id in ids:
            await publish(two, "say", {"text": "hi"}, id=id, **mine)
        # The server has read them when it answers this.
        await (await two.client.ping())
        store.gate.set()
        await one.hears({"event": "say", "offset": 1}, {"reply": 9})
        answers = [await two.hear() for _ in ids]
        assert {answer["reply"]: answer["data"]["offset"] for answer in answers} == dict.fromkeys(ids, 1)
        assert store.saved == ["hi"]


async def test_without_an_id_it_is_not_kept(serve):
    app, _ = make()
    async with serve(app) as url, member(url) as one:
        await one.join("chat:a")
        await publish(one, "say", {"text": "hi"}, id=None)
        heard = await one.hear()
        assert (heard["event"], heard.get("offset")) == ("say", None)
        await publish(one, "say", {"text": "rude"}, id=None)
        await one.hears({"event": "error"})
        await publish(one, "say", {"text": "hi"}, id=None, key="k")
        await one.hears({"event": "error"})
        assert await app.room("chat:a").history() == []


async def test_in_a_room_without_a_history_there_is_no_position(serve):
    app, _ = make(history=None)
    async with serve(app) as url, member(url) as one:
        await one.say({"join": "chat:a", "id": 1})
        await one.hears({"joined": "chat:a"}, {"reply": 1})
        await publish(one, "say", {"text": "hi"})
        await one.hears({"event": "say", "room": "chat:a"}, {"reply": 9, "data": None})
        await publish(one, "say", {"text": "hi"}, key="k")
        refused = await one.hear()
        assert (refused["error"], refused["data"]["code"]) == (9, "invalid")


async def test_what_is_stored_and_what_is_heard_have_one_order(serve):
    app, store = make()
    async with serve(app) as url, member(url) as one, member(url) as two, member(url) as three:
        for each in (one, two, three):
            await each.join("chat:a")
        for number in range(0, 30, 2):
            await publish(one, "order", number, id=100 + number)
            await publish(two, "order", number + 1, id=100 + number)
        heard = [(await three.hear())["data"] for _ in range(30)]
        assert sorted(heard) == list(range(30))
        for each in (one, two):
            answers = [await each.hear() for _ in range(45)]
            assert [answer["data"] for answer in answers if "event" in answer] == heard
        assert store.saved == heard


async def test_a_removed_member_does_not_publish_what_was_waiting(serve):
    app, store = make()
    sockets: list[Socket[Any]] = []

    @app.route("/watched", events=True).on_connect
    def connected(socket: Socket) -> None:
        sockets.append(socket)

    async with serve(app) as url, member(url) as one, member(url, path="/watched") as two:
        await one.join("chat:a")
        await two.join("chat:a")
        store.gate.clear()
        await publish(one, "say", {"text": "first"})
        await publish(two, "say", {"text": "second"})
        await two.say({"ping": 1})
        await two.hears({"pong": 1})
        await sockets[0].leave("chat:a")
        store.gate.set()
        await two.hears({"left": "chat:a"}, {"error": 9})
        assert [each.data["text"] for each in await app.room("chat:a").history()] == ["first"]


async def test_message_middleware_sees_publications_as_events(serve):
    app, _ = make()
    seen: list[Any] = []

    @app.middleware("message")
    async def look(socket: Socket, message: Any, call_next: Any) -> Any:
        seen.append((message.event, message.data, message.id))
        if message.data == {"text": "no"}:
            raise Reject("too_many", "slower")
        return await call_next(socket, message)

    async with serve(app) as url:
        for codec in ("json", "msgpack"):
            async with member(url, codec) as one:
                await one.join("chat:a")
                await publish(one, "say", {"text": "hi"}, key=codec, client="c")
                await one.hears({"event": "say", "data": {"text": "hi", "loud": False}}, {"reply": 9})
                await publish(one, "say", {"text": "no"})
                refused = await one.hear()
                assert (refused["error"], refused["data"]["code"]) == (9, "too_many")
            assert seen == [("say", {"text": "hi"}, 9), ("say", {"text": "no"}, 9)]
            seen.clear()


@pytest.mark.within("protocol.v1frames.MAX_KEY")
@pytest.mark.beyond("protocol.v1frames.MAX_KEY")
@pytest.mark.within("protocol.v1frames.MAX_CLIENT")
@pytest.mark.beyond("protocol.v1frames.MAX_CLIENT")
async def test_keys_have_a_greatest_length(serve):
    app, _ = make()
    async with serve(app) as url, member(url) as one:
        await one.join("chat:a")
        await publish(one, "say", {"text": "hi"}, key="k" * 128, client="c" * 64)
        await one.hears({"event": "say", "offset": 1}, {"reply": 9})
        for fields, path in (({"key": "k" * 129}, "$.key"), ({"client": "c" * 65}, "$.client")):
            await publish(one, "say", {"text": "hi"}, **fields)
            refused = await one.hear()
            assert (refused["error"], refused["data"]["details"]) == (9, {"path": path})


@codecs
async def test_a_member_reads_the_history(serve, codec: str):
    app, _ = make()
    async with serve(app) as url, member(url, codec) as one:
        room = app.room("chat:a")
        for number in range(5):
            await room.emit("said", {"n": number})
        first = (await room.history())[0].position
        await room.emit("said", "edited", replaces=first)
        position = await one.join("chat:a")
        await one.say({"history": "chat:a", "id": 3, "limit": 2})
        answer = await one.hear()
        assert answer["reply"] == 3
        assert answer["data"] == {
            "publications": [
                {"event": "said", "data": {"n": 4}, "position": at(Position(position.epoch, 5))},
                {"event": "said", "data": "edited", "position": at(position), "replaces": at(first)},
            ],
            "more": True,
        }
        await one.say({"history": "chat:a", "id": 4, "before": at(Position(position.epoch, 4))})
        data = (await one.hear())["data"]
        assert [each["data"] for each in data["publications"]] == [{"n": 1}, {"n": 2}]
        assert data["more"] is False
        for id, fields, code in (
            (5, {"history": "chat:b"}, "forbidden"),
            (6, {"history": "chat:a", "before": {"epoch": "other", "offset": 1}}, "invalid"),
            (7, {"history": "chat:a", "limit": 0}, "invalid"),
        ):
            await one.say({"id": id, **fields})
            refused = await one.hear()
            assert (refused["error"], refused["data"]["code"]) == (id, code)


@pytest.mark.within("rooms.clients._MAX_READ")
@pytest.mark.beyond("rooms.clients._MAX_READ")
async def test_one_answer_has_at_most_so_many_publications(serve):
    app = Symphony()
    app.rooms("chat:{name}", history=2000, client_join=True)
    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        for number in range(1000):
            await app.room("chat:a").emit("said", number)
        await one.join("chat:a")
        await one.say({"history": "chat:a", "id": 3, "limit": 5000})
        assert [each["data"] for each in (await one.hear())["data"]["publications"]] == list(range(1000))
        await app.room("chat:a").emit("said", 1000)
        await one.hear()
        await one.say({"history": "chat:a", "id": 4, "limit": 5000})
        data = (await one.hear())["data"]
        assert ([each["data"] for each in data["publications"]], data["more"]) == (list(range(1, 1001)), True)


@pytest.mark.within("rooms.clients._MAX_READ_BYTES")
@pytest.mark.beyond("rooms.clients._MAX_READ_BYTES")
async def test_one_answer_has_at_most_so_many_bytes(serve):
    app, _ = make()
    async with serve(app) as url, member(url) as one:
        for number in range(3):
            await app.room("chat:a").emit("said", str(number) * 80_000)
        await one.join("chat:a")
        await one.say({"history": "chat:a", "id": 3})
        data = (await one.hear())["data"]
        assert ([each["data"][0] for each in data["publications"]], data["more"]) == (["0", "1", "2"], False)
        await app.room("chat:a").emit("said", "3" * 80_000)
        await one.hear()
        await one.say({"history": "chat:a", "id": 4})
        data = (await one.hear())["data"]
        assert ([each["data"][0] for each in data["publications"]], data["more"]) == (["1", "2", "3"], True)


def test_mistakes_are_found_when_the_hook_is_registered():
    rooms = Symphony().rooms("chat:{name}")
    for events in ((), ("",), ("error",), ("x" * 257,), (1,)):
        with pytest.raises(ConfigurationError, match=r"on_publish of rooms 'chat:\{name\}'"):
            rooms.on_publish(*events)(lambda: None)
    with pytest.raises(ConfigurationError):
        rooms.on_publish(lambda: None)
    rooms.on_publish("say")(lambda: None)
    with pytest.raises(ConfigurationError, match="has a hook already"):
        rooms.on_publish("say")(lambda: None)


def at(position: Position) -> dict[str, Any]:
    return {"epoch": position.epoch, "offset": position.offset}
