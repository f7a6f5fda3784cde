"""Requests under way: in order or several at once, cancelled, out of time, and cut off."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest

from support.clients import Client, Log, closed, connect, settled, until
from support.process import start
from symphony import Depends, Limits, Reject, Socket, Symphony

CANCELLED = {"code": "cancelled", "message": "the request was cancelled", "retryable": False, "details": None}
IN_ORDER_AND_AT_ONCE = pytest.mark.parametrize("concurrency", [None, 3])


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def silent(client: Client) -> None:
    """Check that nothing is on its way: a ping's answer comes next."""
    await say(client, ping=42)
    assert await hear(client) == {"pong": 42}


class Work:
    """Handlers that wait until they are let go, by the data of their event.

    Attributes:
        log: Which have begun, and how each ended.
        most: How many were at work at once.
    """

    def __init__(self, *, concurrency: int | None = None, **limits: Any) -> None:
        self.app = Symphony(limits=Limits(**limits))
        self.log = Log()
        self.most = self._at_work = 0
        self._gates: dict[Any, asyncio.Event] = {}
        route = self.app.route("/", concurrency=concurrency)
        route.on("work")(self.work)
        route.on("echo")(lambda data: data)

    async def work(self, data: Any) -> Any:
        self.log.append(("begin", data))
        self._at_work += 1
        self.most = max(self.most, self._at_work)
        try:
            await self.gate(data).wait()
        except asyncio.CancelledError:
            self.log.append(("cancelled", data))
            raise
        finally:
            self._at_work -= 1
        self.log.append(("end", data))
        return data

    def gate(self, data: Any) -> asyncio.Event:
        return self._gates.setdefault(data, asyncio.Event())

    async def begun(self, *data: Any) -> None:
        await until(lambda: all(("begin", each) in self.log for each in data))


# Order


async def test_events_and_requests_are_handled_in_order_and_pings_in_between(serve):
    work = Work()
    async with serve(work.app) as url, connect(f"{url}/") as client:
        await say(client, event="work", data="a", id=1)
        await say(client, event="work", data="b")
        await say(client, event="echo", data="c", id=0)
        await work.begun("a")
        await silent(client)
        work.gate("b").set()
        await silent(client)
        assert work.log == [("begin", "a")]
        work.gate("a").set()
        assert [await hear(client), await hear(client)] == [
            {"reply": 1, "data": "a"},
            {"reply": 0, "data": "c"},
        ]
    assert work.log == [(part, data) for data in "ab" for part in ("begin", "end")]


async def test_with_concurrency_so_many_run_at_once_and_no_more(serve):
    work = Work(concurrency=3)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        for number in range(7):
            await say(client, event="work", data=number, id=number)
        await work.begun(0, 1, 2)
        await silent(client)
        assert len(work.log) == 3
        work.gate(1).set()
        assert await hear(client) == {"reply": 1, "data": 1}
        await work.begun(3)
        await silent(client)
        assert work.log == [("begin", 0), ("begin", 1), ("begin", 2), ("end", 1), ("begin", 3)]
        for number in (6, 5, 4, 3, 2, 0):
            work.gate(number).set()
        assert {(await hear(client))["reply"] for _ in range(6)} == {0, 2, 3, 4, 5, 6}
    assert work.most == 3


async def test_handlers_of_one_socket_at_once_do_not_share_context_variables(serve):
    app = Symphony()
    last: ContextVar[str] = ContextVar("last", default="nothing")
    both = asyncio.Barrier(2)
    route = app.route("/", concurrency=2)

    @route.on_connect
    async def enter() -> None:
        last.set("the socket's")

    @route.on("x")
    async def handle(data: str) -> list[str]:
        before = last.get()
        last.set(data)
        await both.wait()
        return [before, last.get()]

    async with serve(app) as url, connect(f"{url}/") as client:
        for name in "ab":
            await say(client, event="x", data=name, id=ord(name))
        answers = [(await hear(client))["data"] for _ in range(2)]
        assert sorted(answers) == [["the socket's", "a"], ["the socket's", "b"]]


