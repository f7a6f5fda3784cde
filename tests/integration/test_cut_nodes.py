"""What is revoked or closed while a node has no connection to the broker: it does it when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.clients import until
from support.nodes import running, signing_in
from symphony import Identity, Limits, RequestTimeoutError, Room, Socket, Symphony
from symphony.broker import hubnodes
from symphony.testing import TestClient

LIMITS = Limits(publish_timeout=20, finish_timeout=10)


def make_app(url: str, limits: Limits = LIMITS) -> Symphony:
    app = Symphony(broker=url, limits=limits)
    app.state.allowed = True
    app.state.said = []
    signing_in(app)
    for pattern in ("plain:{name}", "kept:{name}", "team:{name}"):
        options: dict[str, Any] = {"history": 100} if pattern.startswith("kept") else {}
        rooms = app.rooms(pattern, client_join=True, grace=60 if "team" in pattern else 0, **options)

        @rooms.authorize
        async def may_join(user: Identity) -> bool:
            return app.state.allowed

        @rooms.on_publish("say")
        async def say(room: Room, data: str) -> str:
            app.state.said.append((room.name, data))
            return data

    @app.on("join")
    async def join(socket: Socket, data: str) -> None:
        await socket.join(data)

    return app


def caller_of(node: TestClient) -> Any:
    return node.app._core.node.rooms._broker._caller


@asynccontextmanager
async def cut(node: TestClient) -> AsyncIterator[None]:
    """Cut the connection of a node to the broker; inside the block it can make no other one."""
    caller = caller_of(node)
    dial = caller._dial

    async def refuse(end: object) -> None:
        raise ConnectionRefusedError

    caller._dial = refuse
    # A worker would stop after two seconds.
    caller._ended = None
    caller._link.close()
    await until(lambda: caller._link is None)
    try:
        yield
    finally:
        caller._dial = dial


def names(node: TestClient, room: str) -> list[str]:
    return sorted(socket.user.id for socket in node.app.room(room).sockets)


async def waits(call: asyncio.Future[Any], one: TestClient) -> None:
    """Wait until the broker has passed on a question of a node, which is not answered."""
    await until(lambda: [each.expected for each in one.app._core.node.rooms.peers._questions.values()] == [1])
    assert not call.done()


ROOMS = ["plain:a", "kept:a", "team:a"]


@pytest.mark.parametrize("room", ROOMS)
async def test_a_right_that_is_revoked_meanwhile_ends_when_the_node_is_back(room: str) -> None:
    """The call waits for that; the socket of the other user stays."""
    async with (
        running(make_app) as (one, two),
        two.connect("/?user=ann") as ann,
        two.connect("/?user=bob") as bob,
    ):
        for each in (ann, bob):
            await each.request("join", room)
        async with cut(two):
            two.app.state.allowed = False
            revoking = asyncio.ensure_future(one.app.user("ann").revoke())
            await waits(revoking, one)
            assert names(two, room) == ["ann", "bob"]
        await revoking
        assert names(two, room) == ["bob"]


@pytest.mark.parametrize("room", ROOMS)
async def test_a_room_that_is_closed_meanwhile_ends_when_the_node_is_back(room: str) -> None:
    async with running(make_app) as (one, two), two.connect("/?user=ann") as ann:
        await ann.request("join", room)
        async with cut(two):
            closing = asyncio.ensure_future(one.app.room(room).close(4000, "over"))
            await waits(closing, one)
        await closing
        assert names(two, room) == []
        # It is closed once: a later life of the room goes on, also after another cut.
        await ann.request("join", room)
        async with cut(two):
            pass
        await until(lambda: caller_of(two)._link is not None)
        await one.app.user("nobody").revoke()
        assert names(two, room) == ["ann"]


async def test_a_user_who_is_closed_meanwhile_is_closed_when_the_node_is_back() -> None:
    async with running(make_app) as (one, two), two.connect("/?user=ann") as ann:
        async with cut(two):
            closing = asyncio.ensure_future(one.app.user("ann").close(4403, "signed out"))
            await waits(closing, one)
        await closing
        assert (await ann.wait_closed()).code == 4403


async def test_a_node_that_is_cut_for_too_long_is_named_and_does_it_later() -> None:
    limits = Limits(publish_timeout=1, finish_timeout=0.2)
    async with running(lambda url: make_app(url, limits)) as (one, two), two.connect("/?user=ann") as ann:
        await ann.request("join", "plain:a")
        async with cut(two):
            two.app.state.allowed = False
            with pytest.raises(
                RequestTimeoutError, match=r"1 of 1 nodes did not answer 'revoke'.*have the broker again"
            ):
                await one.app.user("ann").revoke()
            with pytest.raises(RequestTimeoutError, match="'close_user'"):
                await one.app.user("ann").close(4403)
        assert (await ann.wait_closed()).code == 4403
        assert names(two, "plain:a") == []


async def test_a_question_that_was_lost_with_the_connection_is_asked_again() -> None:
    """The broker had sent it already. It is carried out once."""
    async with running(make_app) as (one, two), two.connect("/?user=ann") as ann:
        await ann.request("join", "plain:a")
        caller = caller_of(two)
        received, lost = caller._received, []

        def drop(end: Any, message: bytes) -> None:
            if b"close_room" in message and not lost:
                lost.append(message)
                caller._link.close()
            elif not lost or end is caller._end:
                received(end, message)

        caller._received = drop
        await one.app.room("plain:a").close()
        assert len(lost) == 1
        assert names(two, "plain:a") == []


async def test_a_node_that_has_stopped_is_not_waited_for() -> None:
    async with running(make_app) as (one, two), running(make_app, count=0):
        node = two.app._core.node
        node.rooms._broker.close()
        async with asyncio.timeout(10):
            await one.app.user("ann").revoke()


async def test_a_process_that_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if nothing has told the broker but the system."""
    gone: list[int] = []
    monkeypatch.setattr(hubnodes, "_is_gone", lambda process: bool(gone))
    async with running(make_app) as (one, two):
        async with cut(two):
            revoking = asyncio.ensure_future(one.app.user("ann").revoke())
            await waits(revoking, one)
            gone.append(1)
            await one.app.user("bob").revoke()
        await revoking


@pytest.mark.within("broker.hubnodes._MAX_ORDERS")
@pytest.mark.beyond("broker.hubnodes._MAX_ORDERS")
async def test_a_node_that_may_have_missed_too_much_asks_about_all_its_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubnodes, "_MAX_ORDERS", 3)
    limits = Limits(publish_timeout=0.5, finish_timeout=0.1)
    async with (
        running(lambda url: make_app(url, limits)) as (one, two),
        two.connect("/?user=ann") as ann,
        two.connect("/?user=bob") as bob,
    ):
        for each in (ann, bob):
            await each.request("join", "plain:a")
        # As many as are kept: they are all carried out, and nobody else is asked about.
        two.app.state.allowed = False
        async with cut(two):
            calls = [one.app.user(user).revoke() for user in ("x", "y", "ann")]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, RequestTimeoutError)
        await until(lambda: names(two, "plain:a") == ["bob"])
        await until(lambda: caller_of(two)._link is not None)
        async with cut(two):
            calls = [one.app.user(user).revoke() for user in ("bob", "x", "y", "z")]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, RequestTimeoutError)
        await until(lambda: names(two, "plain:a") == [])
