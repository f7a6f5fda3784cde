"""Requests that are answered with a stream: credit, cancel, and every way to end."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from support.clients import Client, Log, closed, connect, settled, until
from symphony import Depends, Limits, Reject, Symphony

CANCELLED = {"code": "cancelled", "message": "the request was cancelled", "retryable": False, "details": None}
MAX_CREDIT = 2**31 - 1


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def hear_all(client: Client, id: int) -> list[Any]:
    """Return the items of a stream up to its end."""
    items = []
    while (frame := await hear(client)) != {"end": id}:
        assert frame["item"] == id
        items.append(frame["data"])
    return items


async def silent(client: Client) -> None:
    """Check that nothing is on its way: a ping's answer comes next."""
    await say(client, ping=42)
    assert await hear(client) == {"pong": 42}


class Source:
    """An app whose event `count` streams numbers up to its data, and what it has been asked for.

    Attributes:
        log: Each number when it was asked for, `closed` when no more will be.
        pause: Awaited before each item.
    """

    def __init__(self, **limits: Any) -> None:
        self.app = Symphony(limits=Limits(**limits))
        self.log = Log()
        self.app.on("count")(self.count)
        self.app.on("echo")(lambda data: data)

    async def pause(self, number: int) -> None:
        """Wait for nothing."""

    async def count(self, data: int) -> AsyncIterator[int]:
        try:
            for number in range(data):
                self.log.append(number)
                await self.pause(number)
                yield number
        finally:
            self.log.append("closed")


async def forever(number: int) -> None:
    await asyncio.Event().wait()


# Items


async def test_a_stream_is_its_items_and_an_end(serve):
    source = Source()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        for count in (3, 0, 1, 1000):
            await say(client, event="count", data=count, id=7)
            assert await hear_all(client, 7) == list(range(count))
        await silent(client)


async def test_a_handler_may_return_a_generator_that_it_has_made(serve):
    source = Source()

    @source.app.on("later")
    async def later(data: int) -> AsyncIterator[int]:
        await asyncio.sleep(0)
        return source.count(data)

    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="later", data=2, id=1)
        assert await hear_all(client, 1) == [0, 1]


async def test_without_an_id_a_stream_is_refused_and_never_begun(serve):
    source = Source()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="count", data=3)
        told = await hear(client)
        assert told["event"] == "error"
        assert (told["data"]["code"], told["data"]["details"]) == ("request_required", {"event": "count"})
        await say(client, event="count", data="x", id=1)
        assert (await hear(client))["data"]["code"] == "invalid"
        await silent(client)
    assert source.log == []


async def test_streams_run_beside_each_other_and_hold_up_nothing(serve):
    source = Source()
    gates = [asyncio.Event() for _ in range(3)]
    source.pause = lambda number: gates[number].wait()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        for id in (1, 2):
            await say(client, event="count", data=3, id=id)
        await say(client, event="echo", data="x", id=3)
        assert await hear(client) == {"reply": 3, "data": "x"}
        for number, gate in enumerate(gates):
            await silent(client)
            gate.set()
            heard = [await hear(client), await hear(client)]
            assert sorted(frame["item"] for frame in heard) == [1, 2]
            assert [frame["data"] for frame in heard] == [number, number]
        assert sorted([(await hear(client))["end"], (await hear(client))["end"]]) == [1, 2]


async def test_a_generator_that_never_waits_holds_up_neither_its_socket_nor_others(serve):
    source = Source()
    async with serve(source.app) as url, connect(f"{url}/") as client, connect(f"{url}/") as other:
        await say(client, event="count", data=10**9, id=1)
        await until(lambda: source.log)
        for number in range(5):
            await say(other, event="echo", data=number, id=1)
            assert await hear(other) == {"reply": 1, "data": number}
            await say(client, event="echo", data=number, id=2)
            while (frame := await hear(client)) != {"reply": 2, "data": number}:
                assert frame["item"] == 1
        await say(client, cancel=1)
        while (frame := await hear(client)) != {"error": 1, "data": CANCELLED}:
            assert frame["item"] == 1
    assert source.log[-1] == "closed"


