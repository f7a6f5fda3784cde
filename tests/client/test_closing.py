"""How a client ends, and what it does with a server that takes less than it sends."""

import asyncio

import pytest

from client.opened import pair
from client.rawserver import listen
from client.scripted import serve
from support.clients import until
from support.raw import BINARY
from symphony.client import Close, connect, connecting, dispatch
from symphony.errors import DisconnectedError, QueueFullError

MIB = 1024 * 1024


@pytest.mark.within("client.connecting._CLOSE_TIMEOUT")
async def test_what_was_sent_is_delivered_before_the_end() -> None:
    async with pair() as (client, peer, _):
        for n in range(100):
            client.emit("say", n)
        await client.close(4000, "done")
        assert [(await peer.receive())["data"] for _ in range(100)] == list(range(100))
        assert await peer.closed() == (4000, "done")


async def test_what_waits_for_a_slow_server_is_delivered_before_the_end() -> None:
    async with listen() as server:
        client = connect(server.url)
        accepting = asyncio.ensure_future(server.accept("symphony.raw"))
        await client
        peer = await accepting
        for n in range(10):
            client.send(bytes((n,)) * MIB)
        assert len(client._outgoing) > 0
        closing = asyncio.ensure_future(client.close())
        for n in range(10):
            assert await peer.frame() == (BINARY, bytes((n,)) * MIB, True)
        assert await peer.close_frame() == (1000, "")
        peer.cut()
        await closing


async def test_a_client_that_does_not_read_hears_the_servers_goodbye_all_the_same() -> None:
    async with pair("symphony.raw", max_queue=2) as (client, peer, _):
        for n in range(5):
            await peer.say(str(n))
        await until(lambda: client._core.gate._holding)
        async with asyncio.timeout(1):
            await client.close()
        assert await peer.closed() == (1000, "")


async def test_closing_twice_is_closing_once() -> None:
    async with pair() as (client, peer, _):
        await asyncio.gather(client.close(4000, "first"), client.close(4001, "second"))
        await client.close(4002)
        assert client.closed == Close(4000, "first", clean=True)
        assert await peer.closed() == (4000, "first")


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 2000, 5000])
async def test_a_code_that_must_not_be_sent(code: int) -> None:
    async with pair() as (client, _, _):
        with pytest.raises(ValueError, match="Use 1000 or 3000-4999"):
            await client.close(code)
        assert client.state == "open"


async def test_a_close_that_is_given_up_cuts_the_connection() -> None:
    async with listen() as server:
        client = connect(server.url)
        accepting = asyncio.ensure_future(server.accept())
        await client
        peer = await accepting
        closing = asyncio.ensure_future(client.close())
        assert await peer.close_frame() == (1000, "")
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await peer.at_end()
        assert client.state == "closed"


async def test_a_client_that_never_opened_may_be_closed() -> None:
    client = connect("ws://127.0.0.1:9/")
    await client.close()
    assert client.closed == Close(1000, "", clean=True)
    with pytest.raises(DisconnectedError, match=r"The client of ws://127.0.0.1:9/ is closed\."):
        client.emit("x")


async def test_a_server_that_takes_less_is_felt_by_who_awaits_and_told_to_who_does_not() -> None:
    async with listen() as server:
        client = connect(server.url, max_queue=5)
        accepting = asyncio.ensure_future(server.accept("symphony.raw"))
        await client
        peer = await accepting
        sent = 0
        while len(client._outgoing) < 5:
            client.send(bytes(MIB))
            sent += 1
        with pytest.raises(
            QueueFullError, match=r"5 messages are queued .*: the server reads too slowly; `await` your sends"
        ):
            client.send("one more")
        assert sent >= 6
        waiting = asyncio.ensure_future(awaited(client._outgoing.drained()))
        for _ in range(sent):
            assert len((await peer.frame()).payload) == MIB
        await waiting
        await client.send("goes at once")
        assert (await peer.frame()).payload == b"goes at once"
        peer.cut()
        await client.close()


