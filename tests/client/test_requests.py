"""Requests of the client; what the vectors don't say."""

import asyncio
import math
from typing import Any

import msgspec
import pydantic
import pytest

from client.opened import fast, opened, pair
from client.scripted import Peer, serve
from support.clients import until
from symphony.client import connect
from symphony.errors import DisconnectedError, QueueFullError, RemoteError, RequestTimeoutError


class Point(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int


async def answered(peer: Peer, asking: Any, **answer: Any) -> Any:
    """Let a request be answered; return its result."""
    asked = asyncio.ensure_future(asking)
    frame = await peer.receive()
    kind = next(iter(answer))
    await peer.send(**{**answer, kind: frame["id"]})
    return await asked


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [(Point, Point(1)), (Model, Model(x=1)), (dict[str, int], {"x": 1}), (Any, {"x": 1}), (object, {"x": 1})],
)
async def test_the_reply_becomes_what_response_type_says(protocol: str, kind: Any, value: Any) -> None:
    async with pair(protocol=protocol) as (client, peer, _):
        assert (
            await answered(peer, client.request("where", response_type=kind), reply=0, data={"x": 1}) == value
        )


async def test_a_reply_of_another_type_is_an_error_that_says_so() -> None:
    async with pair() as (client, peer, _):
        with pytest.raises(RemoteError) as caught:
            await answered(peer, client.request("where", response_type=Point), reply=0, data={"x": "1"})
        assert caught.value.code == "invalid"
        assert caught.value.details == {"path": "$.x"}
        assert str(caught.value) == (
            "invalid: the reply to 'where' does not match response_type: Expected `int`, got `str`"
        )
        assert await answered(peer, client.request("where"), reply=0, data=1) == 1


async def test_a_type_that_is_none_is_found_before_anything_is_sent() -> None:
    async with pair() as (client, peer, _):
        with pytest.raises(TypeError):
            await client.request("where", response_type=5)
        with pytest.raises(ValueError, match="timeout must be above 0, not 0"):
            await client.request("where", timeout=0)
        with pytest.raises(ValueError, match="1 to 256 characters"):
            await client.request("")
        with pytest.raises(ValueError, match="'error' is reserved for Symphony"):
            await client.request("error")
        with pytest.raises(TypeError, match="object"):
            await client.request("where", object())
        assert await peer.nothing_came()
        assert len(client._core.answers) == 0


async def test_data_may_be_anything_that_is_encoded() -> None:
    async with pair() as (client, peer, _):
        asked = asyncio.ensure_future(client.request("go", {"to": Point(1), "model": Model(x=2)}))
        frame = await peer.receive()
        assert frame["data"] == {"to": {"x": 1}, "model": {"x": 2}}
        await peer.send(reply=frame["id"])
        assert await asked is None


async def test_without_a_limit_no_timeout_is_sent() -> None:
    async with pair() as (client, peer, _):
        asked = asyncio.ensure_future(client.request("ever", timeout=math.inf))
        frame = await peer.receive()
        assert "timeout" not in frame
        await peer.send(reply=frame["id"], data=1)
        assert await asked == 1


@pytest.mark.within("client.request_timeout")
async def test_an_answer_within_the_timeout_is_the_result() -> None:
    async with pair(request_timeout=0.25) as (client, peer, _):
        asked = asyncio.ensure_future(client.request("quick"))
        frame = await peer.receive()
        assert frame["timeout"] == 0.25
        await peer.send(reply=frame["id"], data="done")
        assert await asked == "done"


@pytest.mark.beyond("client.request_timeout")
async def test_a_timeout_says_what_was_asked_of_whom() -> None:
    async with pair(request_timeout=0.05) as (client, peer, server):
        with pytest.raises(RequestTimeoutError) as caught:
            await client.request("sleep")
        assert str(caught.value) == f"'sleep' was not answered by {server.url} within 0.05 s."
        assert isinstance(caught.value, TimeoutError)
        frame = await peer.receive()
        assert frame["timeout"] == 0.05
        assert await peer.receive() == {"cancel": frame["id"]}


async def test_the_servers_word_that_time_is_up_is_the_same_once_it_is() -> None:
    """Both count the same seconds; which of them comes first must not decide what is raised."""
    async with pair() as (client, peer, _):
        asked = asyncio.ensure_future(client.request("sleep", timeout=0.05))
        frame = await peer.receive()
        await peer.connection.ping()
        request = client._core.answers._asking[frame["id"]]
        request._deadline = 0.0
        await peer.send(error=frame["id"], data={"code": "timeout"})
        with pytest.raises(RequestTimeoutError):
            await asked


async def test_giving_up_before_the_first_turn_sends_nothing() -> None:
    async with pair() as (client, peer, _):
        asked = asyncio.ensure_future(client.request("never"))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await peer.nothing_came()


async def test_a_thousand_at_once_are_answered_in_any_order() -> None:
    async with pair() as (client, peer, _):
        asked = [asyncio.ensure_future(client.request("echo", n)) for n in range(1000)]
        frames = [await peer.receive() for _ in asked]
        assert len({frame["id"] for frame in frames}) == 1000
        for frame in reversed(frames):
            await peer.send(reply=frame["id"], data=frame["data"])
        assert await asyncio.gather(*asked) == list(range(1000))
        assert len(client._core.answers) == 0