async def test_a_client_that_does_not_read_stops_the_generator(serve):
    app = Symphony()
    given = 0

    @app.on("flood")
    async def flood() -> AsyncIterator[str]:
        nonlocal given
        for number in range(3000):
            given = number
            yield "x" * 10_000

    async with serve(app) as url, connect(f"{url}/", max_queue=1) as client:
        await say(client, event="flood", id=1)
        await until(lambda: given)
        client.transport.pause_reading()
        # Once all buffers between the two are full nothing moves any more.
        assert await settled(lambda: given) < 2500
        client.transport.resume_reading()
        assert len(await hear_all(client, 1)) == 3000
        assert app.stats.slow_consumers == app.stats.dropped_frames == 0


# Credit


async def test_credit_bounds_the_items_and_what_the_generator_is_asked_for_exactly(serve):
    source = Source()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="count", data=6, id=1, credit=0)
        await silent(client)
        assert source.log == []
        allowed = 0
        for credit in (2, 1, 3):
            await say(client, grant=1, credit=credit)
            for number in range(allowed, allowed + credit):
                assert await hear(client) == {"item": 1, "data": number}
            allowed += credit
            await silent(client)
            assert source.log == list(range(allowed))
        # Whether there is a seventh item is not asked before one is allowed.
        await say(client, grant=1, credit=1)
        assert await hear(client) == {"end": 1}
        await say(client, grant=1, credit=1)
        await silent(client)


async def test_each_stream_has_its_own_credit(serve):
    source = Source()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        for id, credit in ((1, 1), (2, 0), (3, None)):
            await say(client, event="count", data=2, id=id, credit=credit)
        heard = [await hear(client) for _ in range(4)]
        assert sorted(heard, key=lambda frame: frame.get("item", 9)) == [
            {"item": 1, "data": 0},
            {"item": 3, "data": 0},
            {"item": 3, "data": 1},
            {"end": 3},
        ]
        await silent(client)
        for id in (3, 2, 1):
            await say(client, grant=id, credit=3)
            if id != 3:
                assert await hear_all(client, id) == ([0, 1] if id == 2 else [1])


async def test_a_grant_to_a_stream_that_waits_for_its_turn_is_not_lost(serve):
    source = Source()
    go = asyncio.Event()
    source.app.on("wait")(go.wait)
    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="wait", id=1)
        await say(client, event="count", data=3, id=2, credit=1)
        await say(client, grant=2, credit=3)
        await silent(client)
        go.set()
        assert await hear(client) == {"reply": 1, "data": True}
        assert await hear_all(client, 2) == [0, 1, 2]


@pytest.mark.parametrize("first", [MAX_CREDIT, 1])
async def test_more_credit_than_can_be_counted_ends_the_stream(serve, first):
    source = Source()
    source.pause = forever
    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="count", data=3, id=1, credit=first)
        await say(client, grant=1, credit=MAX_CREDIT - first or 1)
        if first == 1:
            await source.log.reaches(1)
            await say(client, grant=1, credit=1)
        told = await hear(client)
        assert told["error"] == 1
        assert (told["data"]["code"], told["data"]["details"]) == ("invalid", {"path": "$.credit"})
        await say(client, grant=1, credit=1)
        await silent(client)


# Every way to end


@pytest.mark.parametrize("where", ["at an item", "for credit", "in the generator", "before it began"])
async def test_a_cancel_closes_the_generator_before_it_is_answered(serve, where):
    source = Source()
    if where == "in the generator":
        source.pause = forever
    async with serve(source.app) as url, connect(f"{url}/") as client:
        credit = {"at an item": None, "for credit": 1}.get(where, 0 if where == "before it began" else 5)
        await say(client, event="count", data=10**9, id=1, credit=credit)
        if where != "before it began":
            await source.log.reaches(1)
        await say(client, cancel=1)
        while (frame := await hear(client)) != {"error": 1, "data": CANCELLED}:
            assert frame["item"] == 1
        assert source.log[-1:] == ([] if where == "before it began" else ["closed"])
        await say(client, cancel=1)
        await silent(client)
    assert source.log.count("closed") == (where != "before it began")