async def test_a_raw_route_may_handle_several_messages_at_once_too(serve):
    app = Symphony()
    gate = asyncio.Event()

    @app.route("/", concurrency=2).on_message
    async def handle(message: str) -> str:
        if message == "wait":
            await gate.wait()
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("wait")
        for _ in range(3):
            await client.send("go")
            assert await client.recv() == "go"
        gate.set()
        assert await client.recv() == "wait"


@IN_ORDER_AND_AT_ONCE
async def test_a_full_queue_stops_the_reading_and_loses_nothing(serve, concurrency):
    work = Work(concurrency=concurrency, max_queue=4)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        sent = 0
        for number in range(concurrency or 1):
            await say(client, event="work", data=number)

        async def flood() -> None:
            nonlocal sent
            while sent < 2000:
                await say(client, event="echo", data="x" * 10_000, id=sent)
                sent += 1

        flooding = asyncio.ensure_future(flood())
        # The client gets stuck once all buffers between the two are full.
        assert await settled(lambda: sent) < 2000
        for number in range(concurrency or 1):
            work.gate(number).set()
        heard = {(await hear(client))["reply"] for _ in range(2000)}
        await flooding
        assert heard == set(range(2000))


@pytest.mark.parametrize("concurrency", [None, 2])
async def test_a_queue_that_empties_because_requests_ran_out_of_time_lets_read_on(serve, concurrency):
    """The queue was full, so that nothing was read; nobody looked again when it was not."""
    work = Work(concurrency=concurrency, max_queue=2, finish_timeout=0.2, close_timeout=0.2)
    running = range(concurrency or 1)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        try:
            for number in running:
                await say(client, event="work", data=number, id=number)
            await work.begun(*running)
            for id in (10, 11):
                await say(client, event="work", data=id, id=id, timeout=0.05)
            assert {(await hear(client))["error"] for _ in range(2)} == {10, 11}
            await silent(client)
            for number in running:
                work.gate(number).set()
            assert {(await hear(client))["reply"] for _ in running} == set(running)
            await silent(client)
        finally:
            # A server that does not read on would not let go of this client either.
            await work.app._core.node.drain(asyncio.Event())


@IN_ORDER_AND_AT_ONCE
async def test_a_handler_that_holds_the_loop_is_named_in_a_warning(serve, hold, caplog, concurrency):
    app = Symphony(limits=Limits(blocking_warning=0.02))

    @app.route("/", concurrency=concurrency).on("x")
    async def crunch() -> None:
        hold(0.03)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="x", id=1)
        await hear(client)
        await until(lambda: "held the event loop" in caplog.text)


# Cancel


@IN_ORDER_AND_AT_ONCE
async def test_a_cancel_ends_the_handler_of_its_request_and_no_other(serve, concurrency):
    work = Work(concurrency=concurrency)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        for id in range(1, (concurrency or 1) + 2):
            await say(client, event="work", data=id, id=id)
        await work.begun(1)
        await say(client, cancel=1)
        assert await hear(client) == {"error": 1, "data": CANCELLED}
        assert ("cancelled", 1) in work.log
        await work.begun(2)
        await say(client, cancel=1)
        await silent(client)
        for id in range(2, (concurrency or 1) + 2):
            work.gate(id).set()
        assert {(await hear(client))["reply"] for _ in range(concurrency or 1)} == set(
            range(2, (concurrency or 1) + 2)
        )
    assert work.app.stats.failed_handlers == 0


@IN_ORDER_AND_AT_ONCE
async def test_a_request_that_waits_is_cancelled_at_once_and_never_handled(serve, concurrency):
    work = Work(concurrency=concurrency)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        running = list(range(concurrency or 1))
        for id in (*running, 7, 8):
            await say(client, event="work", data=id, id=id)
        await say(client, cancel=7)
        assert await hear(client) == {"error": 7, "data": CANCELLED}
        for id in (*running, 8):
            work.gate(id).set()
        assert {(await hear(client))["reply"] for _ in (*running, 8)} == {*running, 8}
        await silent(client)
    assert ("begin", 7) not in work.log


