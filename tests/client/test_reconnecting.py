"""Coming back: in order, once, not all together; what the vectors don't say."""

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from client.opened import fast, opened, pair
from client.scripted import Server, serve
from support.clients import until
from symphony.client import Client, Close, connect
from symphony.client.backoff import Backoff
from symphony.errors import DisconnectedError, QueueFullError


async def again(client: Client, server: Server, **how: Any) -> Any:
    peer = await server.accept(**how)
    await until(lambda: client.state == "open")
    return peer


async def test_everything_goes_on_where_it_was() -> None:
    async with pair() as (client, peer, server):
        heard: list[Any] = []
        client.on("said", heard.append)
        for n in range(5):
            await peer.send(event="said", data=n)
            await until(lambda n=n: heard == list(range(n + 1)))
            await (peer.drop() if n % 2 else peer.close(1012))
            peer = await again(client, server)
        client.emit("still", "here")
        assert (await peer.receive())["data"] == "here"


async def test_what_waits_goes_first_and_once() -> None:
    async with pair() as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state != "open")
        for n in range(100):
            client.emit("say", n)

        @client.on_state
        def state(state: str) -> None:
            if state == "open":
                client.emit("opened")

        peer = await again(client, server)
        client.emit("say", "last")
        frames = [await peer.receive() for _ in range(102)]
        assert [frame["data"] for frame in frames] == [*range(100), None, "last"]
        assert await peer.nothing_came()
        await peer.drop()
        peer = await again(client, server)
        assert (await peer.receive())["event"] == "opened"
        assert await peer.nothing_came()


async def test_what_waited_through_a_connection_that_never_opened_is_still_there() -> None:
    async with pair() as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state != "open")
        client.emit("say", 1)
        await server.refuse(503)
        client.emit("say", 2)
        await server.refuse_by_code(4503)
        client.emit("say", 3)
        (await server.handshake()).connection.transport.abort()
        peer = await again(client, server)
        assert [(await peer.receive())["data"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.beyond("client.max_queue")
async def test_no_more_waits_than_may() -> None:
    async with pair(max_queue=3) as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state != "open")
        client.emit("a")
        client.send("b")
        await client.emit("c")
        for refused in (lambda: client.emit("d"), lambda: client.send("d")):
            with pytest.raises(
                QueueFullError, match=rf"^3 messages are queued for {server.url}: it is not conn"
            ):
                refused()
        peer = await again(client, server)
        assert [(await peer.receive())["event"] for _ in range(3)] == ["a", "message", "c"]
        client.emit("d")
        assert (await peer.receive())["event"] == "d"


async def test_what_cannot_be_encoded_is_said_at_once_and_does_not_wait() -> None:
    async with serve() as server:
        client = connect(server.url)
        failed: list[str] = []

        @client.on_state
        def use(state: str) -> None:
            if state == "connecting":
                for wrong in (lambda: client.emit("x", object()), lambda: client.send(object())):
                    try:
                        wrong()
                    except TypeError as error:
                        failed.append(str(error))
                client.emit("fine")

        peer = await opened(server, client)
        assert (await peer.receive())["event"] == "fine"
        assert [text.partition(". ")[0] for text in failed] == ["Cannot encode an object of type object"] * 2
        await client.close()


async def test_what_was_never_sent_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state != "open")
        client.emit("a")
        client.send("b")
        asking = asyncio.ensure_future(client.request("c"))
        body = b'{"code":"forbidden","message":"not you"}'
        await server.refuse(403, {"Symphony-Refusal": "forbidden"}, body)
        with pytest.raises(
            DisconnectedError, match=r"'c' was not sent: ws://.* refused the connection: forbidden: not you"
        ):
            await asking
        unsent, final = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        why = f"{server.url} refused the connection: forbidden: not you (HTTP 403 Forbidden)."
        assert unsent == f"2 messages were never sent: {why}"
        assert final == (
            f"{why} The client does not reconnect (code 4403, reason 'not you'). "
            "May this client connect? Check its token and its origin."
        )
        assert client.closed == Close(4403, "not you", clean=False)


async def test_a_final_end_says_how_to_whoever_uses_the_client() -> None:
    async with pair() as (client, peer, server):
        await peer.close(4403, "banned")
        await until(lambda: client.state == "closed")
        assert client.closed == Close(4403, "banned", clean=True)
        for use in (lambda: client.emit("x"), lambda: client.send("x"), lambda: client.stream("x")):
            with pytest.raises(DisconnectedError) as caught:
                use()
            assert (caught.value.code, caught.value.reason) == (4403, "banned")
            assert str(caught.value) == f"The connection to {server.url} has ended (4403: banned)."
        with pytest.raises(DisconnectedError):
            await client.request("x")
        assert server.no_handshake_waits()


@pytest.mark.parametrize("seconds", [0.1, 3600.0])
async def test_a_connection_that_lasted_begins_the_backoff_anew(
    seconds: float,
) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        bounds.append(high)
        return 0.0

    async with serve() as server:
        client = connect(server.url, backoff=0.01, max_backoff=9.0)
        client._reconnector._backoff._uniform = uniform
        peer = await opened(server, client)
        for _ in range(3):
            await peer.drop()
            peer = await again(client, server)
        client._reconnector._opened_at -= seconds
        await peer.drop()
        await again(client, server)
        assert bounds == [0.01, 0.015, 0.0225, 0.03375 if seconds < 5 else 0.01]
        await client.close()