async def test_what_a_slow_server_did_not_take_is_sent_on_the_next_connection() -> None:
    async with listen() as server:
        client = connect(server.url, backoff=0.01, max_backoff=0.01)
        accepting = asyncio.ensure_future(server.accept("symphony.raw"))
        await client
        peer = await accepting
        while not client._outgoing._waiting:
            client.send(bytes(MIB))
        for n in range(5):
            client.send(f"{n}")
        waiting = asyncio.ensure_future(awaited(client.send("last")))
        await asyncio.sleep(0)
        peer.cut()
        again = await server.accept("symphony.raw")
        await waiting
        assert len((await again.frame()).payload) == MIB
        assert [(await again.frame()).payload for _ in range(6)] == [b"0", b"1", b"2", b"3", b"4", b"last"]
        again.cut()
        await client.close()


async def awaited(awaitable) -> None:
    await awaitable


async def test_replies_do_not_pile_up_before_a_server_that_does_not_read() -> None:
    async with pair(max_queue_bytes=100 * MIB) as (client, peer, _):
        made: list[str] = []

        def big() -> str:
            made.append("x" * MIB)
            return made[-1]

        client.on("big", big)
        peer.silence()
        for _ in range(50):
            client.emit("fill", "x" * MIB)
        for n in range(50):
            await peer.send(event="big", id=n)
        await until(lambda: len(made) == 50)
        assert len(client._outgoing) <= 50
        await peer.drop()
        await until(lambda: not client._core.dispatch._requests)


async def test_a_server_that_says_goodbye_while_the_client_does() -> None:
    async with serve() as server:
        client = connect(server.url)
        accepting = asyncio.ensure_future(server.accept())
        await client
        peer = await accepting
        await asyncio.gather(client.close(), peer.close(1012))
        assert client.closed == Close(1000, "", clean=True)
        assert client.state == "closed"


@pytest.mark.beyond("client.connecting._CLOSE_TIMEOUT")
async def test_a_server_that_does_not_answer_a_close_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "_CLOSE_TIMEOUT", 0.05)
    async with listen() as server:
        client = connect(server.url)
        accepting = asyncio.ensure_future(server.accept())
        await client
        peer = await accepting
        await client.close()
        assert client.state == "closed"
        assert await peer.close_frame() == (1000, "")
        assert await peer.at_end()


@pytest.mark.within("client.dispatch._HANDLERS_TIMEOUT")
@pytest.mark.beyond("client.dispatch._HANDLERS_TIMEOUT")
@pytest.mark.parametrize("ends", [True, False])
async def test_handlers_have_a_bounded_time_to_end(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ends:
        monkeypatch.setattr(dispatch, "_HANDLERS_TIMEOUT", 0.05)
    asked, go_on, done = asyncio.Event(), asyncio.Event(), False

    async with pair() as (client, peer, _):

        @client.on("wait")
        async def wait() -> None:
            nonlocal done
            asked.set()
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                if ends:
                    await asyncio.sleep(0)
                else:
                    await go_on.wait()
                done = True

        await peer.send(event="wait", id=1)
        await asked.wait()
        await client.close()
        assert done is ends
        go_on.set()


@pytest.mark.parametrize("reason", ["bye\n2026 ERROR forged", "\x1b[2J", "\x9b31m\x85", "\u202eesrever"])
@pytest.mark.parametrize("code", [1000, 1012, 4401])
async def test_the_reason_of_a_server_is_one_line_of_the_log(
    code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "symphony.client")
    async with pair() as (client, peer, _):
        waiting = asyncio.ensure_future(client.request("x", timeout=5))
        await peer.receive()
        await peer.close(code, reason)
        with pytest.raises(DisconnectedError) as caught:
            await waiting
        await until(lambda: client.state != "open")
    assert str(caught.value).isprintable()
    assert caught.value.reason == reason
    said = [record.getMessage() for record in caplog.records if record.name == "symphony.client"]
    assert any(str(code) in line for line in said)
    assert all(line.isprintable() for line in said)