@IN_ORDER_AND_AT_ONCE
async def test_request_and_cancel_in_one_segment_are_answered_once_and_what_follows_is_handled(
    serve, concurrency
):
    work = Work(concurrency=concurrency)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        for id in range(20):
            await say(client, event="work", data=id, id=id)
            await say(client, cancel=id)
            await say(client, event="echo", data="x", id=100 + id)
        heard = [await hear(client) for _ in range(40)]
        assert {each["error"] for each in heard if "error" in each} == set(range(20))
        assert {each["reply"] for each in heard if "reply" in each} == set(range(100, 120))
        await silent(client)


@IN_ORDER_AND_AT_ONCE
async def test_a_cancel_of_what_was_answered_is_ignored_and_its_id_may_be_used_again(serve, concurrency):
    work = Work(concurrency=concurrency)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        for _ in range(3):
            await say(client, event="echo", data="x", id=5)
            assert await hear(client) == {"reply": 5, "data": "x"}
            await say(client, cancel=5)
            await silent(client)
        await say(client, event="work", data=1, id=5)
        await say(client, event="echo", data=1, id=5)
        conflict = await hear(client)
        assert (conflict["event"], conflict["data"]["code"]) == ("error", "conflict")
        assert conflict["data"]["details"] == {"id": 5}
        await say(client, cancel=5)
        assert await hear(client) == {"error": 5, "data": CANCELLED}


@IN_ORDER_AND_AT_ONCE
async def test_a_cancelled_handler_may_clean_up_or_answer_all_the_same(serve, concurrency):
    app = Symphony()
    log = Log()
    never = asyncio.Event()
    route = app.route("/", concurrency=concurrency)

    async def connection() -> AsyncIterator[str]:
        try:
            yield "connection"
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    @route.on("clean up")
    async def clean_up(opened: Annotated[str, Depends(connection)]) -> None:
        try:
            log.append("begin")
            await never.wait()
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    @route.on("swallow")
    async def swallow() -> str:
        log.append("begin")
        try:
            await never.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "answered"

    @route.on("replace")
    async def replace() -> None:
        log.append("begin")
        try:
            await never.wait()
        except asyncio.CancelledError:
            raise Reject("shop.changed", "half done") from None

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="clean up", id=1)
        await log.reaches(1)
        await say(client, cancel=1)
        assert await hear(client) == {"error": 1, "data": CANCELLED}
        assert log == ["begin", "cleaned up", "closed"]
        await say(client, event="swallow", id=2)
        await log.reaches(4)
        await say(client, cancel=2)
        assert await hear(client) == {"reply": 2, "data": "answered"}
        await say(client, event="replace", id=3)
        await log.reaches(5)
        await say(client, cancel=3)
        assert (await hear(client))["data"]["code"] == "shop.changed"
        await silent(client)


# Timeout


@IN_ORDER_AND_AT_ONCE
async def test_a_request_whose_time_is_up_is_answered_timeout_wherever_it_is(serve, concurrency):
    work = Work(concurrency=concurrency)
    expected = {"code": "timeout", "message": "the request took longer than its timeout"}
    expected |= {"retryable": True, "details": None}
    async with serve(work.app) as url, connect(f"{url}/") as client:
        running = list(range(concurrency or 1))
        for id in running:
            await say(client, event="work", data=id, id=id, timeout=0.3)
        # It waits behind the others, and its time runs all the same.
        await say(client, event="work", data="waits", id=9, timeout=0.01)
        assert await hear(client) == {"error": 9, "data": expected}
        heard = [await hear(client) for _ in running]
        assert sorted(each["error"] for each in heard) == running
        assert {json.dumps(each["data"]) for each in heard} == {json.dumps(expected)}
        for id in (*running, 9):
            await say(client, cancel=id)
        await say(client, event="echo", data="x", id=9, timeout=60)
        assert await hear(client) == {"reply": 9, "data": "x"}
        await silent(client)
    assert ("begin", "waits") not in work.log
    assert [("cancelled", id) in work.log for id in running] == [True] * len(running)


