"""Events both ways, and the server's requests; what the vectors don't say."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from client.opened import pair
from support.clients import until
from symphony.client import Client
from symphony.errors import ConfigurationError, DisconnectedError, Reject, WrongThreadError


class Said(msgspec.Struct):
    text: str


async def answer(peer: Any, id: int = 1) -> dict[str, Any]:
    frame = await peer.receive()
    assert frame.get("reply", frame.get("error")) == id
    return frame


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_handler_gets_what_its_annotation_says(protocol: str) -> None:
    async with pair(protocol=protocol) as (client, peer, _):
        heard: list[Any] = []

        @client.on("said")
        async def said(data: Said) -> None:
            heard.append(data)

        await peer.send(event="said", data={"text": "hi"})
        await until(lambda: heard)
        assert heard == [Said("hi")]
        assert said.__name__ == "said"


async def test_data_that_does_not_fit_is_a_warning_and_the_next_event_is_handled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair() as (client, peer, _):
        heard: list[Any] = []

        @client.on("said")
        def said(data: Said) -> None:
            heard.append(data)

        await peer.send(event="said", data={"text": 1})
        await peer.send(event="said", data={"text": "hi"})
        await until(lambda: heard)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    told = record.getMessage()
    assert "said of the event 'said': the server sent data that does not fit: " in told
    assert "Expected `str`, got `int` (at $.text)." in told


async def test_handlers_run_one_after_the_other_plain_and_async() -> None:
    async with pair() as (client, peer, _):
        order: list[str] = []
        go = asyncio.Event()

        @client.on("a")
        async def first(data: int) -> None:
            order.append(f"a{data} begins")
            await go.wait()
            order.append(f"a{data} ends")

        client.on("a", lambda data: order.append(f"a{data} again"))
        client.on("b", lambda data: order.append(f"b{data}"))
        for n in (1, 2):
            await peer.send(event="a", data=n)
            await peer.send(event="b", data=n)
        await until(lambda: order)
        assert order == ["a1 begins"]
        go.set()
        await until(lambda: order[-1] == "b2")
        assert order == [
            *("a1 begins", "a1 ends", "a1 again", "b1"),
            *("a2 begins", "a2 ends", "a2 again", "b2"),
        ]


async def test_a_handler_that_fails_is_logged_and_the_next_runs(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer, _):
        heard: list[Any] = []
        client.on("x", lambda: 1 / 0)
        client.on("x", heard.append)

        @client.on("gone")
        async def gone() -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        await peer.send(event="gone")
        await peer.send(event="x", data=1)
        await until(lambda: heard)
    assert "ZeroDivisionError" in caplog.text
    assert "gone of the event 'gone' was cancelled." in caplog.text


async def test_a_catch_all_gets_what_nobody_else_takes() -> None:
    async with pair() as (client, peer, _):
        heard: list[Any] = []
        client.on("*", lambda event, data: heard.append((event, data)))
        client.on("known", lambda: heard.append("known"))
        await peer.send(event="known", data=1)
        await peer.send(event="other", data=2)
        await peer.send(event="error", data={"code": "x"})
        await peer.send(event="asked", data=3, id=9)
        assert await peer.receive() == {"reply": 9, "data": None}
        await until(lambda: len(heard) == 4)
        # Requests are answered beside events.
        assert heard.pop(heard.index(("asked", 3)))
        assert heard == ["known", ("other", 2), ("error", {"code": "x"})]


async def test_off_undoes_on() -> None:
    async with pair() as (client, peer, _):
        heard: list[int] = []

        def both(data: int) -> None:
            heard.append(data)

        client.on("x", both)
        client.on("x", lambda data: heard.append(-data))
        client.off("x", both)
        client.off("y", both)
        await peer.send(event="x", data=1)
        await until(lambda: heard)
        assert heard == [-1]


async def test_mistakes_in_a_handler_are_found_where_it_is_registered() -> None:
    async with pair() as (client, _, _):
        with pytest.raises(ConfigurationError, match=r"is called with \(data\), or without arguments"):

            @client.on("said")
            def said(socket: Any, data: Any) -> None: ...

        with pytest.raises(ValueError, match="1 to 256 characters"):
            client.on("")


async def test_an_error_that_nobody_handles_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (_, peer, _):
        await peer.send(event="error", data={"code": "not_found", "message": "no handler\nfor it"})
        await peer.send(event="error", data=7)
        await until(lambda: "'error'" in caplog.text)
    assert "The server sent an error: 'not_found', 'no handler\\nfor it'." in caplog.text


@pytest.mark.parametrize(
    ("said", "warns"),
    [
        ("{", "sent a message that cannot be decoded"),
        ("[]", "sent a message that cannot be decoded"),
        (b"{}", "this connection speaks JSON, in text messages"),
        ({"reply": "x"}, "got `str` (at $.reply)"),
        ({"grant": 1, "credit": 1}, "which only clients send"),
        ({"ping": 1}, "which only clients send"),
    ],
)
async def test_what_a_server_must_not_send_is_a_warning_and_no_more(
    said: Any, warns: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (client, peer, _):
        await peer.say(said)
        await until(lambda: warns in caplog.text)
        assert await peer.nothing_came()
        assert client.state == "open"


async def test_a_broken_request_whose_id_can_be_read_is_answered() -> None:
    async with pair() as (_, peer, _):
        await peer.send(event=5, id=3)
        frame = await answer(peer, 3)
        assert frame["data"]["code"] == "invalid"
        assert frame["data"]["details"] == {"path": "$.event"}


async def test_requests_of_the_server_run_beside_each_other_and_beside_events() -> None:
    async with pair() as (client, peer, _):
        go = asyncio.Event()

        @client.on("slow")
        async def slow() -> str:
            await go.wait()
            return "slow"

        client.on("event", go.wait)
        client.on("fast", lambda: "fast")
        await peer.send(event="event")
        await peer.send(event="slow", id=1)
        await peer.send(event="fast", id=2)
        assert await peer.receive() == {"reply": 2, "data": "fast"}
        go.set()
        assert await peer.receive() == {"reply": 1, "data": "slow"}


async def test_the_first_handler_registered_answers() -> None:
    async with pair() as (client, peer, _):
        client.on("name", lambda: "Ada")
        client.on("name", lambda: "Bob")
        await peer.send(event="name", id=1)
        assert await answer(peer) == {"reply": 1, "data": "Ada"}
        assert await peer.nothing_came()


async def test_a_request_whose_data_does_not_fit_is_invalid() -> None:
    async with pair() as (client, peer, _):

        @client.on("double")
        def double(data: int) -> int:
            return data * 2

        await peer.send(event="double", data="x", id=1)
        error = (await answer(peer))["data"]
        assert (error["code"], error["message"]) == ("invalid", "Expected `int`, got `str`")
        assert error["details"] == {"path": "$"}


async def test_what_a_handler_raises_is_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer, _):

        @client.on("refuse")
        async def refuse() -> None:
            raise Reject("shop.sold_out", "none left", details={"n": 0}, retryable=True)

        @client.on("fail")
        async def fail() -> None:
            raise KeyError("secret")

        client.on("odd", lambda: object())
        await peer.send(event="refuse", id=1)
        assert (await answer(peer))["data"] == {
            "code": "shop.sold_out",
            "message": "none left",
            "retryable": True,
            "details": {"n": 0},
        }
        assert not caplog.records
        for event in ("fail", "odd"):
            await peer.send(event=event, id=2)
            error = (await answer(peer, 2))["data"]
            assert error["code"] == "internal"
            assert "secret" not in str(error)
            assert error["details"] is None
    assert "fail of the request 'fail' failed." in caplog.text
    assert "KeyError: 'secret'" in caplog.text


async def test_a_request_has_the_time_that_the_server_gives_it() -> None:
    async with pair() as (client, peer, _):
        cancelled = asyncio.Event()

        @client.on("slow")
        async def slow() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        @client.on("own")
        async def own() -> None:
            raise TimeoutError

        await peer.send(event="slow", id=1, timeout=0.05)
        error = (await answer(peer))["data"]
        assert (error["code"], error["retryable"]) == ("timeout", True)
        assert cancelled.is_set()
        await peer.send(event="own", id=1, timeout=5)
        assert (await answer(peer))["data"]["code"] == "internal"


async def test_a_cancel_reaches_the_handler_and_an_answer_all_the_same_counts() -> None:
    async with pair() as (client, peer, _):
        running = asyncio.Event()

        @client.on("stubborn")
        async def stubborn() -> str:
            running.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "done"

        await peer.send(event="stubborn", id=1)
        await running.wait()
        await peer.send(cancel=1)
        assert await answer(peer) == {"reply": 1, "data": "done"}


async def test_an_id_that_is_under_way_is_not_handled_twice(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer, _):
        calls: list[int] = []
        go = asyncio.Event()

        @client.on("slow")
        async def slow() -> int:
            calls.append(1)
            await go.wait()
            return len(calls)

        await peer.send(event="slow", id=1)
        await peer.send(event="slow", id=1)
        await until(lambda: "the id of a request in progress" in caplog.text)
        go.set()
        assert await answer(peer) == {"reply": 1, "data": 1}
        assert await peer.nothing_came()


async def test_more_requests_at_once_than_a_server_may_send_are_too_many() -> None:
    async with pair() as (client, peer, _):
        client.on("slow", asyncio.Event().wait)
        for n in range(1001):
            await peer.send(event="slow", id=n)
        error = (await answer(peer, 1000))["data"]
        assert error["code"] == "too_many"


async def test_a_lost_connection_ends_the_handlers_of_its_requests_and_answers_nothing_later() -> None:
    async with pair() as (client, peer, server):
        began, ended = asyncio.Event(), asyncio.Event()

        @client.on("slow")
        async def slow() -> str:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return "never"

        await peer.send(event="slow", id=1)
        await began.wait()
        await peer.drop()
        await ended.wait()
        again = await server.accept()
        assert await again.nothing_came()


async def test_a_handler_of_events_may_ask_the_server_while_events_pour_in() -> None:
    """Its answer stands behind more events than may wait, and it must come all the same."""
    async with pair(max_queue=10) as (client, peer, _):
        got: list[Any] = []

        @client.on("go")
        async def go() -> None:
            got.append(await client.request("ask", timeout=5))

        client.on("tick", got.append)
        await peer.send(event="go")
        frame = await peer.receive()
        for n in range(60):
            await peer.send(event="tick", data=n)
        await peer.send(reply=frame["id"], data="answer")
        await until(lambda: len(got) == 61)
        assert got == ["answer", *range(60)]


async def test_a_handler_that_waits_behind_too_many_events_loses_the_connection_and_is_told() -> None:
    async with pair(max_queue=10) as (client, peer, server):
        told: list[Any] = []
        ticks: list[int] = []

        @client.on("go")
        async def go() -> None:
            try:
                async for _ in client.stream("ask"):
                    pass
            except DisconnectedError as error:
                told.append((error.code, error.reason))

        client.on("tick", ticks.append)
        await peer.send(event="go")
        await peer.receive()
        for n in range(400):
            await peer.send(event="tick", data=n)
        await until(lambda: told)
        assert told == [(1013, "too many events are queued while the program waits")]
        await server.accept()
        await until(lambda: client.state == "open")
        assert ticks == list(range(len(ticks)))


async def test_a_handler_that_is_slow_holds_the_server_up() -> None:
    async with pair(max_queue=10) as (client, peer, _):
        go, count = asyncio.Event(), 0

        @client.on("tick")
        async def tick() -> None:
            nonlocal count
            await go.wait()
            count += 1

        peer.connection.transport.set_write_buffer_limits(high=0)
        text = "x" * 10_000

        async def pour() -> None:
            for _ in range(2000):
                await peer.send(event="tick", data=text)

        pouring = asyncio.ensure_future(pour())
        # Once the buffers between the two are full, the server cannot send until the client reads.
        await until(lambda: client._core.gate._holding)
        await until(peer.connection.transport.get_write_buffer_size)
        assert not pouring.done()
        assert len(client._core.dispatch._backlog) < 200
        go.set()
        await pouring
        await until(lambda: count == 2000)


async def test_closing_ends_the_handlers() -> None:
    async with pair() as (client, peer, _):
        ended: list[str] = []

        async def wait(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        client.on("event", lambda: wait("event"))
        client.on("request", lambda: wait("request"))
        client.on("never", lambda: ended.append("never"))
        await peer.send(event="event")
        await peer.send(event="never")
        await peer.send(event="request", id=1)
        await until(lambda: client._core.dispatch._requests and len(client._core.dispatch._backlog) == 1)
        await client.close()
        assert sorted(ended) == ["event", "request"]


@pytest.mark.parametrize("id", [None, 1])
async def test_a_handler_may_close_its_client(id: int | None) -> None:
    async with pair() as (client, peer, _):
        done = asyncio.Event()

        @client.on("bye")
        async def bye() -> None:
            await client.close(4000, "told to")
            done.set()

        await peer.send(event="bye", **({} if id is None else {"id": id}))
        assert await peer.closed() == (4000, "told to")
        await asyncio.wait_for(done.wait(), 2)


async def test_events_before_the_end_are_handled_behind_it() -> None:
    async with pair() as (client, peer, _):
        heard: list[int] = []

        @client.on("tick")
        async def tick(data: int) -> None:
            await asyncio.sleep(0)
            heard.append(data)

        for n in range(5):
            await peer.send(event="tick", data=n)
        await peer.close(1000)
        await until(lambda: client.state == "closed" and len(heard) == 5)


async def test_states_are_told_to_plain_and_async_handlers(caplog: pytest.LogCaptureFixture) -> None:
    plain: list[str] = []
    later: list[str] = []

    def register(client: Client) -> None:
        client.on_state(plain.append)
        client.on_state(lambda state: 1 / 0)

        @client.on_state
        async def state(state: str) -> None:
            await asyncio.sleep(0)
            later.append(state)
            if state == "waiting":
                raise KeyError

    async with pair(register=register) as (client, peer, server):
        await peer.drop()
        await server.accept()
        await until(lambda: client.state == "open")
    wanted = ["connecting", "open", "waiting", "connecting", "open", "closed"]
    assert plain == wanted
    assert later == wanted
    assert "ZeroDivisionError" in caplog.text
    assert "KeyError" in caplog.text


async def test_another_thread_is_refused() -> None:
    async with pair() as (client, peer, _):
        for use in (lambda: client.emit("x"), lambda: client.send("x"), lambda: client.stream("x")):
            with pytest.raises(WrongThreadError, match=r"loop\.call_soon_threadsafe\(client\.emit"):
                await asyncio.to_thread(use)
        asyncio.get_running_loop().call_soon_threadsafe(client.emit, "x")
        assert (await peer.receive())["event"] == "x"


async def test_an_event_whose_name_is_nearly_that_of_a_handler_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = asyncio.Event()

    def register(client: Client) -> None:
        client.on("said", lambda: None)
        client.on("user_joined", lambda: None)
        client.on("last", heard.set)

    async with pair(register=register) as (_, peer, _):
        for _ in range(3):
            for event in ("siad", "SAID", "userJoined", "weather", "x"):
                await peer.send(event=event)
        await peer.send(event="last")
        await heard.wait()
    assert [line for line in caplog.messages if "There is one for" in line] == [
        f"The server sends the event '{came}', which has no handler. There is one for '{has}'."
        for came, has in (("siad", "said"), ("SAID", "said"), ("userJoined", "user_joined"))
    ]


@pytest.mark.parametrize(
    "frame",
    [
        '{"event":"error","data":{"code":"invalid","message":"%s"}}' % ("x" * 5000),
        '{"event":"error","data":[]}',
        '{"event":"numbers","data":"none"}',
        '{"event":"waits","id":1}',
    ],
)
async def test_a_server_cannot_fill_the_log(frame: str, caplog: pytest.LogCaptureFixture) -> None:
    def register(client: Client) -> None:
        @client.on("numbers")
        async def numbers(data: list[int]) -> None: ...

        client.on("waits", asyncio.Event().wait)

    done = asyncio.Event()
    async with pair(register=register) as (client, peer, _):
        client.on("done", done.set)
        for _ in range(300):
            await peer.say(frame)
        await peer.send(event="done")
        await done.wait()
    said = [record.getMessage() for record in caplog.records if "server sent" in record.getMessage()]
    # Ten in each second, and a machine that is busy may need some.
    assert 10 <= len(said) <= 100
    assert all(len(line) < 400 for line in said)
