"""One socket a user, on whatever nodes the sockets are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.clients import until
from support.nodes import running, signing_in
from symphony import Limits, Member, RefusedError, Socket, Symphony
from symphony.broker import remotepresence
from symphony.errors import BrokerUnavailableError
from symphony.node import sharedperuser
from symphony.testing import TestClient


def make_app(url: str) -> Symphony:
    app = Symphony(broker=url, limits=Limits(publish_timeout=20))
    signing_in(app)
    game = app.route("/game", per_user=1)
    app.route("/exam", per_user=1, on_conflict="refuse")
    rooms = app.rooms("game:{name}", grace=60)
    app.state.log = []

    @game.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("game:a")

    @rooms.on_arrive
    async def arrived(member: Member) -> None:
        app.state.log.append(f"arrived {member.id}")

    @app.on("ask")
    async def ask(data: int) -> int:
        return data

    return app


@pytest.fixture
async def nodes() -> AsyncIterator[list[TestClient]]:
    async with running(make_app) as nodes:
        yield nodes


def per_user(node: TestClient) -> Any:
    return node.app._core.node._per_user


async def test_a_connection_takes_the_place_of_another_one_on_another_node(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with (
        one.connect("/game?user=ann") as first,
        one.connect("/game?user=bob") as bob,
        two.connect("/game?user=ann") as second,
    ):
        end = await first.wait_closed()
        assert end.code == 4410
        async with one.connect("/game?user=ann") as third:
            assert (await second.wait_closed()).code == 4410
            assert await third.request("ask", 1) == 1
            # Back on the same node.
            async with one.connect("/game?user=ann") as fourth:
                assert (await third.wait_closed()).code == 4410
                assert await fourth.request("ask", 2) == 2
        assert await bob.request("ask", 3) == 3
    for node in nodes:
        await until(lambda node=node: (per_user(node)._sessions, per_user(node)._held) == ({}, set()))
    # The new socket is a member before the old one is closed, so that the member stays.
    arrived = [entry for node in nodes for entry in node.app.state.log]
    assert sorted(arrived) == ["arrived ann", "arrived bob"]


async def test_a_second_connection_on_another_node_is_refused(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with one.connect("/exam?user=ann") as first:
        for node in nodes:
            with pytest.raises(RefusedError) as refusal:
                await node.connect("/exam?user=ann").__aenter__()
            assert refusal.value.status == 409
        async with two.connect("/exam?user=bob"), two.connect("/game?user=ann"):
            assert await first.request("ask", 1) == 1
    await until(lambda: per_user(one)._sessions == {})
    # It is told to the store a moment after the connection has ended.
    while await per_user(two)._claims.claims("/exam", "ann"):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    async with two.connect("/exam?user=ann") as again:
        assert await again.request("ask", 2) == 2


async def test_many_at_once_end_with_one(nodes: list[TestClient]) -> None:
    connections = [nodes[number % 2].connect("/game?user=ann") for number in range(12)]
    opened = await asyncio.gather(
        *(connection.__aenter__() for connection in connections), return_exceptions=True
    )
    there = [each for each in opened if not isinstance(each, BaseException)]
    # Of those that lost the place while they opened, some were refused.
    assert all(isinstance(each, RefusedError) for each in opened if each not in there)
    await until(lambda: sum(each.closed is None for each in there) == 1)
    [left] = [each for each in there if each.closed is None]
    assert await left.request("ask", 1) == 1
    assert all(each.closed.code == 4410 for each in there if each is not left)
    for connection, result in zip(connections, opened, strict=True):
        if result in there:
            await connection.__aexit__(None, None, None)


async def test_a_lost_message_is_found_when_the_claims_are_renewed(
    nodes: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    monkeypatch.setattr(per_user(two)._peers, "tell", lambda *ignored: None)
    async with one.connect("/game?user=ann") as first, two.connect("/game?user=ann") as second:
        await per_user(two).renew()
        assert await first.request("ask", 1) == 1
        await per_user(one).renew()
        assert (await first.wait_closed()).code == 4410
        assert await second.request("ask", 2) == 2


async def test_claims_are_renewed_from_time_to_time(
    nodes: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    monkeypatch.setattr(sharedperuser, "REFRESH", 0.01)
    monkeypatch.setattr(per_user(two)._peers, "tell", lambda *ignored: None)
    async with one.connect("/game?user=ann") as first, two.connect("/game?user=ann"):
        assert (await first.wait_closed()).code == 4410


async def lose_claim(node: TestClient, by: str) -> None:
    """Take the claim of ann's socket away, as if its lease had ended."""
    claims = per_user(node)._claims
    await claims.claim("/exam", "ann", by, "nowhere", most=1, replace=True)
    await claims.release(by)


async def test_a_node_that_has_lost_its_claims_claims_again(nodes: list[TestClient]) -> None:
    """It was paused for longer than a lease, or the store has lost its memory."""
    one, two = nodes
    async with one.connect("/exam?user=ann") as first:
        await lose_claim(two, "first")
        await per_user(one).renew()
        assert await per_user(two)._claims.claims("/exam", "ann") == 1
        # Another one was faster: there is one socket again.
        await lose_claim(two, "second")
        async with two.connect("/exam?user=ann") as second:
            await per_user(one).renew()
            assert (await first.wait_closed()).code == 4410
            assert await second.request("ask", 1) == 1
            await per_user(two).renew()
            assert await second.request("ask", 2) == 2


async def test_a_ghost_of_a_dead_node_locks_nobody_out(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with one.connect("/game?user=ann"):
        # As if it were killed: it says nothing any more.
        one.app._core.node.rooms._broker.close()
        async with two.connect("/game?user=ann") as second:
            assert await second.request("ask", 1) == 1


async def test_without_the_store_a_connection_is_refused_for_now(
    nodes: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = nodes

    async def fail(*ignored: Any, **also: Any) -> None:
        raise BrokerUnavailableError("The broker of the rooms cannot be reached.")

    for method in ("claim", "claims"):
        monkeypatch.setattr(remotepresence.RemotePresence, method, fail)
    for path in ("/game?user=ann", "/exam?user=ann"):
        with pytest.raises(RefusedError) as refusal:
            await one.connect(path).__aenter__()
        assert refusal.value.status == 503
    assert per_user(one)._sessions == {}
