"""`app.user(id).join(room)` and `leave`: what the app decides about a user holds for all of their sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from integration.test_cut_nodes import caller_of, cut
from support.clients import connect, until
from support.nodes import running, signing_in
from symphony import Limits, Reject, RequestTimeoutError, Room, Socket, Symphony, WrongThreadError
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError
from symphony.testing import TestClient, TestConnection

LIMITS = Limits(publish_timeout=20, finish_timeout=10)
IMPATIENT = Limits(publish_timeout=0.3, finish_timeout=0.3)
TEAM = "team:red"


def make_app(url: str, limits: Limits = LIMITS) -> Symphony:
    app = Symphony(broker=url, limits=limits)
    app.state.url = url
    app.state.said = []
    signing_in(app)
    teams = app.rooms("team:{name}")
    app.rooms("small:{name}", max_members=1)
    app.route("/chat", events=True)
    app.route("/slow", events=True)

    @teams.authorize
    async def may_join(room: Room) -> bool:
        return False

    @teams.on_join
    async def joined(room: Room, socket: Socket) -> None:
        app.state.said.append(("joined", socket.id))

    @teams.on_leave
    async def left(room: Room, socket: Socket) -> None:
        app.state.said.append(("left", socket.id))

    return app


@pytest.fixture
async def nodes() -> AsyncIterator[list[TestClient]]:
    async with running(make_app) as nodes:
        yield nodes


def rooms_of(nodes: list[TestClient], user: str = "ann") -> list[set[str]]:
    """Return the rooms of each socket of a user, also of those that are not open yet."""
    sockets = [socket for node in nodes for socket in node.app._core.node.logins.sockets(user)]
    return [set(socket.rooms) for socket in sockets]


async def opened(stack: AsyncExitStack, *where: tuple[TestClient, str]) -> list[TestConnection]:
    return [await stack.enter_async_context(node.connect(path)) for node, path in where]


async def test_all_sockets_of_a_user_join_a_room_and_their_clients_are_told(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        *anns, _ = await opened(
            stack,
            (one, "/chat?user=ann"),
            (two, "/chat?user=ann"),
            (two, "/chat?user=ann"),
            (two, "/chat?user=bob"),
        )
        # `authorize` would refuse each of them.
        assert await one.app.user("ann").join(TEAM) == 3
        await two.app.room(TEAM).emit("said", "hello")
        for ann in anns:
            assert await ann.receive_event("said") == "hello"
        assert rooms_of(nodes) == [{TEAM}] * 3
        # It changes nothing a second time, from whatever node.
        assert await two.app.user("ann").join(TEAM) == 3
        assert await one.app.room(TEAM).count() == 3
        assert await two.app.user("ann").leave(TEAM) == 3
        assert await two.app.user("ann").leave(TEAM) == 0
        assert rooms_of(nodes) == [set()] * 3
        assert rooms_of(nodes, "bob") == [set()]
    for node, count in ((one, 1), (two, 2)):
        assert sorted(verb for verb, _ in node.app.state.said) == ["joined"] * count + ["left"] * count


async def test_a_user_without_sockets_joins_nothing(nodes: list[TestClient]) -> None:
    for node in nodes:
        assert await node.app.user("eve").join(TEAM) == 0
        assert await node.app.user("eve").leave(TEAM) == 0


async def test_one_that_is_refused_does_not_keep_the_others_out(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        await opened(stack, (one, "/chat?user=ann"), (two, "/chat?user=ann"), (two, "/chat?user=bob"))
        assert await one.app.user("bob").join("small:a") == 1
        # The member of the room is a user, so there is one seat for all sockets of ann.
        assert await one.app.user("ann").join("small:b") == 2
        for node in nodes:
            with pytest.raises(Reject) as refusal:
                await node.app.user("ann").join("small:a")
            assert refusal.value.code == "room_full"
        assert await one.app.user("ann").leave("small:b") == 2
        assert [error for node in nodes for error in node.errors] == []


@pytest.mark.parametrize("name", ["", "user:bob", "x" * 1000])
async def test_rooms_that_cannot_be_joined_are_refused(nodes: list[TestClient], name: str) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        await opened(stack, (two, "/chat?user=ann"))
        for node in (one, two):
            with pytest.raises(Reject):
                await node.app.user("ann").join(name)


async def test_a_socket_that_is_still_opening_joins_and_leaves_as_well() -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    def slow_app(url: str) -> Symphony:
        app = make_app(url)

        @app.route("/opening", events=True).on_connect
        async def wait() -> None:
            entered.set()
            await go.wait()

        return app

    async with running(slow_app) as (one, two):
        opening = asyncio.ensure_future(two.connect("/opening?user=ann", protocol="json").__aenter__())
        await entered.wait()
        assert await one.app.user("ann").join("team:blue") == 1
        assert await one.app.user("ann").join(TEAM) == 1
        assert await one.app.user("ann").leave("team:blue") == 1
        go.set()
        connection = await opening
        assert rooms_of([two]) == [{TEAM}]
        await one.app.room(TEAM).emit("said", 1)
        assert await connection.receive_event("said") == 1


async def from_thread(node: TestClient, verb: str) -> int:
    user = node.app.threadsafe.user("ann")
    return await asyncio.to_thread(lambda: getattr(user, verb)(TEAM).result(20))


async def from_publisher(node: TestClient, verb: str) -> int:
    async with make_app(node.app.state.url).publisher() as out:
        return await getattr(out.user("ann"), verb)(TEAM)


async def from_blocking_publisher(node: TestClient, verb: str) -> int:
    def work() -> int:
        with make_app(node.app.state.url).publisher() as out:
            return getattr(out.user("ann"), verb)(TEAM)

    return await asyncio.to_thread(work)


@pytest.mark.parametrize("call", [from_thread, from_publisher, from_blocking_publisher])
async def test_threads_and_other_processes_can_do_it(
    nodes: list[TestClient], call: Callable[[TestClient, str], Awaitable[int]]
) -> None:
    one, two = nodes
    async with AsyncExitStack() as stack:
        await opened(stack, (one, "/chat?user=ann"), (two, "/chat?user=ann"))
        assert await call(one, "join") == 2
        assert rooms_of(nodes) == [{TEAM}] * 2
        assert await call(one, "leave") == 2
        assert rooms_of(nodes) == [set()] * 2
        assert await call(one, "leave") == 0


async def test_many_threads_share_a_publisher(nodes: list[TestClient]) -> None:
    one, two = nodes
    names = [f"team:{number}" for number in range(20)]

    def work() -> list[int]:
        with make_app(one.app.state.url).publisher() as out:
            ann = out.user("ann")

            async def each() -> list[int]:
                return await asyncio.gather(*(asyncio.to_thread(ann.join, name) for name in names))

            return asyncio.run(each())

    async with AsyncExitStack() as stack:
        await opened(stack, (one, "/chat?user=ann"), (two, "/chat?user=ann"))
        assert await asyncio.to_thread(work) == [2] * len(names)
        assert rooms_of(nodes) == [set(names)] * 2


async def test_a_node_that_is_cut_off_does_it_when_it_is_back() -> None:
    async with running(lambda url: make_app(url, IMPATIENT)) as (one, two), AsyncExitStack() as stack:
        await opened(stack, (two, "/chat?user=ann"))
        async with cut(two):
            with pytest.raises(RequestTimeoutError, match=r"did not answer 'join_user'.*They do it"):
                await one.app.user("ann").join(TEAM)
            assert rooms_of([two]) == [set()]
        await until(lambda: rooms_of([two]) == [{TEAM}])


async def test_without_the_broker_there_is_a_clear_error() -> None:
    async with running(lambda url: make_app(url, IMPATIENT)) as (one, _), AsyncExitStack() as stack:
        await opened(stack, (one, "/chat?user=ann"))
        assert await one.app.user("ann").join("team:blue") == 1
        caller_of(one).close()
        for verb in ("join", "leave"):
            with pytest.raises((BrokerUnavailableError, OutcomeUnknownError, Reject)):
                await getattr(one.app.user("ann"), verb)("team:blue")
        # What is here is done all the same.
        assert rooms_of([one]) == [set()]


async def test_another_thread_is_told_what_to_use_instead(nodes: list[TestClient]) -> None:
    for verb in ("join", "leave"):
        with pytest.raises(WrongThreadError, match=rf"app\.threadsafe\.user\('ann'\)\.{verb}"):
            await asyncio.to_thread(
                lambda verb=verb: asyncio.run(getattr(nodes[0].app.user("ann"), verb)(TEAM))
            )


async def test_the_client_is_told_whoever_asked_for_it(serve) -> None:  # type: ignore[no-untyped-def]
    app = make_app("memory://")
    async with serve(app) as url, connect(f"{url}/chat?user=ann") as ann:
        await until(lambda: app.user("ann").sockets)
        assert await app.user("ann").join(TEAM) == 1
        assert json.loads(await ann.recv())["joined"] == TEAM
        assert await app.user("ann").leave(TEAM) == 1
        assert json.loads(await ann.recv())["left"] == TEAM
