"""Threads and publishers reach the sockets of all nodes by their ids."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from integration.test_cut_nodes import caller_of, cut
from support.clients import until
from support.nodes import running
from symphony import DisconnectedError, Reject, RemoteError, RequestTimeoutError, Symphony
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError
from symphony.testing import TestClient, TestConnection

KINDS = ("awaited", "blocking")
NO_BROKER = (BrokerUnavailableError, OutcomeUnknownError)


def make_app(url: str) -> Symphony:
    app = Symphony(broker=url)
    app.state.url = url
    app.state.errors = []
    app.route("/chat", events=True)

    @app.route("/raw").on_message
    async def ignore(message: bytes) -> None: ...

    @app.on_error
    async def failed(error: BaseException) -> None:
        app.state.errors.append(error)

    return app


@pytest.fixture
async def nodes() -> AsyncIterator[list[TestClient]]:
    async with running(make_app) as nodes:
        yield nodes


async def opened(
    stack: AsyncExitStack, node: TestClient, path: str, protocol: str = "json"
) -> tuple[TestConnection, str]:
    """Connect, and return the id of the socket, too."""
    before = set(node.app._core.node.sockets)
    connection = await stack.enter_async_context(node.connect(path, protocol=protocol))
    [id] = set(node.app._core.node.sockets) - before
    return connection, id


async def publish(kind: str, node: TestClient, id: str, calls: Sequence[tuple[Any, ...]]) -> None:
    """Call verbs of a socket with a publisher of the broker of a node, one after the other."""
    publisher = make_app(node.app.state.url).publisher()
    if kind == "awaited":
        async with publisher as out:
            for verb, *arguments in calls:
                assert await getattr(out.socket(id), verb)(*arguments) is None
        return

    def work() -> None:
        with publisher as out:
            for verb, *arguments in calls:
                assert getattr(out.socket(id), verb)(*arguments) is None

    await asyncio.to_thread(work)


# Threads


@pytest.mark.parametrize("where", ["the same node", "another node"])
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_thread_sends_to_a_socket_and_closes_it(
    nodes: list[TestClient], where: str, protocol: str
) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, one if where == "the same node" else two, "/chat", protocol)
        target = one.app.threadsafe.socket(id)

        def work() -> None:
            blocked = threading.Event()
            one.app._core.node.loop.call_soon_threadsafe(blocked.wait, 10)
            data = {"n": 0}
            for number in range(20):
                data["n"] = number
                target.emit("told", data)
            blocked.set()
            assert target.send({"text": "hi"}).result() is None
            assert target.emit("last").result() is None

        await asyncio.to_thread(work)
        # In order, and each as it was in the call.
        for number in range(20):
            assert await connection.receive_event("told") == {"n": number}
        assert await connection.receive_event("message") == {"text": "hi"}
        assert await connection.receive_event("last") is None
        assert await asyncio.to_thread(lambda: target.close(4000, "bye").result()) is None
        end = await connection.wait_closed()
        assert (end.code, end.reason) == (4000, "bye")


async def test_a_thread_asks_the_client_of_another_node(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat")
        target = one.app.threadsafe.socket(id)

        @connection.on("double")
        async def double(data: int) -> int:
            if data == 0:
                raise Reject("test.nothing", "it is 0")
            return 2 * data

        @connection.on("never")
        async def never() -> None:
            await asyncio.Event().wait()

        def work() -> None:
            assert target.request("double", 4, response_type=int).result() == 8
            with pytest.raises(RemoteError) as error:
                target.request("double", 0).result()
            assert error.value.code == "test.nothing"
            with pytest.raises(RequestTimeoutError):
                target.request("never", timeout=0.2).result()

        await asyncio.to_thread(work)


async def test_a_thread_sends_bytes_to_a_raw_socket_of_another_node(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        raw, id = await opened(stack, two, "/raw", "raw")
        await asyncio.to_thread(lambda: one.app.threadsafe.socket(id).send(b"\x00\xff").result())
        assert await raw.receive_bytes() == b"\x00\xff"


async def gone_from(node: TestClient) -> str:
    """Return the id of a socket that was open at a node."""
    async with AsyncExitStack() as stack:
        _, id = await opened(stack, node, "/chat")
    await until(lambda: not node.app._core.node.sockets)
    return id


@pytest.mark.parametrize(
    ("which", "reports"), [("gone here", 0), ("gone there", 1), ("no such node", 0), ("no node", 0)]
)
async def test_what_a_thread_sends_to_a_socket_that_is_not_open_is_reported_once(
    nodes: list[TestClient], which: str, reports: int
) -> None:
    """The node that the socket was on reports it, and the thread gets no error."""
    one = nodes[0]
    id = await gone_from(nodes[reports])
    if which.startswith("no "):
        id = f"{id.partition('.')[0]}.other" if which == "no such node" else id.partition(".")[0]
    target = one.app.threadsafe.socket(id)

    def work() -> None:
        assert target.send("text").result() is None
        assert target.emit("told", 1).result() is None
        assert target.close().result() is None
        with pytest.raises(Reject) as refusal:
            target.request("which").result()
        assert (refusal.value.code, refusal.value.details) == ("not_found", {"socket": id})

    await asyncio.to_thread(work)
    errors = nodes[reports].app.state.errors
    await until(lambda: len(errors) == 2)
    assert [type(error) for error in errors] == [DisconnectedError] * 2
    assert sorted(map(str, errors)) == [
        f"There is no open socket {id!r}: the event 'told' was not sent.",
        f"There is no open socket {id!r}: the message was not sent.",
    ]
    assert nodes[1 - reports].app.state.errors == []
    assert [node.app.stats.undelivered for node in nodes] == [2 * (1 - reports), 2 * reports]


async def test_the_errors_of_a_call_are_those_of_its_future(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat")
        target = one.app.threadsafe.socket(id)

        def work() -> None:
            for call in (lambda: target.send(object()), lambda: target.emit("told", object())):
                with pytest.raises(TypeError):
                    call().result()
            for code in (1005, 1006, 5000):
                with pytest.raises(ValueError, match="close code"):
                    target.close(code).result()
            target.emit("still open").result()

        await asyncio.to_thread(work)
        assert await connection.receive_event("still open") is None
        assert one.app.state.errors == two.app.state.errors == []


async def test_a_thread_gets_an_error_if_the_broker_cannot_be_reached() -> None:
    async with running(make_app) as (one, two), AsyncExitStack() as stack:
        here, near = await opened(stack, one, "/chat")
        _, far = await opened(stack, two, "/chat")
        caller_of(one).close()

        def work() -> None:
            threadsafe = one.app.threadsafe
            for verb, *arguments in (
                ("send", "text"),
                ("emit", "told"),
                ("close",),
                ("request", "which"),
            ):
                with pytest.raises(NO_BROKER):
                    getattr(threadsafe.socket(far), verb)(*arguments).result()
            # This needs no broker.
            threadsafe.socket(near).emit("told", 1).result()
            # What is not asked for is reported.
            threadsafe.socket(far).send("text")

        await asyncio.to_thread(work)
        assert await here.receive_event("told") == 1
        await until(lambda: one.app.state.errors)
        assert isinstance(one.app.state.errors[0], NO_BROKER)
        one.errors.clear()


async def test_what_a_thread_sends_waits_for_a_broker_that_is_back_in_time(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat")
        async with cut(one):
            calls = await asyncio.to_thread(
                lambda: [one.app.threadsafe.socket(id).emit("told", number) for number in range(3)]
            )
            await until(lambda: len(caller_of(one)._waiting.all()) == 3)
            assert not any(call.done() for call in calls)
        for number, call in enumerate(calls):
            assert await asyncio.wrap_future(call) is None
            assert await connection.receive_event("told") == number


# Publishers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_a_publisher_sends_to_a_socket_of_any_node_and_closes_it(
    nodes: list[TestClient], kind: str, protocol: str
) -> None:
    for node in nodes:
        async with AsyncExitStack() as stack:
            connection, id = await opened(stack, node, "/chat", protocol)
            other, _ = await opened(stack, node, "/chat", protocol)
            told = [("emit", "told", {"n": number}) for number in range(20)]
            await publish(kind, nodes[0], id, [*told, ("send", "text"), ("close", 4000, "bye")])
            for number in range(20):
                assert await connection.receive_event("told") == {"n": number}
            assert await connection.receive_event("message") == "text"
            end = await connection.wait_closed()
            assert (end.code, end.reason) == (4000, "bye")
            await other.nothing_more()
            raw, raw_id = await opened(stack, node, "/raw", "raw")
            await publish(kind, nodes[0], raw_id, [("send", b"\x00\xff"), ("close",)])
            assert await raw.receive_bytes() == b"\x00\xff"
            assert (await raw.wait_closed()).code == 1000


async def test_the_end_of_the_block_waits_for_what_was_not_awaited(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat")
        async with make_app(one.app.state.url).publisher() as out:
            data = {"n": 0}
            for number in range(50):
                data["n"] = number
                out.socket(id).emit("told", data)
            out.socket(id).close(4000)
        for number in range(50):
            assert await connection.receive_event("told") == {"n": number}
        assert (await connection.wait_closed()).code == 4000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["gone", "no such node", "no node"])
async def test_what_a_publisher_sends_to_a_socket_that_is_not_open_is_reported_once(
    nodes: list[TestClient], kind: str, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By its node, or in the log of the publisher if there is no such node."""
    id = await gone_from(nodes[1])
    if which != "gone":
        id = f"{id.partition('.')[0]}.other" if which == "no such node" else id.partition(".")[0]

    def found() -> list[str]:
        if which == "gone":
            return sorted(map(str, nodes[1].app.state.errors))
        messages = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        return sorted(each for each in messages if "There is no open socket" in each)

    await publish(kind, nodes[0], id, [("send", "text"), ("emit", "told", 1), ("close",)])
    await until(lambda: len(found()) == 2)
    assert found() == [
        f"There is no open socket {id!r}: the event 'told' was not sent.",
        f"There is no open socket {id!r}: the message was not sent.",
    ]
    counts = [node.app.stats.undelivered for node in nodes]
    assert counts == ([0, 2] if which == "gone" else [0, 0])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_publisher_refuses_what_cannot_be_sent(nodes: list[TestClient], kind: str) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat")
        for call, error in (
            (("send", object()), TypeError),
            (("emit", "told", object()), TypeError),
            (("close", 1005), ValueError),
            (("close", 5000), ValueError),
        ):
            with pytest.raises(error):
                await publish(kind, one, id, [call])
        await publish(kind, one, id, [("emit", "still open")])
        assert await connection.receive_event("still open") is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_publisher_gets_an_error_if_the_broker_has_gone(nodes: list[TestClient], kind: str) -> None:
    one, two = nodes
    calls: list[tuple[Any, ...]] = [("send", "text"), ("emit", "told"), ("close",)]
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat")
        publisher = make_app(one.app.state.url).publisher()
        if kind == "awaited":
            async with publisher as out:
                await out.socket(id).emit("told", 1)
                out.rooms._broker._caller.close()
                for verb, *arguments in calls:
                    with pytest.raises(NO_BROKER):
                        await getattr(out.socket(id), verb)(*arguments)
        else:

            def work() -> None:
                with publisher as out:
                    out.socket(id).emit("told", 1)
                    out._loop.call_soon_threadsafe(out._publishing.rooms._broker._caller.close)
                    for verb, *arguments in calls:
                        with pytest.raises(NO_BROKER):
                            getattr(out.socket(id), verb)(*arguments)

            await asyncio.to_thread(work)
        assert await connection.receive_event("told") == 1
        await connection.nothing_more()


async def test_a_handle_of_a_publisher_shows_what_it_is(nodes: list[TestClient]) -> None:
    async with make_app(nodes[0].app.state.url).publisher() as out:
        assert repr(out.socket("a")) == "<publisher.socket('a')>"
        assert out.socket("a").id == "a"