async def test_a_cancel_reaches_the_generator_within_a_turn_of_the_loop(serve):
    source = Source()
    turns = Log()

    @source.app.on("measure")
    async def measure() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            turns.append(True)

    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="measure", id=1)
        assert await hear(client) == {"item": 1, "data": 1}
        [socket] = source.app.everyone.sockets
        socket._session.received('{"cancel":1}')
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns == [True]


async def test_a_generator_that_goes_on_when_it_is_cancelled_is_closed_at_its_next_item(serve):
    app = Symphony()
    log = Log()

    @app.on("stubborn")
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 0
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                log.append("swallowed")
            yield 1
            await asyncio.Event().wait()
        finally:
            log.append("closed")

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="stubborn", id=1)
        assert await hear(client) == {"item": 1, "data": 0}
        await say(client, cancel=1)
        assert await hear(client) == {"error": 1, "data": CANCELLED}
    assert log == ["swallowed", "closed"]


async def test_the_deadline_of_a_stream_ends_it_wherever_it_is(serve):
    source = Source()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="count", data=3, id=1, credit=1, timeout=0.3)
        assert await hear(client) == {"item": 1, "data": 0}
        told = await hear(client)
        assert (told["error"], told["data"]["code"]) == (1, "timeout")
        assert source.log == [0, "closed"]
        await say(client, event="count", data=2, id=1, timeout=60)
        assert await hear_all(client, 1) == [0, 1]


async def test_an_error_in_mid_stream_ends_it_and_what_the_app_says_of_it_is_told(serve, caplog):
    app = Symphony()

    @app.on("refuse")
    async def refuse() -> AsyncIterator[int]:
        yield 1
        raise Reject("shop.sold_out", "no more", details={"after": 1}, retryable=True)

    @app.on("fail")
    async def fail() -> AsyncIterator[int]:
        yield 1
        raise ValueError("the password is 1234")

    @app.on("unencodable")
    async def unencodable() -> AsyncIterator[Any]:
        yield 1
        yield object()

    @app.on("at once")
    async def at_once() -> AsyncIterator[Any]:
        raise Reject("forbidden")
        yield

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="refuse", id=1)
        assert await hear(client) == {"item": 1, "data": 1}
        sold_out = {"code": "shop.sold_out", "message": "no more", "retryable": True, "details": {"after": 1}}
        assert await hear(client) == {"error": 1, "data": sold_out}
        for id, event in enumerate(("fail", "unencodable")):
            await say(client, event=event, id=id)
            assert await hear(client) == {"item": id, "data": 1}
            told = await hear(client)
            assert (told["error"], told["data"]["code"], told["data"]["details"]) == (id, "internal", None)
            assert "1234" not in str(told)
        await say(client, event="at once", id=1)
        assert (await hear(client))["data"]["code"] == "forbidden"
        await silent(client)
    assert app.stats.failed_handlers == 2
    assert "the password is 1234" in caplog.text


@pytest.mark.parametrize("how", ["to its end", "cancelled", "failed", "left"])
async def test_dependencies_are_open_until_the_stream_is_over(serve, how):
    app = Symphony()
    log = Log()

    async def session() -> AsyncIterator[str]:
        log.append("open")
        try:
            yield "session"
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    @app.on("read")
    async def read(data: int, opened: Annotated[str, Depends(session)]) -> AsyncIterator[str]:
        for _ in range(data):
            assert log == ["open"]
            yield opened
        if how == "failed":
            raise Reject("forbidden")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await say(client, event="read", data=2, id=1, credit=3 if how in ("to its end", "failed") else 1)
            assert await hear(client) == {"item": 1, "data": "session"}
            if how == "cancelled":
                await say(client, cancel=1)
            if how != "left":
                while "item" in (last := await hear(client)):
                    pass
                assert ("end" in last) == (how == "to its end")
        await log.reaches(2)
    assert log == ["open", "closed"]


