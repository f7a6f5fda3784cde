"""Users and sockets on other nodes: counted, closed, revoked and asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from support.clients import until
from support.nodes import running, signing_in
from symphony import (
    DisconnectedError,
    Identity,
    Limits,
    Reject,
    RemoteError,
    RequestTimeoutError,
    Socket,
    Symphony,
    WrongRouteError,
)
from symphony.broker import peers
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError, QueueFullError
from symphony.testing import TestClient, TestConnection

LIMITS = Limits(publish_timeout=20, finish_timeout=10)


def make_app(url: str) -> Symphony:
    app = Symphony(broker=url, limits=LIMITS)
    app.state.allowed = True
    app.state.errors = []
    signing_in(app)
    teams = app.rooms("team:{name}")
    app.rooms("plain:{name}")
    chat = app.route("/chat")
    raw = app.route("/raw")
    app.state.chat = chat

    @teams.authorize
    async def may_join(name: str, user: Identity) -> bool:
        await asyncio.sleep(0)
        return app.state.allowed

    @raw.on_message
    async def ignore(message: bytes) -> None: ...

    @app.on_error
    async def failed(error: BaseException) -> None:
        app.state.errors.append(error)

    @chat.on("join")
    async def join(socket: Socket, data: str) -> None:
        await socket.join(data)

    return app


@pytest.fixture
async def nodes() -> AsyncIterator[list[TestClient]]:
    async with running(make_app) as nodes:
        yield nodes


async def opened(stack: AsyncExitStack, node: TestClient, path: str) -> tuple[TestConnection, str]:
    """Connect, and return the id of the socket, too."""
    before = set(node.app._core.node.sockets)
    connection = await stack.enter_async_context(node.connect(path))
    [id] = set(node.app._core.node.sockets) - before
    return connection, id


async def test_the_sockets_of_a_user_are_counted_on_all_nodes(nodes: list[TestClient]) -> None:
    one, two = nodes
    groups = one.app.state.chat
    async with AsyncExitStack() as stack:
        for node, path in ((one, "/chat?user=ann"), (two, "/chat?user=ann"), (two, "/raw?user=ann")):
            await opened(stack, node, path)
        member, _ = await opened(stack, two, "/chat?user=bob")
        await member.request("join", "plain:a")
        for node, here in ((one, 1), (two, 2)):
            assert await node.app.user("ann").count() == 3
            assert len(node.app.user("ann").sockets) == here
            assert await node.app.user("bob").count() == 1
            assert await node.app.user("eve").count() == 0
            assert await node.app.users("ann", "bob", "eve").count() == 4
            # The raw route takes bytes.
            assert await node.app.everyone.count() == 3
            assert await node.app.state.chat.everyone.count() == 3
            assert await node.app.room("plain:a").count() == 1
        assert await groups.everyone.count() == 3
    assert await one.app.user("ann").count() == 0


async def test_all_sockets_of_a_user_are_closed(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        closed = [
            (await opened(stack, node, path))[0]
            for node, path in ((one, "/chat?user=ann"), (two, "/chat?user=ann"), (two, "/raw?user=ann"))
        ]
        bob, _ = await opened(stack, two, "/chat?user=bob")
        await one.app.user("ann").close(4403, "signed out")
        for each in closed:
            end = await each.wait_closed()
            assert (end.code, end.reason) == (4403, "signed out")
        # Without `await`, too.
        two.app.user("bob").close()
        assert (await bob.wait_closed()).code == 1000
    with pytest.raises(ValueError, match="close code"):
        one.app.user("ann").close(1006)


async def test_a_socket_that_is_still_opening_on_the_other_node_is_closed() -> None:
    entered, go = asyncio.Event(), asyncio.Event()
    async with running(lambda url: slow_app(url, entered, go)) as (first, second):
        connecting = asyncio.ensure_future(second.connect("/?user=ann").__aenter__())
        await entered.wait()
        assert await first.app.user("ann").count() == 0
        await first.app.user("ann").close(4403, "signed out")
        go.set()
        connection = await connecting
        assert (await connection.wait_closed()).code == 4403


def slow_app(url: str, entered: asyncio.Event, go: asyncio.Event) -> Symphony:
    app = Symphony(broker=url, limits=LIMITS)
    signing_in(app)

    @app.on_connect
    async def wait(socket: Socket) -> None:
        entered.set()
        await go.wait()

    @app.on("x")
    async def x(data: int) -> None: ...

    return app


async def test_a_right_is_revoked_on_all_nodes(nodes: list[TestClient]) -> None:
    one = nodes[0]
    async with AsyncExitStack() as stack:
        for node in nodes:
            for user in ("ann", "bob"):
                member, _ = await opened(stack, node, f"/chat?user={user}")
                await member.request("join", "team:red")
        for node in nodes:
            node.app.state.allowed = False
        await one.app.user("ann").revoke()
        # At once, without another message.
        for node in nodes:
            assert [each.user.id for each in node.app.room("team:red").sockets] == ["bob"]


async def answer(connection: TestConnection, value: Any) -> None:
    @connection.on("which")
    async def which(data: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return [value, data]


def never_answer(connection: TestConnection) -> tuple[asyncio.Event, asyncio.Event]:
    """Do not answer `which`; return what is set when it is asked, and when it is withdrawn."""
    asked, withdrawn = asyncio.Event(), asyncio.Event()

    @connection.on("which")
    async def never() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            withdrawn.set()

    return asked, withdrawn


async def test_the_clients_of_a_user_are_asked_on_all_nodes(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        for node, value in ((one, "here"), (two, "there"), (two, "and there")):
            connection, _ = await opened(stack, node, "/chat?user=ann")
            await answer(connection, value)
        await opened(stack, two, "/raw?user=ann")
        replies = await one.app.user("ann").request("which", {"n": 1}, policy="all")
        # Those of this node come first, and of one node in the order of their logins.
        assert replies == [["here", {"n": 1}], ["there", {"n": 1}], ["and there", {"n": 1}]]
        first = await two.app.user("ann").request("which", 2)
        assert first in (["here", 2], ["there", 2], ["and there", 2])


async def test_a_quorum_needs_no_reply_of_the_others(nodes: list[TestClient]) -> None:
    """A client that does not answer, wherever it is, delays nothing; it is asked no longer."""
    one, two = nodes
    for silent in (one, two):
        async with AsyncExitStack() as stack:
            for node, value in ((one, "one"), (two, "two")):
                await answer((await opened(stack, node, "/chat?user=ann"))[0], value)
            connection, _ = await opened(stack, silent, "/chat?user=ann")
            asked, withdrawn = never_answer(connection)
            # It has no requests, so it does not count.
            await opened(stack, two, "/raw?user=ann")
            replies = await one.app.user("ann").request("which", policy="quorum", timeout=60)
            assert replies == [["one", None], ["two", None]]
            await asked.wait()
            await withdrawn.wait()


async def test_a_quorum_that_is_out_of_reach_is_an_error_at_once(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        for node, value in ((one, Reject("shop.busy", "later")), (two, "there"), (two, "and there")):
            await answer((await opened(stack, node, "/chat?user=ann"))[0], value)
        leaving, id = await opened(stack, one, "/chat?user=ann")
        asked, _ = never_answer(leaving)
        asking = asyncio.ensure_future(one.app.user("ann").request("which", policy="quorum", timeout=60))
        await asked.wait()
        one.app.socket(id).close()
        # Two of four are not more than half.
        with pytest.raises(RemoteError, match=r"shop\.busy"):
            await asking
        await until(lambda: len(one.app.user("ann").sockets) == 1)
        assert len(await one.app.user("ann").request("which", policy="quorum", timeout=60)) == 2


async def test_a_node_without_the_user_asks_the_other(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, _ = await opened(stack, two, "/chat?user=ann")
        await answer(connection, "there")
        assert await one.app.user("ann").request("which") == ["there", None]
        assert await one.app.user("ann").request("which", policy="all") == [["there", None]]
        typed = await one.app.user("ann").request("which", 1, response_type=tuple[str, int])
        assert typed == ("there", 1)
        with pytest.raises(RemoteError, match="the reply to 'which' is invalid"):
            await one.app.user("ann").request("which", 1, response_type=int)
        for policy in ("first", "quorum", "all"):
            with pytest.raises(Reject) as refusal:
                await one.app.user("eve").request("which", policy=policy)
            assert (refusal.value.code, refusal.value.details) == ("not_found", {"user": "eve"})
    with pytest.raises(ValueError, match="'first', 'quorum', 'all'"):
        await one.app.user("ann").request("which", policy="some")  # type: ignore[call-overload]
    for timeout in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="timeout must be above 0"):
            await one.app.user("ann").request("which", timeout=timeout)
    with pytest.raises(TypeError, match="name of an event"):
        await one.app.user("ann").request(1)  # type: ignore[call-overload]
    assert two.errors == one.errors == []


@dataclass
class Card:
    at: datetime
    picture: bytes
    counts: dict[int, int]


@pytest.mark.parametrize("protocol", ["symphony.v1.json", "symphony.v1.msgpack"])
async def test_a_reply_keeps_its_type_on_the_way(nodes: list[TestClient], protocol: str) -> None:
    one, two = nodes
    card = Card(datetime(2026, 1, 2, 3, 4, 5), b"\x00\xff", {1: 2})
    async with two.connect("/chat?user=ann", protocol=protocol.removeprefix("symphony.v1.")) as ann:

        @ann.on("card")
        async def reply(data: Card) -> Card:
            return data

        assert await one.app.user("ann").request("card", card, response_type=Card) == card
        [socket] = two.app.user("ann").sockets
        assert await one.app.socket(socket.id).request("card", card, response_type=Card) == card


async def test_the_errors_of_clients_arrive(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        here, _ = await opened(stack, one, "/chat?user=ann")
        there, there_id = await opened(stack, two, "/chat?user=ann")
        await answer(here, Reject("shop.busy", "later", retryable=True, details=[1]))
        await answer(there, Reject("shop.sold_out", "gone"))
        for policy in ("first", "quorum", "all"):
            with pytest.raises(RemoteError) as error:
                await one.app.user("ann").request("which", policy=policy)
            assert (error.value.code, error.value.details, error.value.retryable) == ("shop.busy", [1], True)
        with pytest.raises(RemoteError) as error:
            await one.app.socket(there_id).request("which")
        assert (error.value.code, error.value.message) == ("shop.sold_out", "gone")
        willing, _ = await opened(stack, two, "/chat?user=ann")
        await answer(willing, "there")
        assert await one.app.user("ann").request("which") == ["there", None]
        # A client that is not asked is no error.
        _, raw_id = await opened(stack, two, "/raw?user=bob")
        for policy in ("first", "quorum", "all"):
            with pytest.raises(WrongRouteError):
                await one.app.user("bob").request("which", policy=policy)
        with pytest.raises(WrongRouteError):
            await one.app.socket(raw_id).request("which")


async def test_a_request_that_is_not_needed_any_more_is_withdrawn_on_the_other_node(
    nodes: list[TestClient],
) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat?user=ann")
        asked: asyncio.Queue[None] = asyncio.Queue()
        cancelled: asyncio.Queue[None] = asyncio.Queue()

        @connection.on("which")
        async def never() -> None:
            asked.put_nowait(None)
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.put_nowait(None)

        for request in (
            lambda: one.app.user("ann").request("which", policy="first", timeout=60),
            lambda: one.app.user("ann").request("which", policy="all", timeout=60),
            lambda: one.app.socket(id).request("which", timeout=60),
        ):
            asking = asyncio.ensure_future(request())
            await asked.get()
            asking.cancel()
            await cancelled.get()
            assert asking.cancelled() or ((await asyncio.wait((asking,))) and asking.cancelled())
        # Another client has answered first.
        quick, _ = await opened(stack, one, "/chat?user=ann")
        replied = asyncio.Event()

        @quick.on("which")
        async def wait() -> str:
            await replied.wait()
            return "quick"

        asking = asyncio.ensure_future(one.app.user("ann").request("which", timeout=60))
        await asked.get()
        replied.set()
        assert await asking == "quick"
        await cancelled.get()


async def test_a_request_ends_in_time(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat?user=ann")

        @connection.on("which")
        async def never() -> None:
            await asyncio.Event().wait()

        for policy in ("first", "quorum", "all"):
            with pytest.raises(RequestTimeoutError):
                await one.app.user("ann").request("which", policy=policy, timeout=0.2)
        with pytest.raises(RequestTimeoutError):
            await one.app.socket(id).request("which", timeout=0.2)
        # Nothing is left behind.
        assert one.app._core.node.rooms.peers._questions == {}


async def test_a_socket_on_another_node_gets_messages_and_is_closed(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat?user=ann")
        raw, raw_id = await opened(stack, two, "/raw")
        target = one.app.socket(id)
        for number in range(20):
            target.emit("told", number)
        await target.send({"text": "hi"})
        await target.emit("told", "last")
        for number in range(20):
            assert await connection.receive_event("told") == number
        assert await connection.receive_event("message") == {"text": "hi"}
        assert await connection.receive_event("told") == "last"
        await one.app.socket(raw_id).send(b"\x00\xff")
        assert await raw.receive_bytes() == b"\x00\xff"
        assert target.sockets == ()
        await answer(connection, "there")
        assert await target.request("which", 1) == ["there", 1]
        await target.close(4000, "bye")
        end = await connection.wait_closed()
        assert (end.code, end.reason) == (4000, "bye")
        with pytest.raises(ValueError, match="close code"):
            target.close(1005)
        with pytest.raises(TypeError):
            target.emit("told", object())


async def test_a_socket_that_is_not_there_is_reported(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat?user=ann")
        await connection.close()
        await connection.wait_closed()
        await until(lambda: not two.app._core.node.sockets)
        nowhere = id.partition(".")[0] + ".no-such-node"
        for each, reports in ((id, two), (nowhere, one), ("unknown", one), (id.partition(".")[0], one)):
            errors = reports.app.state.errors
            errors.clear()
            await one.app.socket(each).emit("told", 1)
            await one.app.socket(each).send("text")
            await until(lambda errors=errors: len(errors) == 2)
            assert [type(error) for error in errors] == [DisconnectedError] * 2
            await one.app.socket(each).close()
            with pytest.raises(Reject) as refusal:
                await one.app.socket(each).request("which")
            assert (refusal.value.code, refusal.value.details) == ("not_found", {"socket": each})
        assert one.app.stats.undelivered + two.app.stats.undelivered == 8


async def test_a_node_that_goes_while_it_is_asked_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clients cannot answer any more."""
    monkeypatch.setattr(peers, "_LOOK", 0.05)
    async with running(make_app, count=3) as (one, two, three), AsyncExitStack() as stack:
        dead, dead_id = await opened(stack, two, "/chat?user=ann")
        connection, _ = await opened(stack, three, "/chat?user=ann")
        asked: asyncio.Queue[None] = asyncio.Queue()
        go = asyncio.Event()

        @dead.on("which")
        async def never() -> None:
            asked.put_nowait(None)
            await asyncio.Event().wait()

        @connection.on("which")
        async def later() -> str:
            asked.put_nowait(None)
            await go.wait()
            return "three"

        every = asyncio.ensure_future(one.app.user("ann").request("which", policy="all", timeout=60))
        alone = asyncio.ensure_future(one.app.socket(dead_id).request("which", timeout=60))
        for _ in range(3):
            await asked.get()
        # As if it were killed: it is not told of anything, and says nothing.
        two.app._core.node.rooms._broker.close()
        with pytest.raises(DisconnectedError):
            await alone
        go.set()
        assert await every == ["three"]
        assert await one.app.user("ann").count() == 1


