"""`room.listen`: tasks and HTTP endpoints of the app hear what is published to a room."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route as HttpRoute

from support.clients import connect, until
from symphony import (
    Limits,
    Position,
    Publication,
    QueueFullError,
    Room,
    Socket,
    Symphony,
    WrongThreadError,
)
from symphony.broker.engines import serve as serve_broker
from symphony.testing import TestClient

PATIENCE = 10
SMALL = Limits(max_listener_bytes=2000)


def make(limits: Limits | None = None, broker: str | None = None, **options: Any) -> Symphony:
    app = Symphony(limits=limits, broker=broker)
    app.rooms("kept:{name}", history=options.pop("history", 1000))
    app.rooms("plain:{name}", **options)
    route = app.route("/{room}")

    @route.on_connect
    async def enter(socket: Socket, room: str) -> None:
        await socket.join(room)

    @route.on_message
    async def say(socket: Socket, room: str, message: str) -> None:
        await app.room(room).emit("said", message)

    return app


def rooms_of(app: Symphony) -> Any:
    return app._core.node.rooms._lives.rooms


async def taken(publications: AsyncIterator[Publication], count: int) -> list[Publication]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(publications) for _ in range(count)]


async def written(app: Symphony) -> None:
    """Wait for the end of the turn, in which publications go to their rooms."""
    await until(lambda: not app._core.node.rooms.batches.dirty)


async def rest(publications: AsyncIterator[Publication], heard: list[Any] | None = None) -> list[Any]:
    heard = [] if heard is None else heard
    async with asyncio.timeout(PATIENCE):
        async for publication in publications:
            heard.append(publication.data)
    return heard


@pytest.fixture(params=["memory", "shared"])
async def nodes(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Yield a function that starts nodes of one app: on one broker that they share, or one node alone."""
    async with AsyncExitStack() as stack:
        served: Any = None
        if request.param == "shared":
            served = serve_broker("memory://", Limits())
            stack.callback(served.close)

        async def start(count: int = 1, **options: Any) -> list[tuple[Symphony, TestClient]]:
            made: list[tuple[Symphony, TestClient]] = []
            for _ in range(count if served else 1):
                app = make(broker=served and served.url, **options)
                made.append((app, await stack.enter_async_context(TestClient(app))))
            return made

        yield start


@pytest.mark.parametrize("name", ["kept:a", "plain:a", "of no family"])
async def test_a_listener_hears_all_nodes_in_order(nodes: Any, name: str) -> None:
    started = await nodes(2)
    (first, _), (last, _) = started[0], started[-1]
    async with first.room(name).listen() as publications:
        for number in range(3):
            await last.room(name).emit("said", {"n": number})
        await last.room(name).send("hello")
        await last.room(name).send(b"bytes")
        heard = await taken(publications, 5)
        assert [(each.event, each.data) for each in heard] == [
            ("said", {"n": 0}),
            ("said", {"n": 1}),
            ("said", {"n": 2}),
            ("message", "hello"),
            ("message", b"bytes"),
        ]
        if name == "kept:a":
            assert [each.position and each.position.offset for each in heard] == [1, 2, 3, 4, 5]
            assert publications.position == heard[-1].position
            assert await first.room(name).history() == heard
        else:
            assert {each.position for each in heard} == {None} == {publications.position}


@pytest.mark.parametrize("name", ["kept:a", "plain:a"])
async def test_a_listener_is_not_a_member(nodes: Any, name: str) -> None:
    [(app, client)] = await nodes()
    room = app.room(name)
    async with room.listen() as publications, room.listen():
        assert room.sockets == ()
        assert await room.count() == 0
        async with client.connect(f"/{name}") as one:
            assert len(room.sockets) == 1 == await room.count()
            await one.send("x")
            [heard] = await taken(publications, 1)
            assert heard.data == "x"
            # It is sent to members once, whatever the number of listeners.
            assert json.loads(str(await one.receive())) == {"event": "said", "data": "x"}
        await until(lambda: not room.sockets)
    assert rooms_of(app) == {}


@pytest.mark.parametrize("name", ["kept:a", "plain:a"])
async def test_a_publisher_may_change_what_it_has_published(nodes: Any, name: str) -> None:
    [(app, _)] = await nodes()
    async with app.room(name).listen() as publications:
        data = [1]
        publishing = app.room(name).emit("said", data)
        data.append(2)
        await publishing
        assert (await taken(publications, 1))[0].data == [1]