async def test_an_error_that_cannot_be_read_is_an_error_all_the_same() -> None:
    async with pair() as (client, peer, _):
        with pytest.raises(RemoteError) as caught:
            await answered(peer, client.request("x"), error=0, data="oops")
        assert caught.value.code == "invalid"


async def test_a_lost_connection_fails_it_and_says_that_it_may_have_been_handled() -> None:
    async with pair() as (client, peer, server):
        asked = asyncio.ensure_future(client.request("pay"))
        await peer.receive()
        await peer.close(1012, "restarting")
        with pytest.raises(DisconnectedError) as caught:
            await asked
        assert (caught.value.code, caught.value.reason) == (1012, "restarting")
        assert str(caught.value) == (
            f"'pay' was not answered: the connection to {server.url} was lost (1012: restarting). "
            "It may or may not have run; if it may safely run twice, idempotent=True sends it again."
        )
        again = await server.accept()
        assert await again.nothing_came()


async def test_idempotent_ones_are_sent_again_first_and_in_order() -> None:
    async with pair() as (client, peer, server):
        data = {"n": 0}
        asked = [asyncio.ensure_future(client.request("put", data, idempotent=True)) for _ in range(3)]
        plain = asyncio.ensure_future(client.request("pay", "once"))
        for _ in range(4):
            await peer.receive()
        data["n"] = 1
        await peer.drop()
        await until(lambda: client.state != "open")
        client.emit("say", "later")
        again = await server.accept()
        frames = [await again.receive() for _ in range(4)]
        assert [frame["event"] for frame in frames] == ["put", "put", "put", "say"]
        assert [frame["data"] for frame in frames[:3]] == [{"n": 0}] * 3
        with pytest.raises(DisconnectedError):
            await plain
        for n, frame in enumerate(frames[:3]):
            await again.send(reply=frame["id"], data=n)
        assert await asyncio.gather(*asked) == [0, 1, 2]
        assert await again.nothing_came()


async def test_an_idempotent_one_is_sent_again_only_while_it_has_time() -> None:
    async with pair() as (client, peer, server):
        asked = asyncio.ensure_future(client.request("put", idempotent=True, timeout=0.1))
        await peer.receive()
        await peer.drop()
        with pytest.raises(RequestTimeoutError, match=r"was not sent .* there is no connection"):
            await asked
        again = await server.accept()
        assert await again.nothing_came()


async def test_an_idempotent_one_fails_when_the_client_ends() -> None:
    async with pair() as (client, peer, _):
        asked = asyncio.ensure_future(client.request("put", idempotent=True))
        await peer.receive()
        await peer.close(4403, "go")
        with pytest.raises(
            DisconnectedError, match=r"'put' was not answered: .* \(4403: go\)\. It may or may not have run"
        ):
            await asked
        again = asyncio.ensure_future(client.request("put", idempotent=True))
        with pytest.raises(DisconnectedError, match=r"The connection to .* has ended"):
            await again


async def test_offline_it_waits_and_says_so_if_that_takes_too_long() -> None:
    async with pair() as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state == "connecting")
        with pytest.raises(RequestTimeoutError) as caught:
            await client.request("late", timeout=0.05)
        assert str(caught.value) == (
            f"'late' was not sent to {server.url} within 0.05 s: there is no connection."
        )
        assert len(client._outgoing) == 0


@pytest.mark.within("client.max_queue")
async def test_those_that_wait_offline_count_and_leave_their_place() -> None:
    async with pair(max_queue=2) as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state == "connecting")
        waiting = [asyncio.ensure_future(client.request("a")), asyncio.ensure_future(client.request("b"))]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match=r"2 messages are queued for ws://.*: it is not connected\."):
            await client.request("c")
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        client.emit("d")
        again = await server.accept()
        assert [(await again.receive())["event"] for _ in range(2)] == ["b", "d"]
        waiting[1].cancel()


async def test_what_it_says_offline_is_what_it_was_when_it_was_said() -> None:
    async with serve() as server:
        client = connect(server.url, **fast)
        data = {"n": 1}
        asked: list[asyncio.Future[Any]] = []

        @client.on_state
        async def use(state: str) -> None:
            if state == "connecting":
                asked.append(asyncio.ensure_future(client.request("put", data)))
                await asyncio.sleep(0)
                client.emit("say", data)
                client.send(data)
                data["n"] = 2

        peer = await opened(server, client)
        frames = [await peer.receive() for _ in range(3)]
        assert [frame["data"] for frame in frames] == [{"n": 1}] * 3
        await client.close()
        with pytest.raises(
            DisconnectedError, match=r"'put' was not answered: the client of ws://.* is closed\."
        ):
            await asked[0]


async def test_closing_fails_those_that_wait_too() -> None:
    async with pair() as (client, peer, _):
        await peer.drop()
        await until(lambda: client.state == "connecting")
        asked = asyncio.ensure_future(client.request("put"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(DisconnectedError, match=r"'put' was not sent: the client of ws://.* is closed\."):
            await asked


async def test_more_at_once_than_may_wait_is_no_matter_while_there_is_a_connection() -> None:
    async with pair(max_queue=5) as (client, peer, _):
        asked = [asyncio.ensure_future(client.request("echo", "x" * 100_000)) for n in range(100)]
        for _ in asked:
            frame = await peer.receive()
            await peer.send(reply=frame["id"], data=1)
        assert await asyncio.gather(*asked) == [1] * 100