async def test_without_the_broker_there_is_a_clear_error() -> None:
    def impatient(url: str) -> Symphony:
        app = make_app(url)
        app.limits = Limits(publish_timeout=0.3, finish_timeout=0.3)
        return app

    async with running(impatient) as (one, two), AsyncExitStack() as stack:
        connection, _ = await opened(stack, one, "/chat?user=ann")
        _, there = await opened(stack, two, "/chat?user=ann")
        await answer(connection, "here")
        one.app._core.node.rooms._broker._caller.close()
        failures = (BrokerUnavailableError, OutcomeUnknownError)
        for call in (
            lambda: one.app.user("ann").count(),
            lambda: one.app.user("ann").close(4000),
            lambda: one.app.user("ann").revoke(),
            lambda: one.app.socket(there).send("text"),
            lambda: one.app.socket(there).close(),
            lambda: one.app.socket(there).request("which"),
            lambda: one.app.user("ann").request("which", policy="all"),
            lambda: one.app.user("ann").request("which", policy="quorum"),
        ):
            with pytest.raises(failures):
                await call()
        # What is here is closed all the same.
        assert (await connection.wait_closed()).code == 4000
        # What is not awaited is reported.
        one.app.state.errors.clear()
        one.app.socket(there).send("text")
        one.app.user("bob").close()
        await until(lambda: len(one.app.state.errors) == 2)
        assert all(isinstance(error, failures) for error in one.app.state.errors)
        one.errors.clear()