async def test_transient_and_volatile_publications_have_no_position(nodes: Any) -> None:
    [(app, _)] = await nodes()
    room = app.room("kept:a")
    async with room.listen() as publications:
        await room.emit("typing", 1, transient=True)
        await room.emit("moved", 2, volatile=True)
        position = await room.emit("said", 3)
        heard = await taken(publications, 3)
        assert sorted((each.event, each.position) for each in heard if each.position is None) == [
            ("moved", None),
            ("typing", None),
        ]
        assert [each for each in heard if each.position] == [Publication("said", 3, position)]


async def test_an_edit_names_what_it_replaces(nodes: Any) -> None:
    [(app, _)] = await nodes()
    room = app.room("kept:a")
    async with room.listen() as publications:
        first = await room.emit("said", "old")
        second = await room.emit("said", "new", replaces=first)
        assert (await taken(publications, 2))[1] == Publication("said", "new", second, first)


# Where it begins


@pytest.mark.parametrize("since", [0, 3, 5, 10, "start"])
async def test_a_listener_begins_where_it_says(nodes: Any, since: Any) -> None:
    started = await nodes(2)
    (app, _), (other, _) = started[0], started[-1]
    top = Position("", 0)
    for number in range(1, 11):
        top = await other.room("kept:a").emit("said", number)
    begin = since if since == "start" else Position(top.epoch, since)
    async with app.room("kept:a").listen(since=begin) as publications:
        await other.room("kept:a").emit("said", 11)
        first = 0 if since == "start" else since
        heard = await taken(publications, 11 - first)
        assert [each.data for each in heard] == list(range(first + 1, 12))
        assert [each.position for each in heard] == [
            Position(top.epoch, offset) for offset in range(first + 1, 12)
        ]


async def test_a_listener_may_have_missed_more_than_a_member_may(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=Limits(max_recovery=5))
    for number in range(300):
        await app.room("kept:a").emit("said", number)
    async with app.room("kept:a").listen(since="start") as publications:
        assert [each.data for each in await taken(publications, 300)] == list(range(300))


@pytest.mark.parametrize("why", ["trimmed", "another epoch", "in the future"])
async def test_a_listener_is_told_once_that_what_it_needs_is_gone(nodes: Any, why: str) -> None:
    [(app, _)] = await nodes(history=3)
    room = app.room("kept:a")
    positions = [await room.emit("said", number) for number in range(1, 10)]
    top = positions[-1]
    since = {
        "trimmed": Position(top.epoch, 2),
        "another epoch": Position("other", 8),
        "in the future": Position(top.epoch, 99),
    }[why]
    told: list[Position] = []
    async with room.listen(since=since) as publications:
        publications.on_lost(told.append)
        position = await room.emit("said", 10)
        assert await taken(publications, 1) == [Publication("said", 10, position)]
        assert told == [top]


async def test_a_loss_without_a_function_is_logged(nodes: Any, caplog: pytest.LogCaptureFixture) -> None:
    [(app, _)] = await nodes(history=3)
    room = app.room("kept:a")
    await room.emit("said", 1)
    async with room.listen(since=Position("other", 8)) as publications:
        await room.emit("said", 2)
        await taken(publications, 1)
    assert "'kept:a' are lost for a listener: it goes on after the offset 1" in caplog.text


async def test_what_listen_refuses(nodes: Any) -> None:
    [(app, _)] = await nodes()
    with pytest.raises(ValueError, match=r"since= needs a history, and the room 'plain:a' has none"):
        app.room("plain:a").listen(since="start")
    for wrong in (5, "end", ("e", 1)):
        with pytest.raises(TypeError, match="since is a Position or 'start'"):
            app.room("kept:a").listen(since=wrong)
    with pytest.raises(TypeError, match="conflate is True, False or a function, not 'key'"):
        app.room("kept:a").listen(conflate="key")  # type: ignore[arg-type]
    with pytest.raises(WrongThreadError):
        await asyncio.to_thread(app.room("kept:a").listen)
    async with app.room("kept:a").listen() as publications:
        waiting = asyncio.ensure_future(anext(publications))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="Another task already iterates"):
            await anext(publications)
        waiting.cancel()
        await asyncio.wait((waiting,))
        # A cancelled wait loses nothing.
        await app.room("kept:a").emit("said", 1)
        assert [each.data for each in await taken(publications, 1)] == [1]


# Slow listeners