async def test_the_timeout_of_an_event_means_nothing(serve):
    work = Work()
    async with serve(work.app) as url, connect(f"{url}/") as client:
        await say(client, event="work", data="a", timeout=0.001)
        await say(client, event="work", data="b", id=1, timeout=0.05)
        assert (await hear(client))["error"] == 1
        work.gate("a").set()
        await until(lambda: ("end", "a") in work.log)


# When the socket goes


@IN_ORDER_AND_AT_ONCE
async def test_handlers_finish_or_are_cut_off_when_the_socket_has_gone(serve, concurrency):
    work = Work(concurrency=concurrency, finish_timeout=0.1)
    async with serve(work.app) as url:
        async with connect(f"{url}/") as client:
            await say(client, event="work", data="a", id=1)
            await work.begun("a")
            client.transport.abort()
        await until(lambda: work.app.stats.closed == 1)
    assert work.log == [("begin", "a"), ("cancelled", "a")]


@IN_ORDER_AND_AT_ONCE
@pytest.mark.within("retry_after")
@pytest.mark.beyond("retry_after")
async def test_a_server_that_stops_says_when_to_come_back_and_lets_requests_finish(serve, concurrency):
    work = Work(concurrency=concurrency, retry_after=2.5)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        running = list(range(concurrency or 1))
        for id in (*running, 9):
            await say(client, event="work", data=id, id=id)
        await work.begun(*running)
        stopping = asyncio.ensure_future(work.app._core.node.drain(asyncio.Event()))
        assert await hear(client) == {"retry": 2.5}
        for id in (*running, 9):
            work.gate(id).set()
        # What was read already is handled.
        assert {(await hear(client))["reply"] for _ in (*running, 9)} == {*running, 9}
        assert await closed(client) == (1012, "the server restarts")
        await stopping


@IN_ORDER_AND_AT_ONCE
async def test_a_request_that_does_not_finish_in_time_is_told_that_the_server_stops(serve, concurrency):
    work = Work(concurrency=concurrency, finish_timeout=0.1)
    async with serve(work.app) as url, connect(f"{url}/") as client:
        await say(client, event="work", data="a", id=1)
        await work.begun("a")
        stopping = asyncio.ensure_future(work.app._core.node.drain(asyncio.Event()))
        assert await hear(client) == {"retry": 1.0}
        told = await hear(client)
        assert (told["error"], told["data"]["code"], told["data"]["retryable"]) == (1, "unavailable", True)
        assert await closed(client) == (1012, "the server restarts")
        await stopping


async def test_a_handler_that_awaits_its_client_gets_the_answer_while_the_server_stops(serve):
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> Any:
        return [await socket.request("one"), await socket.request("two")]

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        asked = await hear(client)
        stopping = asyncio.ensure_future(app._core.node.drain(asyncio.Event()))
        assert await hear(client) == {"retry": 1.0}
        await say(client, reply=asked["id"], data=1)
        asked = await hear(client)
        await say(client, event="ask", id=2)
        assert (await hear(client))["data"]["code"] == "unavailable"
        # Whoever gives it up while that is on its way is told nothing more.
        await say(client, cancel=2)
        await say(client, reply=asked["id"], data=2)
        assert await hear(client) == {"reply": 1, "data": [1, 2]}
        assert (await closed(client))[0] == 1012
        await stopping


@pytest.mark.parametrize("event", ["stream", "request"])
async def test_a_task_of_a_request_that_ends_python_stops_the_server_in_order(tmp_path: Path, event: str):
    """Out of a task it takes the event loop with it, and all connections."""
    file = tmp_path / "app.py"
    file.write_text("""
from symphony import Close, Symphony
app = Symphony()
route = app.route("/", concurrency=2)

@route.on("stream")
async def stream():
    raise SystemExit
    yield

@route.on("request")
async def request():
    raise SystemExit

@app.on_disconnect
async def leave(close: Close) -> None:
    print("left", close.code, flush=True)

app.run(port=0, log_level="critical")
""")
    async with start(file) as server, asyncio.timeout(10):
        async with connect(server.url) as client, connect(server.url) as other:
            await say(client, event=event, id=1)
            for each in (client, other):
                assert (await closed(each))[0] == 1012
        assert await server.end() == (0, ["left 1012"] * 2)