@pytest.mark.within("broker.peers.MAX_ASKED")
@pytest.mark.beyond("broker.peers.MAX_ASKED")
async def test_questions_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_ASKED", 3)
    async with running(make_app, count=3) as (one, two, three), AsyncExitStack() as stack:
        connection, id = await opened(stack, two, "/chat?user=ann")
        asked: asyncio.Queue[None] = asyncio.Queue()
        go = asyncio.Event()

        @connection.on("which")
        async def wait() -> str:
            asked.put_nowait(None)
            await go.wait()
            return "there"

        def ask(node: TestClient) -> asyncio.Future[Any]:
            return asyncio.ensure_future(node.app.socket(id).request("which", timeout=60))

        asking = [ask(one), ask(one), ask(three)]
        for _ in asking:
            await asked.get()
        # The node that is asked has a limit.
        with pytest.raises(QueueFullError, match="works on 3 questions"):
            await ask(one)
        assert await one.app.user("ann").count() == 1
        go.set()
        assert await asyncio.gather(*asking) == ["there"] * 3
        # The node that asks has one, too.
        go.clear()
        asking = [ask(one) for _ in range(3)]
        for _ in asking:
            await asked.get()
        with pytest.raises(QueueFullError, match="3 questions to other nodes"):
            await ask(one)
        go.set()
        assert await asyncio.gather(*asking) == ["there"] * 3
        assert await ask(one) == "there"