@pytest.mark.beyond("max_listener_bytes")
async def test_a_slow_listener_catches_up_from_the_history(nodes: Any) -> None:
    started = await nodes(2, limits=SMALL)
    (app, _), (other, _) = started[0], started[-1]
    async with app.room("kept:a").listen() as publications:
        for number in range(500):
            await other.room("kept:a").emit("said", [number, "x" * 50])
            if number % 100 == 50:
                # It reads now and then.
                assert len(await taken(publications, 10)) == 10
        heard = await taken(publications, 450)
        assert [each.data[0] for each in heard] == list(range(50, 500))
        waiting = publications._waiting
        assert waiting.size == 0
        assert waiting.dropped == 0
        # It is no longer behind.
        await until(lambda: not rooms_of(app)["kept:a"].catching)
        await app.room("kept:a").emit("typing", 1, transient=True)
        assert (await taken(publications, 1))[0].event == "typing"


async def test_what_waits_for_a_slow_listener_is_bounded(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=SMALL)
    room = app.room("kept:a")
    async with room.listen() as publications:
        for number in range(1000):
            await room.emit("said", number)
            # One page of the history more than the limit.
            assert publications._waiting.size < 2000 + 100 * 300
        assert [each.data for each in await taken(publications, 1000)] == list(range(1000))


async def test_a_slow_listener_is_told_what_the_history_has_lost(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=SMALL, history=5)
    room = app.room("kept:a")
    events: list[Any] = []
    async with room.listen() as publications:

        @publications.on_lost
        async def lost(position: Position) -> None:
            await asyncio.sleep(0)
            events.append(("lost", position.offset))

        for number in range(1, 101):
            await room.emit("said", number)
        async for each in publications:
            events.append(each.position and each.position.offset)
            if each.data == 100:
                break
    told = [each for each in events if isinstance(each, tuple)]
    assert told
    # After each loss, it goes on with the next one; without a loss, there is no hole.
    last = 0
    for each in events:
        if isinstance(each, tuple):
            last = each[1]
        else:
            assert each == last + 1
            last = each
    assert last == 100


@pytest.mark.beyond("max_listener_bytes")
@pytest.mark.parametrize("policy", [None, "drop_oldest", "resync"])
async def test_without_a_history_a_slow_listener_is_told_how_many_it_has_missed(
    nodes: Any, policy: Any
) -> None:
    [(app, _)] = await nodes(limits=SMALL, slow_consumer=policy)
    room = app.room("plain:a")
    told: list[int] = []
    async with room.listen() as publications:
        publications.on_dropped(told.append)
        for number in range(100):
            await room.emit("said", number)
        await written(app)
        [first] = await taken(publications, 1)
        assert first.data > 0
        assert told == [first.data]
        # In order, up to the newest one.
        others = await taken(publications, 99 - first.data)
        assert [each.data for each in others] == list(range(first.data + 1, 100))
        assert publications.dropped == first.data == app.stats.missed_publications
        assert len(others) < 8


@pytest.mark.within("max_listener_bytes")
async def test_a_listener_within_its_limit_misses_nothing(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=Limits(max_listener_bytes=30_000))
    room = app.room("plain:a")
    async with room.listen() as publications:
        for number in range(100):
            await room.emit("said", number)
        assert [each.data for each in await taken(publications, 100)] == list(range(100))
        assert publications.dropped == 0


@pytest.mark.parametrize("policy", ["disconnect", "conflate"])
async def test_a_family_may_end_a_slow_listener(nodes: Any, policy: Any) -> None:
    [(app, _)] = await nodes(limits=SMALL, slow_consumer=policy)
    room = app.room("plain:a")
    async with room.listen() as publications:
        for number in range(100):
            await room.emit("said", number)
        heard: list[Any] = []
        with pytest.raises(QueueFullError, match="'plain:a' is too slow"):
            await rest(publications, heard)
        # What it had in time, without a hole.
        assert heard == list(range(len(heard)))
        assert heard
    assert rooms_of(app) == {}