async def test_a_token_function_is_asked_anew_plain_or_async() -> None:
    tokens = iter(["a", "b"])

    async def token() -> str | None:
        await asyncio.sleep(0)
        return next(tokens, None)

    async with pair(token=token) as (client, peer, server):
        offered = peer.connection.request.headers["Sec-WebSocket-Protocol"]
        assert "symphony.token.YQ" in offered.split(", ")
        await peer.drop()
        handshake = await server.handshake()
        assert "symphony.token.Yg" in handshake.offers
        peer = await handshake.accept()
        await until(lambda: client.state == "open")
        await peer.drop()
        handshake = await server.handshake()
        assert not [offer for offer in handshake.offers if offer.startswith("symphony.token.")]
        await handshake.accept()


async def test_the_log_says_in_how_many_seconds_it_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer, server):
        client._reconnector._backoff._uniform = lambda low, high: 0.0625
        with caplog.at_level(logging.INFO, "symphony.client"):
            await peer.drop()
            await again(client, server)
        (record,) = [record for record in caplog.records if hasattr(record, "retry_in")]
        assert record.retry_in == 0.0625
        assert record.getMessage().endswith(" again in 0.1 s")


async def test_a_token_that_cannot_be_got_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        if asked in (2, 3):
            raise OSError("the login server is down")
        return "t"

    async with pair(token=token) as (client, peer, server):
        await peer.drop()
        await again(client, server)
        assert asked == 4
    assert "The token for ws://" in caplog.text
    assert "the login server is down" in caplog.text


async def test_unauthorized_is_tried_once_more_each_time_a_connection_has_lasted() -> None:
    async with pair(token=lambda: "t") as (client, peer, server):
        for _ in range(2):
            client._reconnector._opened_at -= 60
            await peer.close(4401)
            peer = await again(client, server)
        await peer.close(4401, "no more")
        await until(lambda: client.state == "closed")
        assert client.closed == Close(4401, "no more", clean=True)


async def test_unauthorized_by_http_is_the_same() -> None:
    async with serve() as server:
        client = connect(server.url, token=lambda: "t", **fast)
        opening = asyncio.ensure_future(client._open())
        await server.refuse(401)
        await server.accept()
        await opening
        await client.close()


async def test_of_several_notices_the_last_counts() -> None:
    async with pair() as (_, peer, server):
        await peer.send(retry=60)
        await peer.send(retry=0.2)
        await peer.close(1012)
        since = asyncio.get_running_loop().time()
        handshake = await server.handshake()
        assert handshake.arrived - since >= 0.2
        await handshake.accept()


@pytest.mark.beyond("client.connect_timeout")
async def test_an_attempt_that_hangs_is_given_up_in_time() -> None:
    async with pair(connect_timeout=0.1) as (client, peer, server):
        await peer.drop()
        hanging = await server.handshake()
        await again(client, server)
        await hanging.connection.wait_closed()


async def test_closing_while_it_waits_or_connects_is_at_once() -> None:
    for state, backoff in (("waiting", 60), ("connecting", 0.01)):
        async with pair(backoff=backoff, max_backoff=60) as (client, peer, _):
            client._reconnector._backoff._uniform = lambda low, high: high
            await peer.drop()
            await until(lambda client=client, state=state: client.state == state)
            async with asyncio.timeout(1):
                await client.close(4000, "enough")
            assert client.closed == Close(4000, "enough", clean=True)


async def test_200_clients_that_are_cut_off_together_do_not_return_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spread are the waits they choose, and none returns before its own is over.

    Not the arrivals: a machine that stalls for half a second lets in together
    whoever came due meanwhile. These are measured in tests/faults, which has
    the machine for itself.
    """
    waits: list[float] = []
    choose = Backoff.next

    def chosen(backoff: Backoff) -> float:
        waits.append(choose(backoff))
        return waits[-1]

    monkeypatch.setattr(Backoff, "next", chosen)
    async with serve() as server:
        clients = [connect(server.url, backoff=1.0) for _ in range(200)]
        opening = asyncio.gather(*(client._open() for client in clients))
        peers = [await server.accept() for _ in clients]
        await opening
        cut = asyncio.get_running_loop().time()
        for peer in peers:
            peer.connection.transport.abort()
        arrivals: list[float] = []
        for _ in clients:
            handshake = await server.handshake()
            arrivals.append(handshake.arrived - cut)
            await handshake.accept()
        assert len(waits) == 200
        # A fifth of the time has a fifth of them, 40; 80 would be seven standard
        # deviations off. Each is counted: without jitter all would be the bound itself.
        fifths = Counter(min(int(wait * 5), 4) for wait in waits)
        assert fifths.total() == 200
        assert max(fifths.values()) < 80
        assert max(waits) > 0.5
        # Timers have a resolution of a few milliseconds.
        for arrival, wait in zip(sorted(arrivals), sorted(waits), strict=True):
            assert arrival >= wait - 0.005
        await asyncio.gather(*(client.close() for client in clients))
