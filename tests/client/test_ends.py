"""What ends a client for good, what does not, and how it is told."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from client.opened import fast, pair
from client.scripted import Peer, serve
from support.clients import until
from symphony.client import Client, connect
from symphony.client.link import Close
from symphony.client.options import Options
from symphony.client.returning import MAX_TOO_LARGE, Returning
from symphony.errors import DisconnectedError

ODD = [
    (404, {}, b""),
    (200, {"Content-Type": "text/html"}, b"<h1>It works!</h1>"),
    (302, {"Location": "http://elsewhere.example/"}, b""),
    (403, {}, b'{"code":"forbidden","message":"says a proxy","retryable":false}'),
    (400, {}, b"bad"),
    (401, {}, b""),
    (426, {}, b""),
]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


@pytest.mark.parametrize(("status", "headers", "body"), ODD, ids=lambda part: str(part))
async def test_an_odd_answer_does_not_end_a_client_that_was_connected(
    status: int, headers: dict[str, str], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (client, peer, server):
        await peer.drop()
        for _ in range(3):
            await server.refuse(status, headers, body)
        await server.accept()
        await until(lambda: client.state == "open")
    (warning,) = warnings_in(caplog)
    assert f"HTTP {status}" in warning
    assert "tries again for up to 300 s" in warning


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"\x00" * 40,
    ],
)
async def test_an_answer_that_is_not_http_does_not_either(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    odd = 0

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal odd
        odd += 1
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with serve() as server:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        client = connect(server.url, **fast)
        opening = asyncio.ensure_future(client._open())
        peer = await server.accept()
        await opening
        address = client._reconnector._dial._address  # type: ignore[attr-defined]
        listening = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        client._reconnector._dial._address = address._replace(  # type: ignore[attr-defined]
            port=listening.sockets[0].getsockname()[1]
        )
        await peer.drop()
        await until(lambda: odd >= 2)
        client._reconnector._dial._address = address._replace(port=port)  # type: ignore[attr-defined]
        await server.accept()
        await until(lambda: client.state == "open")
        await client.close()
        listening.close()
    assert len(warnings_in(caplog)) == 1


@pytest.mark.within("client.give_up_after")
@pytest.mark.beyond("client.give_up_after")
@pytest.mark.parametrize("give_up_after", [0.0, 10.0, None])
def test_it_gives_up_after_its_time(give_up_after: float | None) -> None:
    now = 100.0
    returning = Returning(Options(give_up_after=give_up_after), "ws://x", lambda: now)
    returning.opened()
    odd = Close(1002, "nonsense", clean=False)
    first = returning.after_close(odd, None)
    now = 109.0
    second = returning.after_close(odd, None)
    now = 110.0
    third = returning.after_close(odd, None)
    expected = {0.0: (False, False, False), 10.0: (True, True, False), None: (True, True, True)}
    assert (first, second, third) == expected[give_up_after]
    # A connection that has lasted begins anew.
    returning.lasted()
    assert returning.after_close(odd, None) is (give_up_after != 0)


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (1000, "", "ended it normally"),
        (1008, "no", "which rule"),
        (1009, "too big", "larger than the server accepts"),
        (4401, "who?", "token"),
        (4403, "not you", "May this client connect?"),
        (4999, "bye", "The app says"),
    ],
)
async def test_every_final_end_is_told(
    code: int, reason: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (client, peer, _):
        waiting = asyncio.ensure_future(client.wait_closed())
        await peer.close(code, reason)
        end = await waiting
        assert (end.code, end.reason) == (code, reason) == (client.closed and client.closed[:2])
        assert await client.wait_closed() is client.closed
    (warning,) = warnings_in(caplog)
    assert f"(code {code}, reason {reason!r})" in warning
    assert words in warning


async def test_closing_it_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, _, _):
        waiting = asyncio.ensure_future(client.wait_closed())
        await asyncio.sleep(0)
        await client.close()
        assert (await waiting).code == 1000
    assert warnings_in(caplog) == []


async def test_a_client_that_was_never_opened_has_no_end_to_wait_for() -> None:
    with pytest.raises(RuntimeError, match="never opened"):
        await connect("ws://127.0.0.1:1/").wait_closed()


def cancelled() -> Awaitable[str]:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def cancelled_inside() -> str:
    return await cancelled()


def exits() -> str:
    raise GeneratorExit


def fails() -> str:
    raise LookupError


@pytest.mark.parametrize("broken", [cancelled, cancelled_inside, exits, fails])
async def test_a_token_that_fails_in_any_way_is_asked_for_again(broken: Callable[[], str]) -> None:
    times: list[int] = []

    def token() -> object:
        times.append(1)
        return broken() if len(times) < 3 else "token"

    async with serve() as server:
        client = connect(server.url, token=token, **fast)  # type: ignore[arg-type]
        opening = asyncio.ensure_future(client._open())
        await server.accept()
        await opening
        assert len(times) == 3
        await client.close()


async def test_a_cancelled_task_of_the_client_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer, _):
        task = client._reconnector._task
        assert task is not None
        task.cancel()
        assert (await client.wait_closed()).reason == "cancelled"
        await peer.closed()
    assert "something has cancelled its task" in caplog.text


async def test_a_port_that_nothing_listens_at_is_tried_for_as_long_as_it_takes() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with pair(give_up_after=0) as (client, peer, server):
            address = client._reconnector._dial._address  # type: ignore[attr-defined]
            dial = client._reconnector._dial
            dial._address = address._replace(port=nobody.getsockname()[1])  # type: ignore[attr-defined]
            await peer.drop()
            await until(lambda: client._reconnector._attempts > 4)
            dial._address = address  # type: ignore[attr-defined]
            await server.accept()


LARGE = "x" * 2000
AT = {"epoch": "e", "offset": 3}


async def admit(peer: Peer, name: str = "chat:a", **more: Any) -> None:
    """Let a client join, or join again."""
    asked = await peer.receive()
    assert asked["join"] == name
    await peer.send(joined=name, position=AT, recovered="since" in asked, **more)
    await peer.send(reply=asked["id"])


async def large_snapshot(client: Client, peer: Peer) -> None:
    await peer.receive()
    await peer.send(joined="chat:a", position=AT, recovered=False, snapshot=LARGE)


async def large_publication(client: Client, peer: Peer) -> None:
    await admit(peer)
    await peer.send(event="said", room="chat:a", offset=4, data=LARGE)


async def large_history(client: Client, peer: Peer) -> None:
    await admit(peer)
    asked = await peer.receive()
    assert asked["history"] == "chat:a"
    await peer.send(
        reply=asked["id"], data={"publications": [{"event": "said", "data": LARGE, "position": AT}]}
    )


async def large_event(client: Client, peer: Peer) -> None:
    await peer.send(event="said", data=LARGE)


async def large_reply(client: Client, peer: Peer) -> None:
    asked = await peer.receive()
    await peer.send(reply=asked["id"], data=LARGE)


@pytest.mark.beyond("client.returning.MAX_TOO_LARGE")
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize(
    "sends",
    [large_snapshot, large_publication, large_history, large_event, large_reply],
    ids=lambda one: one.__name__,
)
async def test_what_is_too_large_each_time_ends_it_and_says_what_to_do(
    sends: Callable[[Client, Peer], Awaitable[None]], protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client came back, got the same message again, and so on without an end."""
    async with serve() as server:
        client = connect(server.url, protocol=protocol, max_message_bytes=1000, **fast)
        opening = asyncio.ensure_future(client._open())
        peer = await server.accept()
        await opening
        asking: asyncio.Future[Any] | None = None
        if sends in (large_snapshot, large_publication, large_history):
            joining = asyncio.ensure_future(client.join("chat:a"))
            if sends is large_snapshot:
                asking = joining
            else:
                await admit(peer)
                room = await joining
                if sends is large_history:
                    asking = asyncio.ensure_future(room.history())
                    await peer.receive()
                await peer.drop()
                peer = await server.accept()
        elif sends is large_reply:
            asking = asyncio.ensure_future(client.request("all", idempotent=True))
        for attempt in range(MAX_TOO_LARGE):
            await sends(client, peer)
            if attempt < MAX_TOO_LARGE - 1:
                peer = await server.accept()
        assert (await client.wait_closed()).code == 1009
        says = "A message was above max_message_bytes of symphony.connect(), which you can raise"
        with pytest.raises(DisconnectedError) as ended:
            await (asking or client.request("anything"))
        assert "max_message_bytes of symphony.connect(), which you can raise" in str(ended.value)
        assert ended.value.code == 1009
    told = warnings_in(caplog)
    assert any(line.startswith(says) and "does not reconnect (code 1009" in line for line in told)


@pytest.mark.within("client.returning.MAX_TOO_LARGE")
async def test_a_few_messages_that_are_too_large_do_not_end_it() -> None:
    async with pair(max_message_bytes=1000) as (client, peer, server):
        for number in range(MAX_TOO_LARGE - 1):
            await peer.send(event="said", data=LARGE)
            peer = await server.accept()
            await until(lambda: client.state == "open")
            asking = asyncio.ensure_future(client.request("number"))
            await peer.send(reply=(await peer.receive())["id"], data=number)
            assert await asking == number


def test_messages_that_are_too_large_now_and_then_do_not_end_it() -> None:
    now = 0.0
    returning = Returning(Options(give_up_after=None), "ws://x", lambda: now)
    returning.opened()
    large = Close(1009, "a message above 1000 bytes", clean=False)
    for _ in range(20):
        assert returning.after_close(large, None)
        now += 300.0
    # However long each connection has lasted.
    assert returning.after_close(large, None)
    now += 299.0
    returning.lasted()
    assert not returning.after_close(large, None)
