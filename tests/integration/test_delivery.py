"""How publications are delivered to members that read slowly: `volatile` and `conflate`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from support.clients import connect, until
from symphony import Limits, Socket, Symphony
from symphony.testing import TestClient

TEXT = "x" * 10_000
LIMITS = Limits(max_outbox_bytes=200_000, high_water_bytes=20_000, low_water_bytes=10_000, close_timeout=0.2)


def make() -> tuple[Symphony, list[Socket]]:
    app = Symphony(limits=LIMITS)
    sockets: list[Socket] = []
    app.rooms("kept:{name}", history=1000)

    async def enter(socket: Socket) -> None:
        sockets.append(socket)
        await socket.join("prices")
        await socket.join("kept:a")

    app.route("/", events=True).on_connect(enter)
    return app, sockets


async def hear(client: Any) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while "joined" in (heard := json.loads(await client.recv())):
            pass
        return heard


async def values(client: Any) -> list[Any]:
    """Return the data of all events up to the event `end`, without the text."""
    heard: list[Any] = []
    while (envelope := await hear(client))["event"] != "end":
        heard.append(envelope["data"][:-1] if envelope["data"] else envelope["event"])
    return heard


@pytest.mark.parametrize("target", ["room", "everyone", "transient", "volatile"])
async def test_a_slow_member_gets_the_newest_of_each_key(serve, target: str):
    app, sockets = make()
    async with serve(app) as url, connect(f"{url}/") as slow, connect(f"{url}/") as quick:
        await until(lambda: len(sockets) == 2)
        room: Any = {"room": app.room("prices"), "everyone": app.everyone}.get(target, app.room("kept:a"))
        options: Any = {"transient": {"transient": True}, "volatile": {"volatile": True}}.get(target, {})
        slow.transport.pause_reading()
        # Together, they have fifty times as much as the outbox may hold.
        latest: dict[str, int] = {}
        for number in range(1000):
            key = "often" if number % 3 else f"seldom:{number % 7}"
            latest[key] = number
            await room.emit("price", [key, number, TEXT], conflate=key, **options)
            assert (await hear(quick))["data"][:2] == [key, number]
        slow.transport.resume_reading()
        await until(lambda: all(socket.connected for socket in sockets))
        await app.room("kept:a").emit("end")
        heard = await values(slow)
        assert len(heard) < 800
        newest: dict[str, int] = {}
        for key, number in heard:
            assert number > newest.get(key, -1)
            newest[key] = number
        if target != "volatile":
            assert newest == latest
        assert app.stats.slow_consumers == 0


@pytest.mark.parametrize("target", ["room", "everyone", "kept"])
async def test_volatile_publications_skip_members_that_are_behind(serve, target: str):
    app, sockets = make()
    async with serve(app) as url, connect(f"{url}/") as slow, connect(f"{url}/") as quick:
        await until(lambda: len(sockets) == 2)
        room: Any = {"room": app.room("prices"), "everyone": app.everyone}.get(target, app.room("kept:a"))
        slow.transport.pause_reading()
        for number in range(1000):
            await room.emit("state", [number, TEXT], volatile=True)
            assert (await hear(quick))["data"][0] == number
        slow.transport.resume_reading()
        await app.room("kept:a").emit("end")
        heard = [number for [number] in await values(slow)]
        # Those that it gets are the first, since nothing is queued for it afterwards.
        assert heard == list(range(len(heard)))
        assert len(heard) < 900
        assert sorted(socket.dropped for socket in sockets) == [0, 1000 - len(heard)]
        assert app.stats.slow_consumers == 0
        # It is no longer behind.
        await room.emit("state", [1, TEXT], volatile=True)
        assert (await hear(slow))["data"][0] == 1


async def test_in_one_turn_a_later_one_stands_in_the_place_of_the_first(serve):
    app, sockets = make()
    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as other:
        await until(lambda: len(sockets) == 2)
        room = app.room("prices")
        room.emit("price", ["a", 1, 0], conflate="a")
        room.emit("price", ["b", 1, 0], conflate="b")
        room.emit("other", ["-", 1, 0])
        room.emit("price", ["a", 2, 0], conflate="a")
        room.emit("price", ["a", 3, 0], conflate="a", exclude=sockets[1])
        # Another room with the same key is something else.
        app.everyone.emit("price", ["a", 4, 0], conflate="a")
        room.emit("end")
        first, second = await values(one), await values(other)
        assert [["a", 3], ["b", 1], ["-", 1], ["a", 4]] in (first, second)
        assert [["a", 2], ["b", 1], ["-", 1], ["a", 4]] in (first, second)


async def test_what_does_not_go_together_is_refused_in_the_call():
    app, sockets = make()
    async with TestClient(app) as client, client.connect("/", protocol="raw") as member:
        for room, options in [
            ("kept:a", {"conflate": "k"}),
            ("kept:a", {"exclude": sockets[0]}),
            ("kept:a", {"conflate": "k", "exclude": sockets[0]}),
            # Without a member, it is the same.
            ("kept:empty", {"conflate": "k"}),
            ("kept:empty", {"exclude": sockets[0]}),
        ]:
            for verb in ("send", "emit"):
                with pytest.raises(ValueError, match="gap in the history"):
                    getattr(app.room(room), verb)("said", **options)
        for room, options in [
            ("prices", {"conflate": "k", "volatile": True, "transient": True, "exclude": sockets[0]}),
            ("kept:a", {"conflate": "k", "volatile": True, "transient": True, "exclude": sockets[0]}),
            ("kept:a", {"conflate": "k", "transient": True}),
            ("kept:a", {"conflate": "k", "volatile": True}),
            ("nobody", {"conflate": "k", "volatile": True}),
        ]:
            for verb in ("send", "emit"):
                assert await getattr(app.room(room), verb)("said", **options) is None
        with pytest.raises(TypeError, match="conflate"):
            app.everyone.send("x", conflate=7)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="conflate"):
            app.everyone.send("x", conflate="")
        assert member


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        {"at": [datetime(1960, 1, 2, tzinfo=timezone(-timedelta(hours=3, minutes=30)))]},
        datetime(2026, 1, 2, 3, 4, 5),
        {"text": "ÿ", "number": -1, "bytes": b"\xff"},
    ],
)
async def test_data_is_the_same_text_live_and_from_the_history(time: Any):
    app = Symphony()
    app.rooms("kept:{name}", history=10, client_join=True)
    app.route("/", events=True)
    async with TestClient(app) as client, client.connect("/", protocol="raw") as member:
        await member.send('{"join":"kept:a","id":1}')
        await client.settle()
        position = await app.room("kept:a").emit("said", time)
        assert position is not None
        since = {"epoch": position.epoch, "offset": position.offset - 1}
        await member.send(json.dumps({"join": "kept:a", "id": 2, "since": since}))
        await client.settle()
        heard = [str(await member.receive()) for _ in range(6)]
        said = [message for message in heard if "said" in message]
        assert len(said) == 2
        assert said[0] == said[1]