async def test_dropped_publications_without_a_function_are_logged(
    nodes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    [(app, _)] = await nodes(limits=SMALL)
    async with app.room("plain:a").listen() as publications:
        for number in range(100):
            await app.room("plain:a").emit("said", number)
        await written(app)
        await taken(publications, 1)
    assert f"{publications.dropped} publications of the room 'plain:a' were dropped" in caplog.text


async def test_a_publication_larger_than_the_limit_is_given(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=SMALL)
    for name in ("kept:a", "plain:a"):
        async with app.room(name).listen() as publications:
            await app.room(name).emit("said", 1)
            await app.room(name).emit("said", "x" * 5000)
            await app.room(name).emit("said", 3)
            assert (await taken(publications, 1))[0].data in (1, "x" * 5000, 3)


# Conflating


async def test_of_what_has_a_key_only_the_newest_is_given(nodes: Any) -> None:
    [(app, _)] = await nodes()
    room = app.room("plain:a")
    async with room.listen(conflate=True) as publications, room.listen() as all_of_them:
        for number in range(10):
            await room.emit("price", ["a", number], conflate="a")
            await room.emit("price", ["b", number], conflate="b")
            await room.emit("news", number)
        heard = await taken(publications, 12)
        assert [each.data for each in heard] == [["a", 9], ["b", 9], *range(10)]
        # What is given is not replaced.
        await room.emit("price", ["a", 10], conflate="a")
        assert [each.data for each in await taken(publications, 1)] == [["a", 10]]
        assert len(await taken(all_of_them, 31)) == 31


@pytest.mark.parametrize("name", ["kept:a", "plain:a"])
async def test_a_function_returns_the_key(nodes: Any, name: str) -> None:
    [(app, _)] = await nodes(limits=Limits(max_listener_bytes=4000))
    room = app.room(name)

    def key(publication: Publication) -> str | None:
        return publication.data["symbol"] if publication.event == "price" else None

    async with room.listen(conflate=key) as publications:
        top = None
        for number in range(200):
            for symbol in "ab":
                top = await room.emit("price", {"symbol": symbol, "n": number})
        await written(app)
        heard = await taken(publications, 2)
        assert [each.data for each in heard] == [{"symbol": "a", "n": 199}, {"symbol": "b", "n": 199}]
        assert publications.dropped == 0
        if name == "kept:a":
            assert heard[1].position == top
            assert publications.position is not None
            assert top is not None
            # From there on, nothing is missed; the newest ones come again.
            async with room.listen(since=publications.position) as again:
                data = [each.data for each in await taken(again, top.offset - publications.position.offset)]
                assert data[-1] == {"symbol": "b", "n": 199}


async def test_a_function_that_fails_ends_its_listener_and_no_other(nodes: Any) -> None:
    [(app, client)] = await nodes()
    room = app.room("plain:a")

    def key(publication: Publication) -> str:
        return publication.data["symbol"]

    async with (
        client.connect("/plain:a") as one,
        room.listen() as others,
        room.listen(conflate=key) as publications,
    ):
        await room.emit("price", {"symbol": "a"})
        await room.emit("price", {"wrong": "a"})
        assert len(await taken(others, 2)) == 2
        for _ in range(2):
            await one.receive()
        assert (await taken(publications, 1))[0].data == {"symbol": "a"}
        with pytest.raises(KeyError):
            await taken(publications, 1)


# The life of the room, and the end


@pytest.mark.parametrize("name", ["life:a", "kept_life:a"])
async def test_a_listener_goes_on_while_rooms_come_and_go(nodes: Any, name: str) -> None:
    """It keeps no state alive, and misses nothing when a room ends and begins again."""
    started = await nodes(2)
    (app, client), (other, _) = started[0], started[-1]
    lives: list[str] = []
    ended: list[str] = []
    # Families are declared before an app starts, so these are others.
    app, other, client, stack = await _with_lives(app, other, lives, ended)
    async with stack, app.room(name).listen() as publications:
        number = 0
        for life in range(1, 4):
            async with client.connect(f"/{name}") as one:
                assert len(lives) == life
                assert app.room(name).state == {"life": life}
                for _ in range(5):
                    await other.room(name).emit("said", number)
                    number += 1
                await one.receive()
            publishing = asyncio.ensure_future(_publish(other.room(name), number, 50))
            number += 50
            await until(lambda life=life: len(ended) == life and app.room(name).state is None)
            await publishing
        assert [each.data for each in await taken(publications, number)] == list(range(number))


async def _publish(room: Room[Any], first: int, count: int) -> None:
    for number in range(first, first + count):
        await room.emit("said", number)
        await asyncio.sleep(0)


async def _with_lives(
    app: Symphony, other: Symphony, lives: list[str], ended: list[str]
) -> tuple[Symphony, Symphony, TestClient, AsyncExitStack]:
    stack = AsyncExitStack()
    made: list[tuple[Symphony, TestClient]] = []
    for before in dict.fromkeys((app, other)):
        each = Symphony(broker=before._broker)

        def life(name: str) -> dict[str, int]:
            lives.append(name)
            return {"life": len(lives)}

        for pattern, history in (("life:{name}", None), ("kept_life:{name}", 1000)):
            family = each.rooms(pattern, state=life, history=history)

            @family.on_empty
            async def empty(room: Room) -> None:
                await asyncio.sleep(0)
                ended.append(room.name)

        route = each.route("/{room}")

        @route.on_connect
        async def enter(socket: Socket, room: str) -> None:
            await socket.join(room)

        route.on_message(_ignore)
        made.append((each, await stack.enter_async_context(TestClient(each))))
    return made[0][0], made[-1][0], made[0][1], stack


async def _ignore(message: str) -> None: ...


@pytest.mark.parametrize("name", ["kept:a", "plain:a"])
async def test_closing_the_room_ends_it_after_what_was_published(nodes: Any, name: str) -> None:
    [(app, client)] = await nodes(limits=Limits(max_listener_bytes=100_000))
    room = app.room(name)
    async with room.listen() as alone:
        await room.emit("said", "first")
        await room.close()
        assert await rest(alone) == ["first"]
    async with client.connect(f"/{name}"), room.listen() as publications, room.listen():
        for number in range(100):
            await room.emit("said", number)
        await room.close()
        await room.emit("said", "later")
        assert await rest(publications) == list(range(100))
        # It has ended for good.
        assert await rest(publications) == []
    assert rooms_of(app) == {}


async def test_a_listener_that_is_behind_gets_the_rest_before_it_ends(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=SMALL)
    room = app.room("kept:a")
    async with room.listen() as publications:
        for number in range(300):
            await room.emit("said", number)
        await room.close()
        assert (await rest(publications))[:300] == list(range(300))


async def test_the_end_of_the_app_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    heard: dict[str, list[Any]] = {"kept:a": [], "plain:a": []}
    done = asyncio.Event()

    async def hear(name: str) -> None:
        async with app.room(name).listen() as publications:
            started.append(name)
            heard[name] = await rest(publications)
        done.set()

    started: list[str] = []
    async with TestClient(app):
        tasks = [asyncio.ensure_future(hear(name)) for name in heard]
        await until(lambda: len(started) == 2)
        for name in heard:
            await app.room(name).emit("said", 1)
        room = app.room("kept:a")
    await asyncio.wait(tasks, timeout=PATIENCE)
    assert heard == {"kept:a": [1], "plain:a": [1]}
    with pytest.raises(RuntimeError, match="the app stops"):
        async with room.listen():
            pass


async def test_leaving_the_block_frees_everything(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=SMALL)
    room = app.room("kept:a")
    for number in range(100):
        await room.emit("said", number)
    freed: list[Any] = []
    for since in (None, "start"):
        async with room.listen(since=since) as publications:
            freed.append(weakref.ref(publications))
            await room.emit("said", 1)
            if since:
                # It is behind when the block ends.
                await taken(publications, 3)
        assert rooms_of(app) == {}
        assert await rest(publications) == []
        del publications
    gc.collect()
    await until(lambda: [each() for each in freed] == [None, None])


async def test_an_error_in_the_block_frees_it_too(nodes: Any) -> None:
    [(app, _)] = await nodes()
    with pytest.raises(ZeroDivisionError):
        async with app.room("plain:a").listen():
            raise ZeroDivisionError
    assert rooms_of(app) == {}


async def test_a_loop_over_many_publications_lets_others_run(nodes: Any) -> None:
    [(app, _)] = await nodes(limits=Limits(max_listener_bytes=10_000_000))
    room = app.room("plain:a")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with room.listen() as publications:
        for number in range(2000):
            await room.emit("said", number)
        counting = asyncio.ensure_future(count())
        await taken(publications, 2000)
        counting.cancel()
    assert turns > 20


# Over HTTP


async def test_a_stream_of_an_http_endpoint_ends_with_the_server(serve: Any) -> None:
    app: Symphony

    async def stream(request: Request) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            async with app.room(request.query_params["room"]).listen() as publications:
                yield "open\n"
                async for each in publications:
                    yield f"{each.event} {json.dumps(each.data)}\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    app = make()
    app.mount("/streams", Starlette(routes=[HttpRoute("/", stream)]))
    read: list[str] = []
    async with serve(app) as url, AsyncExitStack() as stack:
        http = url.replace("ws://", "http://")
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE))
        response = await stack.enter_async_context(
            client.stream("GET", f"{http}/streams/", params={"room": "plain:a"})
        )
        lines = response.aiter_lines()
        assert await anext(lines) == "open"
        async with connect(f"{url}/plain:a") as one:
            await one.send("hello")
            assert json.loads(await one.recv()) == {"event": "said", "data": "hello"}
        assert await anext(lines) == 'said "hello"'
        await app.room("plain:a").close()
        read += [line async for line in lines]
    assert read == []