@pytest.mark.within("max_streams")
@pytest.mark.beyond("max_streams")
async def test_more_streams_at_once_than_allowed_are_refused_and_ended_ones_do_not_count(serve):
    source = Source(max_streams=2)
    async with serve(source.app) as url, connect(f"{url}/") as client:
        for _ in range(3):
            for id in (1, 2, 3):
                await say(client, event="count", data=1, id=id, credit=0)
            told = await hear(client)
            assert (told["error"], told["data"]["code"]) == (3, "too_many")
            assert told["data"]["details"] == {"max_streams": 2}
            await say(client, grant=1, credit=2)
            assert await hear_all(client, 1) == [0]
            await say(client, event="count", data=1, id=3)
            assert await hear_all(client, 3) == [0]
            await say(client, cancel=2)
            assert await hear(client) == {"error": 2, "data": CANCELLED}


# When the socket goes


@pytest.mark.parametrize("how", ["lost", "closed by the client", "closed by the server"])
async def test_streams_are_closed_when_their_socket_goes(serve, how):
    source = Source()
    async with serve(source.app) as url:
        # A queue with a bound would keep the client from reading up to the close frame.
        async with connect(f"{url}/", max_queue=None) as client:
            await say(client, event="count", data=3, id=1, credit=1)
            assert await hear(client) == {"item": 1, "data": 0}
            await say(client, event="count", data=10**9, id=2)
            await hear(client)
            if how == "lost":
                client.transport.abort()
            elif how == "closed by the server":
                await source.app.everyone.sockets[0].close(4000)
        await until(lambda: source.log.count("closed") == 2)
        await until(lambda: source.app.stats.closed == 1)
    assert source.app.stats.failed_handlers == 0


async def test_a_stream_that_waited_for_its_turn_when_its_socket_went_does_not_run_on(serve, caplog):
    source = Source(finish_timeout=1)
    source.pause = forever
    go = asyncio.Event()
    source.app.on("wait")(go.wait)
    async with serve(source.app) as url:
        async with connect(f"{url}/") as client:
            await say(client, event="wait", id=1)
            await say(client, event="count", data=3, id=2)
            await silent(client)
            client.transport.abort()
        await until(lambda: not source.app.everyone.sockets)
        go.set()
        await until(lambda: source.app.stats.closed == 1)
    assert source.log in ([], [0, "closed"])
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("cleans_up", ["at once", "in a few turns"])
async def test_streams_of_a_server_that_stops_have_time_to_finish_and_are_told_then(serve, caplog, cleans_up):
    source = Source(finish_timeout=0.2)

    @source.app.on("endless")
    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            for _ in range(0 if cleans_up == "at once" else 5):
                await asyncio.sleep(0)
            source.log.append("cleaned up")

    go = asyncio.Event()
    source.pause = lambda number: go.wait()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="endless", id=1)
        assert await hear(client) == {"item": 1, "data": 1}
        await say(client, event="count", data=1, id=2)
        await source.log.reaches(1)
        stopping = asyncio.ensure_future(source.app._core.node.drain(asyncio.Event()))
        assert await hear(client) == {"retry": 1.0}
        go.set()
        assert await hear_all(client, 2) == [0]
        told = await hear(client)
        assert (told["error"], told["data"]["code"], told["data"]["retryable"]) == (1, "unavailable", True)
        assert await closed(client) == (1012, "the server restarts")
        await stopping
    assert source.log[-1] == "cleaned up"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_stream_may_be_granted_more_while_the_server_stops(serve):
    source = Source()
    async with serve(source.app) as url, connect(f"{url}/") as client:
        await say(client, event="count", data=3, id=1, credit=1)
        assert await hear(client) == {"item": 1, "data": 0}
        stopping = asyncio.ensure_future(source.app._core.node.drain(asyncio.Event()))
        assert await hear(client) == {"retry": 1.0}
        await say(client, grant=1, credit=3)
        assert await hear_all(client, 1) == [1, 2]
        assert (await closed(client))[0] == 1012
        await stopping
