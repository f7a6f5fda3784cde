"""Rooms with a history: what members miss, they get when they come back."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest

from support.clients import closed, connect, until
from support.members import member
from symphony import ConfigurationError, Event, History, Limits, Position, Reject, Room, Socket, Symphony
from symphony.broker.memory import MemoryBroker
from symphony.rooms import pages
from symphony.testing import TestClient


def said(number: int, room: str = "chat:a") -> dict[str, Any]:
    """Return the publication with this number, which says it."""
    return {"event": "said", "data": number, "room": room, "offset": number}


def at(position: Position) -> dict[str, Any]:
    return {"epoch": position.epoch, "offset": position.offset}


def make(history: History | int | None = 100, **options: Any) -> tuple[Symphony, list[Socket[Any]]]:
    """Return an app with rooms that clients may join, and the list of its sockets."""
    app = Symphony(limits=options.pop("limits", None))
    app.rooms("chat:{name}", history=history, client_join=True, **options)
    route = app.route("/", events=True)
    sockets: list[Socket[Any]] = []

    @route.on_connect
    def connected(socket: Socket) -> None:
        sockets.append(socket)

    return app, sockets


codecs = pytest.mark.parametrize("codec", ["json", "msgpack"])


@codecs
async def test_a_client_joins_and_hears_publications_with_their_numbers(serve, codec: str):
    app, _ = make()
    async with serve(app) as url, member(url, codec) as one:
        position = await one.join("chat:a")
        assert position.offset == 0
        room = app.room("chat:a")
        assert await room.emit("said", 1) == Position(position.epoch, 1)
        assert await room.send("hi") == Position(position.epoch, 2)
        await one.hears(said(1), {"event": "message", "data": "hi", "room": "chat:a", "offset": 2})
        await one.say({"leave": "chat:a", "id": 2})
        await one.hears({"left": "chat:a"}, {"reply": 2, "data": True})
        await room.emit("said", 3)
        await one.say({"leave": "chat:a", "id": 3})
        await one.hears({"reply": 3, "data": False})


@codecs
async def test_a_client_that_comes_back_gets_what_it_has_missed(serve, codec: str):
    app, _ = make()
    async with serve(app) as url:
        room = app.room("chat:a")
        async with member(url, codec) as one:
            await one.join("chat:a")
            await room.emit("said", 1)
            await room.emit("said", 2)
            await one.hears(said(1), said(2))
        for number in (3, 4, 5):
            position = await room.emit("said", number)
        assert position is not None
        async with member(url, codec) as one:
            await one.say({"join": "chat:a", "id": 1, "since": {"epoch": position.epoch, "offset": 2}})
            await one.hears(
                {"joined": "chat:a", "position": {"epoch": position.epoch, "offset": 2}, "recovered": True}
            )
            rest = [await one.hear() for _ in range(4)]
            assert {"reply": 1, "data": None} in rest
            assert [each for each in rest if "event" in each] == [said(3), said(4), said(5)]
            await room.emit("said", 6)
            await one.hears(said(6))


async def test_publications_are_kept_while_nobody_is_there(serve):
    app, _ = make()
    async with serve(app) as url:
        first = await app.room("chat:a").emit("said", 1)
        await app.room("chat:a").emit("said", 2)
        assert first is not None
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": "start"})
            await one.hears(
                {"joined": "chat:a", "recovered": True, "position": {"epoch": first.epoch, "offset": 0}}
            )
            heard = [await one.hear() for _ in range(3)]
            assert [each for each in heard if "event" in each] == [said(1), said(2)]


async def test_who_has_everything_gets_nothing_again(serve):
    app, _ = make()
    async with serve(app) as url:
        top = await app.room("chat:a").emit("said", 1)
        assert top is not None
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": at(top)})
            await one.hears({"joined": "chat:a", "position": at(top), "recovered": True}, {"reply": 1})
            await app.room("chat:a").emit("said", 2)
            await one.hears(said(2))


@pytest.mark.parametrize("why", ["trimmed", "another epoch", "in the future"])
async def test_who_has_missed_what_is_gone_is_told_and_goes_on(serve, why: str):
    app, _ = make(History(2))
    async with serve(app) as url:
        positions = [await app.room("chat:a").emit("said", number) for number in range(1, 6)]
        top = positions[-1]
        assert top is not None
        since = {
            "trimmed": {"epoch": top.epoch, "offset": 2},
            "another epoch": {"epoch": "another", "offset": 4},
            "in the future": {"epoch": top.epoch, "offset": 6},
        }[why]
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": since})
            await one.hears({"joined": "chat:a", "position": at(top), "recovered": False}, {"reply": 1})
            await app.room("chat:a").emit("said", 6)
            await one.hears(said(6))


@pytest.mark.within("max_recovery")
async def test_a_long_absence_is_made_up_for_in_pages(serve):
    app, _ = make(History(2000))
    async with serve(app) as url:
        for number in range(1, 1001):
            top = await app.room("chat:a").emit("said", number)
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": {"epoch": top.epoch, "offset": 0}})
            heard = [await one.hear() for _ in range(1002)]
            assert heard[0]["recovered"] is True
            assert [each["data"] for each in heard if "event" in each] == list(range(1, 1001))


@pytest.mark.beyond("max_recovery")
async def test_an_absence_above_the_limit_is_told(serve):
    app, _ = make(History(2000), limits=Limits(max_recovery=10))
    async with serve(app) as url:
        for number in range(1, 13):
            top = await app.room("chat:a").emit("said", number)
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": {"epoch": top.epoch, "offset": 1}})
            await one.hears({"joined": "chat:a", "position": at(top), "recovered": False}, {"reply": 1})
            # The most recent ones that the limit allows.
            await one.say({"join": "chat:a", "id": 2, "since": "start"})
            await one.hears(
                {"joined": "chat:a", "position": {"epoch": top.epoch, "offset": 2}, "recovered": False}
            )


async def test_publications_during_a_recovery_follow_it_in_order(serve):
    app, sockets = make(History(2000))
    async with serve(app) as url, member(url) as other:
        await other.join("chat:a")
        room = app.room("chat:a")
        for number in range(1, 501):
            top = await room.emit("said", number)
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": {"epoch": top.epoch, "offset": 0}})
            assert (await one.hear())["recovered"] is True
            for number in range(501, 901):
                await room.emit("said", number)
                # What is sent directly takes along what waits, but not what comes later from the history.
                sockets[-1].emit("direct")
            heard = []
            while not heard or heard[-1].get("offset") != 900:
                heard.append(await one.hear())
            heard = [each for each in heard if "room" in each]
            assert [each["data"] for each in heard if "event" in each] == list(range(1, 901))


async def test_what_is_trimmed_during_a_recovery_is_told_once(serve):
    """A slow client is fed from the history, which moves on."""
    app, _ = make(
        History(100, bytes=10_000_000), limits=Limits(high_water_bytes=20_000, low_water_bytes=10_000)
    )
    async with serve(app) as url:
        room = app.room("chat:a")
        for number in range(1, 101):
            top = await room.emit("said", [number, "x" * 50_000])
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": {"epoch": top.epoch, "offset": 0}})
            assert (await one.hear())["recovered"] is True
            for number in range(101, 301):
                top = await room.emit("said", [number, "x" * 50_000])
            offsets: list[int] = []
            lost: list[int] = []
            while not offsets or offsets[-1] < 301:
                heard = await one.hear()
                if "lost" in heard:
                    lost.append(heard["position"]["offset"])
                    # What was handed over before stays, and nothing of the rest comes late.
                    assert lost[-1] > offsets[-1]
                elif "event" in heard:
                    expected = {offsets[-1] + 1, lost[-1] + 1 if lost else 0} if offsets else {1}
                    assert heard["offset"] in expected
                    offsets.append(heard["offset"])
                if max(lost[-1:] + offsets[-1:], default=0) == top.offset == 300:
                    top = await room.emit("said", "last")
            assert lost
            assert len(lost) == len([1 for a, b in pairwise(offsets) if b != a + 1])


async def test_a_member_of_many_rooms_catches_up_in_all_of_them(serve):
    """Together they have ten times as much as the outbox may hold."""
    app, _ = make(limits=Limits(max_outbox_bytes=200_000, high_water_bytes=20_000, low_water_bytes=10_000))
    rooms = [f"chat:{number}" for number in range(40)]
    async with serve(app) as url:
        for room in rooms:
            for number in range(1, 51):
                await app.room(room).emit("said", [number, "x" * 1000])
        async with member(url) as one:
            for id, room in enumerate(rooms):
                await one.say({"join": room, "id": id, "since": "start"})
            heard: dict[str, list[int]] = {room: [] for room in rooms}
            while any(len(numbers) < 50 for numbers in heard.values()):
                envelope = await one.hear()
                if "event" in envelope:
                    heard[envelope["room"]].append(envelope["offset"])
            assert all(numbers == list(range(1, 51)) for numbers in heard.values())


async def test_a_handler_that_joins_tells_the_client_its_position(serve):
    app = Symphony()
    app.rooms("chat:{name}", history=10)
    route = app.route("/", events=True)

    @route.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("chat:a")

    async with serve(app) as url:
        top = await app.room("chat:a").emit("said", 1)
        await app.room("chat:a").emit("said", 2)
        assert top is not None
        async with member(url) as one:
            await one.hears({"joined": "chat:a", "position": {"epoch": top.epoch, "offset": 2}})
            # It is a member, so it may ask for what it has missed.
            await one.say({"join": "chat:a", "id": 1, "since": at(top)})
            await one.hears({"joined": "chat:a", "position": at(top), "recovered": True})
            heard = [await one.hear(), await one.hear()]
            assert said(2) in heard
            await app.room("chat:a").emit("said", 3)
            await one.hears(said(3))
            # To others it is closed.
            await one.say({"join": "chat:b", "id": 2})
            await one.hears({"error": 2})


async def test_a_member_that_joins_again_begins_anew(serve):
    app, sockets = make()
    async with serve(app) as url, member(url) as one:
        position = await one.join("chat:a")
        for number in (1, 2, 3):
            await app.room("chat:a").emit("said", number)
        await one.hears(said(1), said(2), said(3))
        await one.say({"join": "chat:a", "id": 2, "since": {"epoch": position.epoch, "offset": 1}})
        await one.hears({"joined": "chat:a", "recovered": True})
        heard = [await one.hear() for _ in range(3)]
        assert [each for each in heard if "event" in each] == [said(2), said(3)]
        assert await one.join("chat:a", 3) == Position(position.epoch, 3)
        assert sockets[0].rooms == {"chat:a"}
        await app.room("chat:a").emit("said", 4)
        await one.hears(said(4))


async def test_a_client_may_not_join_what_is_not_open_to_clients(serve):
    app = Symphony()
    app.rooms("chat:{name}", history=10)
    asked = app.rooms("team:{name}")

    @asked.authorize
    def may(name: str) -> bool:
        return name == "red"

    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        for id, room in enumerate(("chat:a", "team:blue", "none")):
            await one.say({"join": room, "id": id})
            answer = await one.hear()
            assert (answer["error"], answer["data"]["code"]) == (id, "forbidden")
        await one.say({"join": "bad{name}", "id": 5})
        assert (await one.hear())["data"]["code"] == "invalid"
        await one.say({"join": "team:red", "id": 6})
        await one.hears({"joined": "team:red"}, {"reply": 6})


async def test_on_join_may_refuse_and_the_client_is_told_in_order(serve):
    app = Symphony()
    rooms = app.rooms("chat:{name}", history=10, client_join=True)

    @rooms.on_join
    async def greet(socket: Socket, room: Room) -> None:
        await room.emit("came", socket.id)
        raise Reject("forbidden", "not today")

    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        await one.say({"join": "chat:a", "id": 1})
        await one.hears(
            {"joined": "chat:a"}, {"event": "came", "offset": 1}, {"left": "chat:a"}, {"error": 1}
        )
        assert app.room("chat:a").sockets == ()


async def test_joins_and_events_of_a_client_are_handled_in_their_order(serve):
    app, _ = make()
    [route] = [route for _, route, _ in app._all_routes()]

    @route.on("say")
    async def say(socket: Socket, text: str) -> bool:
        await app.room("chat:a").emit("said", text)
        return "chat:a" in socket.rooms

    async with serve(app) as url, member(url) as one:
        for envelope in (
            {"join": "chat:a", "id": 1},
            {"event": "say", "data": "in", "id": 2},
            {"leave": "chat:a", "id": 3},
            {"event": "say", "data": "out", "id": 4},
        ):
            await one.say(envelope)
        await one.hears(
            {"joined": "chat:a"},
            {"reply": 1},
            {"event": "said", "data": "in"},
            {"reply": 2, "data": True},
            {"left": "chat:a"},
            {"reply": 3, "data": True},
            {"reply": 4, "data": False},
        )


async def test_what_is_transient_is_not_kept_and_has_no_number(serve):
    app, sockets = make()
    async with serve(app) as url, member(url) as one, member(url) as two:
        position = await one.join("chat:a")
        await two.join("chat:a")
        room = app.room("chat:a")
        [first] = [socket for socket in sockets if socket in room][:1]
        assert await room.emit("typing", 1, transient=True, exclude=first) is None
        await room.emit("said", 1)
        heard = [await one.hear(), await two.hear()]
        assert sorted(each["event"] for each in heard) == ["said", "typing"]
        assert all(("offset" in each) is (each["event"] == "said") for each in heard)
        assert all(each["room"] == "chat:a" for each in heard)
        async with member(url) as three:
            await three.say({"join": "chat:a", "id": 1, "since": at(position)})
            heard = [await three.hear() for _ in range(3)]
            assert [each for each in heard if "event" in each] == [said(1)]


async def test_a_publication_that_is_kept_leaves_nobody_out(serve):
    app, sockets = make()
    async with serve(app) as url, member(url) as one:
        await one.join("chat:a")
        with pytest.raises(ValueError, match="transient=True"):
            app.room("chat:a").emit("said", 1, exclude=sockets)
        assert await app.room("chat:a").history() == []


async def test_what_one_codec_cannot_say_is_refused_before_it_is_kept(serve):
    app, _ = make()
    async with serve(app) as url, member(url, "msgpack") as one:
        await one.join("chat:a")
        for data in (object(), 2**60, float("nan")):
            with pytest.raises(TypeError):
                app.room("chat:a").emit("said", data)
        with pytest.raises(TypeError):
            app.room("chat:a").emit(5, 1)  # type: ignore[arg-type]
        await app.room("chat:a").emit("said", 1)
        await one.hears(said(1))


async def test_the_app_reads_the_history(serve):
    app, _ = make(History(5))
    async with serve(app):
        room = app.room("chat:a")
        assert await room.history() == []
        for number in range(1, 8):
            await room.emit("said", {"number": number})
        await room.send("hi")
        found = await room.history()
        assert [(each.event, each.data, each.position.offset) for each in found] == [
            ("said", {"number": 4}, 4),
            ("said", {"number": 5}, 5),
            ("said", {"number": 6}, 6),
            ("said", {"number": 7}, 7),
            ("message", "hi", 8),
        ]
        assert await room.history(2, before=found[2].position) == found[:2]
        with pytest.raises(ValueError, match="at least 1"):
            room.history(0)
        with pytest.raises(ValueError, match="has no history"):
            await app.room("other").history()
        with pytest.raises(Reject, match="does not have this position"):
            await room.history(before=Position("another", 3))


async def test_a_room_that_was_empty_for_a_while_goes_on_with_its_numbers(serve):
    app, _ = make()
    async with serve(app) as url:
        async with member(url) as one:
            position = await one.join("chat:a")
            await app.room("chat:a").emit("said", 1)
            await one.hears(said(1))
        await until(lambda: not len(app._core.node.rooms))
        await app.room("chat:a").emit("said", 2)
        async with member(url) as one:
            assert await one.join("chat:a") == Position(position.epoch, 2)


async def test_raw_members_hear_publications_as_before(serve):
    app = Symphony()
    app.rooms("chat:{name}", history=10)

    @app.on_message
    async def enter(socket: Socket, message: str) -> str:
        await socket.join(message)
        return "in"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("chat:a")
        assert await client.recv() == "in"
        await app.room("chat:a").send("hi")
        await app.room("chat:a").emit("said", [1])
        assert await client.recv() == "hi"
        assert json.loads(await client.recv()) == {"event": "said", "data": [1]}


async def test_the_options_of_a_history_are_checked():
    app = Symphony()
    for wrong in (0, -1, True):
        with pytest.raises(ConfigurationError):
            app.rooms("a:{x}", history=wrong)
    for options in ({"size": 1.5}, {"ttl": 0}, {"bytes": -5}):
        with pytest.raises(ConfigurationError):
            History(**options)


async def test_a_room_that_was_about_to_end_goes_on_for_who_joins():
    """The join waited for the history, and the room ended meanwhile: the new member heard nothing."""
    for turns in range(5):
        app = Symphony()
        rooms = app.rooms("chat:{name}", history=10)
        may_end = asyncio.Event()

        @rooms.on_empty
        async def empty(may_end: asyncio.Event = may_end) -> None:
            await may_end.wait()

        app.route("/", events=True)
        async with TestClient(app) as client, client.connect("/") as one:
            [socket] = app.everyone.sockets
            await socket.join("chat:a")
            leaving = asyncio.ensure_future(socket.leave("chat:a"))
            await client.settle()
            joining = asyncio.ensure_future(socket.join("chat:a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            may_end.set()
            await asyncio.gather(joining, leaving)
            await client.settle()
            await app.room("chat:a").emit("said", turns)
            assert await one.receive_event("said") == turns


async def test_from_the_start_of_a_full_history_comes_what_is_still_kept(serve):
    """What `on_join` publishes drops the oldest publication, before the first page is read."""
    app = Symphony()
    rooms = app.rooms("chat:{name}", history=3, client_join=True)

    @rooms.on_join
    async def arrived(room: Room) -> None:
        await room.emit("said", 4)

    app.route("/", events=True)
    async with serve(app) as url:
        for number in (1, 2, 3):
            await app.room("chat:a").emit("said", number)
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": "start"})
            heard = []
            while not heard or heard[-1].get("offset") != 4:
                heard.append(await one.hear())
            assert heard[0]["recovered"] is True
            lost = [each["position"]["offset"] for each in heard if "lost" in each]
            numbers = [each["offset"] for each in heard if "event" in each]
            assert (lost, numbers) in (([1], [2, 3, 4]), ([], [1, 2, 3, 4]))


async def test_a_leave_while_a_member_joins_again_is_said_to_the_client(serve):
    app, sockets = make()
    async with serve(app) as url, member(url) as one:
        await one.join("chat:a")
        top = await app.room("chat:a").emit("said", 1)
        await one.hears(said(1))
        # Until the server has read the history.
        after = MemoryBroker.after

        async def slowly(broker: MemoryBroker, *args: Any, **options: Any) -> Any:
            await sockets[0].leave("chat:a")
            return await after(broker, *args, **options)

        with patch.object(MemoryBroker, "after", slowly):
            await one.say({"join": "chat:a", "id": 2, "since": at(top)})
            await one.hears({"left": "chat:a"}, {"error": 2})
        assert not sockets[0].rooms


class OnlyWords:
    """A protocol that cannot say lists."""

    subprotocol = None
    payload = "plain"

    def decode(self, message: str | bytes) -> Event:
        return Event(str(message), None)

    def encode(self, envelope: Any) -> str | None:
        if not isinstance(envelope, Event):
            return None
        if isinstance(envelope.data, list):
            raise TypeError("no lists")
        return f"{envelope.event} {envelope.data}"


async def test_a_protocol_that_cannot_say_a_publication_keeps_nobody_from_it(serve, caplog):
    app = Symphony()
    app.rooms("chat:{name}", history=10)
    route = app.route("/", protocol=OnlyWords)

    @route.on("enter")
    async def enter(socket: Socket) -> None:
        await socket.join("chat:a")

    async with serve(app) as url, connect(f"{url}/") as one:
        await one.send("enter")
        await until(lambda: app.room("chat:a").sockets)
        # It is kept, so its publisher must not publish it again.
        assert (await app.room("chat:a").emit("said", [1])).offset == 1
        await app.room("chat:a").emit("said", 2)
        assert await one.recv() == "said 2"
        assert [each.data for each in await app.room("chat:a").history()] == [[1], 2]
    assert "no lists" in caplog.text


async def test_a_member_whose_history_cannot_be_read_is_sent_away_to_come_back(serve):
    """The first page is read when it joins. What fails is the second, while it catches up."""
    app, _ = make(1000)
    after, calls = MemoryBroker.after, 0

    async def fails_at_the_second(broker: MemoryBroker, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("the store is away")
        return await after(broker, *args, **options)

    async with serve(app) as url:
        top = await app.room("chat:a").emit("said", 1)
        for number in range(2, 152):
            await app.room("chat:a").emit("said", number)
        async with member(url) as one:
            with patch.object(MemoryBroker, "after", fails_at_the_second):
                await one.join("chat:a", since=at(top))
                await one.hears(*(said(number) for number in range(2, 102)))
                assert await closed(one.client) == (1013, "the history cannot be read")
        assert calls == 2
        async with member(url) as one:
            await one.say({"join": "chat:a", "id": 1, "since": at(top)})
            heard = [await one.hear() for _ in range(152)]
            assert [each["offset"] for each in heard if "event" in each] == list(range(2, 152))


async def test_nothing_of_the_histories_is_left_when_the_app_has_stopped():
    app, _ = make(History(10, ttl=1000))
    loop = asyncio.get_running_loop()
    async with TestClient(app):
        for number in range(3):
            await app.room(f"chat:{number}").emit("said", 1)
        assert [timer for timer in loop._scheduled if "_expire" in repr(timer)]
    assert not [timer for timer in loop._scheduled if "_expire" in repr(timer) and not timer.cancelled()]


async def test_wrong_arguments_are_named(serve):
    app, _ = make()
    for wrong in ("x", 10.0, {"size": 3}):
        with pytest.raises(ConfigurationError, match="history must be"):
            app.rooms("a:{x}", history=wrong)
    with pytest.raises(ConfigurationError, match="client_join"):
        app.rooms("a:{x}", client_join="no")
    async with serve(app):
        room = app.room("chat:a")
        for arguments, named in (({"limit": "5"}, "limit"), ({"before": {"epoch": "a"}}, "before")):
            with pytest.raises(TypeError, match=named):
                await room.history(**arguments)


@pytest.mark.parametrize("ends", ["cancel", "leave", "close", "drop"])
async def test_a_join_that_ends_while_the_history_is_opened_leaves_nothing(serve, ends: str):
    app, _ = make()
    subscribe, may = MemoryBroker.subscribe, asyncio.Event()
    waiting = asyncio.Event()

    async def slowly(broker: MemoryBroker, *args: Any) -> Position:
        waiting.set()
        await may.wait()
        return await subscribe(broker, *args)

    rooms = None
    with patch.object(MemoryBroker, "subscribe", slowly):
        async with serve(app) as url:
            rooms = app._core.node.rooms
            async with member(url) as one:
                await one.say({"join": "chat:a", "id": 1, "since": "start"})
                await waiting.wait()
                if ends == "cancel":
                    await one.say({"cancel": 1})
                    assert (await one.hear())["data"]["code"] == "cancelled"
                elif ends == "leave":
                    [socket] = app.everyone.sockets
                    leaving = asyncio.ensure_future(socket.leave("chat:a"))
                    await asyncio.sleep(0)
                    may.set()
                    assert not await leaving
                    assert (await one.hear())["data"]["code"] == "cancelled"
                elif ends == "drop":
                    one.client.transport.abort()
            may.set()
            await until(lambda: not len(rooms) and not app.everyone.sockets)
            # The next one finds the room as it should be.
            async with member(url) as two:
                await two.join("chat:a")
                await app.room("chat:a").emit("said", 1)
                await two.hears(said(1))


@pytest.mark.parametrize("since", [None, 0, 2])
async def test_a_member_that_begins_anew_gets_nothing_of_its_earlier_recovery(serve, since: int | None):
    """It does so while the second page of its earlier recovery is read."""
    app, _ = make(1000)
    after, may, waiting, calls = MemoryBroker.after, asyncio.Event(), asyncio.Event(), 0

    async def slow_at_the_second(broker: MemoryBroker, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            waiting.set()
            await may.wait()
        return await after(broker, *args, **options)

    async with serve(app) as url:
        for number in range(1, 151):
            top = await app.room("chat:a").emit("said", number)
        # The new join takes the first page from memory, however slow this machine is.
        with patch.object(pages, "_SHARED_FOR", 60), patch.object(MemoryBroker, "after", slow_at_the_second):
            async with member(url) as one:
                await one.join("chat:a", 1, since={"epoch": top.epoch, "offset": 0})
                await one.hears(*(said(number) for number in range(1, 101)))
                await waiting.wait()
                fields = {} if since is None else {"since": {"epoch": top.epoch, "offset": since}}
                await one.say({"join": "chat:a", "id": 2, **fields})
                await one.hears({"joined": "chat:a"})
                may.set()
                heard = []
                while {"reply": 2, "data": None} not in heard:
                    heard.append(await one.hear())
                await app.room("chat:a").emit("said", 151)
                while not heard or heard[-1].get("offset") != 151:
                    heard.append(await one.hear())
                # The answer to this comes after everything else.
                await one.say({"leave": "chat:a", "id": 3})
                while {"reply": 3, "data": True} not in heard:
                    heard.append(await one.hear())
        begin = 151 if since is None else since + 1
        assert [each["offset"] for each in heard if "event" in each] == list(range(begin, 152))
