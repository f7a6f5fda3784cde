"""Members on two nodes with one presence store, and nodes that have lost touch with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import pytest

from support.clients import until
from symphony import Identity, Limits, Member, Reject, Room, Socket, Symphony
from symphony.broker.attendance import LEASE, REAP, REFRESH, Diff
from symphony.broker.engines import serve
from symphony.broker.memorypresence import MemoryPresence
from symphony.broker.presencetable import PresenceTable
from symphony.node import node as nodes
from symphony.testing import TestClient


class Store:
    """One table, as each node reaches it."""

    def __init__(self) -> None:
        number = count()
        loop = asyncio.get_running_loop()
        self.ends: list[End] = []
        self.table = PresenceTable(
            clock=lambda: loop.time(), new_id=lambda: f"id-{next(number)}", publish=self.publish
        )

    def publish(self, diff: Diff) -> None:
        for end in self.ends:
            end.hear(diff)

    def forget(self) -> None:
        """Lose everything, as a store that restarts does."""
        loop = asyncio.get_running_loop()
        number = count(1000)
        self.table = PresenceTable(
            clock=lambda: loop.time(), new_id=lambda: f"id-{next(number)}", publish=self.publish
        )
        for end in self.ends:
            end._table = self.table


class End(MemoryPresence):
    """How one node reaches the table."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._table = store.table
        self.is_up = True
        store.ends.append(self)

    def hear(self, diff: Diff) -> None:
        if self.is_up:
            self._publish(diff)

    def __getattribute__(self, name: str) -> Any:
        if name in ("track", "untrack", "touch", "reap", "read") and not self.is_up:
            raise ConnectionError("the store is out of reach")
        return super().__getattribute__(name)


class Two:
    """Two nodes of one app."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.log: list[str] = []
        self.apps: list[Symphony] = []
        self.clients: list[TestClient] = []

    def app(self, name: str, options: dict[str, Any]) -> Symphony:
        app = Symphony()
        rooms = app.rooms("game:{id}", **options)
        route = app.route("/{user}")

        @route.on_connect
        async def enter(socket: Socket, user: str) -> None:
            socket.login(Identity(user))
            await socket.join("game:1")

        def note(kind: str) -> Callable[..., None]:
            def hook(member: Member) -> None:
                self.log.append(f"{name} {kind} {member.id}")

            return hook

        for kind in ("on_arrive", "on_back", "on_away", "on_depart"):
            getattr(rooms, kind)(note(kind.removeprefix("on_")))
        return app

    def room(self, index: int) -> Room:
        return self.apps[index].room("game:1")

    async def advance(self, seconds: float) -> None:
        await self.clients[0].clock.advance(seconds)


@asynccontextmanager
async def two(monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[Two]:
    store = Store()
    both = Two(store)
    monkeypatch.setattr(nodes, "presence_beside", lambda broker: End(store))
    async with AsyncExitStack() as stack:
        for name in ("one", "two"):
            app = both.app(name, options)
            both.apps.append(app)
            both.clients.append(await stack.enter_async_context(TestClient(app)))
        yield both


async def test_a_user_with_tabs_on_two_nodes_is_one_member(monkeypatch):
    async with two(monkeypatch, grace=10) as both:
        one, other = both.clients
        async with one.connect("/ann"):
            async with other.connect("/ann"):
                assert both.log == ["one arrive ann"]
                assert await both.room(0).count() == await both.room(1).count() == 1
                assert list(both.room(0).members) == list(both.room(1).members) == ["ann"]
            # The other tab keeps it.
            assert both.log == ["one arrive ann"]
            assert list(both.room(1).members) == []
        await both.advance(0)
        assert both.log == ["one arrive ann", "one depart ann"]


async def test_a_member_may_come_back_on_another_node(monkeypatch):
    async with two(monkeypatch, grace=10) as both:
        one, other = both.clients
        async with one.connect("/ann") as ann:
            await ann.close(1001)
        await both.advance(1)
        assert both.room(0).members["ann"].away_until is not None
        async with other.connect("/ann") as ann:
            # The first node has forgotten it.
            assert list(both.room(0).members) == []
            assert both.log == ["one arrive ann", "one away ann", "two back ann"]
            await both.advance(60)
            assert await both.room(0).count() == 1
            await ann.close(1001)
        await both.advance(11)
        assert both.log[3:] == ["two away ann", "two depart ann"]


async def test_seats_are_those_of_all_nodes(monkeypatch):
    async with two(monkeypatch, max_members=1) as both:
        async with both.clients[0].connect("/ann"):
            with pytest.raises(Exception, match="is full"):
                async with both.clients[1].connect("/bob"):
                    pass
        async with both.clients[1].connect("/bob"):
            assert list(both.room(1).members) == ["bob"]


async def test_a_room_with_state_is_at_home_on_one_node(monkeypatch):
    async with two(monkeypatch, state=dict, grace=10) as both:
        async with both.clients[0].connect("/ann"):
            with pytest.raises(Exception, match="another node") as refused:
                async with both.clients[1].connect("/bob"):
                    pass
            assert getattr(refused.value, "status", 421) == 421
            # The lease is renewed.
            await both.advance(LEASE * 2)
            with pytest.raises(Exception, match="another node"):
                async with both.clients[1].connect("/bob"):
                    pass
        await both.advance(11)
        async with both.clients[1].connect("/bob"):
            assert list(both.room(1).members) == ["bob"]


async def test_with_each_node_no_room_has_a_home(monkeypatch):
    async with (
        two(monkeypatch, state=dict, each_node=True, max_members=5) as both,
        both.clients[0].connect("/ann"),
        both.clients[1].connect("/bob"),
    ):
        assert await both.room(0).count() == 2


async def test_the_members_of_a_dead_node_depart_on_another(monkeypatch):
    async with two(monkeypatch, grace=10) as both, both.clients[0].connect("/ann"):
        both.store.ends[0].is_up = False
        await both.advance(LEASE + 10 + REAP * 3)
        assert both.log == ["one arrive ann", "two away ann", "two depart ann"]
        # It is back: its socket is tracked again, as an arrival.
        both.store.ends[0].is_up = True
        await both.advance(REFRESH + 1)
        assert both.log[3:] == ["one arrive ann"]
        assert await both.room(1).count() == 1


async def test_a_node_that_starts_runs_hooks_when_its_start_has_ended(monkeypatch):
    """They may need what the start makes, such as the connection to a database."""
    async with two(monkeypatch, grace=10) as both, both.clients[0].connect("/ann"):
        for end in both.store.ends:
            end.is_up = False
        app = both.app("three", {"grace": 10})

        @app.on_startup
        async def slow() -> None:
            await both.advance(LEASE + 10 + REAP * 3)
            both.log.append("three has started")

        async with TestClient(app):
            await both.advance(LEASE + 10 + REAP * 3)
            assert both.log == ["one arrive ann", "three has started", "three depart ann"]


async def test_a_node_that_comes_back_to_a_full_room_puts_its_socket_out(monkeypatch):
    async with two(monkeypatch, max_members=1) as both, both.clients[0].connect("/ann"):
        both.store.ends[0].is_up = False
        await both.advance(LEASE + REAP * 3)
        async with both.clients[1].connect("/bob"):
            both.store.ends[0].is_up = True
            await both.advance(REFRESH + 1)
            assert both.room(0).sockets == ()
            assert list(both.room(0).members) == []
            assert await both.room(1).count() == 1


async def test_nobody_goes_away_because_the_store_is_out_of_reach(monkeypatch):
    async with (
        two(monkeypatch, grace=10) as both,
        both.clients[0].connect("/ann"),
        both.clients[1].connect("/bob"),
    ):
        for end in both.store.ends:
            end.is_up = False
        await both.advance(LEASE * 3)
        for end in both.store.ends:
            end.is_up = True
        await both.advance(LEASE * 2)
        assert both.log == ["one arrive ann", "two arrive bob"]
        assert await both.room(0).count() == 2


async def test_a_store_that_has_forgotten_everything_is_told_again(monkeypatch):
    async with (
        two(monkeypatch, grace=10) as both,
        both.clients[0].connect("/ann"),
        both.clients[1].connect("/bob"),
    ):
        arrival = both.room(0).members["ann"].arrival
        both.store.forget()
        assert await both.room(0).count() == 0
        await both.advance(REFRESH + 1)
        assert await both.room(0).count() == 2
        assert both.log == ["one arrive ann", "two arrive bob"]
        assert both.room(0).members["ann"].arrival == arrival


async def test_a_join_is_refused_while_the_store_is_out_of_reach(monkeypatch):
    async with two(monkeypatch, grace=10) as both:
        both.store.ends[0].is_up = False
        with pytest.raises(Exception, match="are not known") as refused:
            async with both.clients[0].connect("/ann"):
                pass
        assert not isinstance(refused.value, Reject)
        both.store.ends[0].is_up = True
        await both.advance(2)
        assert both.log == []
        async with both.clients[0].connect("/ann"):
            assert both.log == ["one arrive ann"]


@pytest.mark.parametrize(
    ("options", "code"), [({"state": dict}, "elsewhere"), ({"max_members": 1}, "unavailable")]
)
@pytest.mark.parametrize("raw", [False, True])
async def test_a_socket_that_is_put_out_of_the_room_of_its_route_is_closed(monkeypatch, options, code, raw):
    """The store has lost its memory, and another node was faster.

    On a raw route, the close code is one after which clients of other protocols reconnect, too.
    """
    store = Store()
    monkeypatch.setattr(nodes, "presence_beside", lambda broker: End(store))
    apps: list[Symphony] = []
    for _ in range(2):
        app = Symphony()
        app.rooms("game", **options)
        route = app.route("/", room="game", events=not raw)
        if raw:
            route.on_message(lambda message: message)
        apps.append(app)
    async with TestClient(apps[0]) as one, TestClient(apps[1]) as two, one.connect("/") as first:
        store.forget()
        async with two.connect("/") as second:
            await one.clock.advance(REFRESH + 1)
            closing = await first.wait_closed()
            if raw:
                assert (closing.code, closing.refusal) == (1013, None)
            else:
                assert closing.code == {"elsewhere": 4421, "unavailable": 4503}[code]
                assert closing.refusal is not None
                assert (closing.refusal.code, closing.refusal.retryable) == (code, True)
            assert len(apps[1].room("game").sockets) == 1
            await second.nothing_more()
        assert apps[0].room("game").sockets == ()


class Slow(End):
    """The answers about homes arrive late."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked = 0
        self.answers = asyncio.Event()

    async def settle(self, room: str, node: str, term: str) -> bool:
        is_home = await super().settle(room, node, term)
        self.asked += 1
        await self.answers.wait()
        return is_home


def at_home(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> tuple[list[Symphony], list[Slow]]:
    """Return two apps with a room that has a home, and how they reach the store."""
    store = Store()
    ends: list[Slow] = []

    def reach(broker: object) -> Slow:
        ends.append(Slow(store))
        return ends[-1]

    monkeypatch.setattr(nodes, "presence_beside", reach)
    apps: list[Symphony] = []
    for _ in range(2):
        app = Symphony()
        app.rooms("game", **options)
        app.route("/", room="game", events=True)
        apps.append(app)
    return apps, ends


HOMES = pytest.mark.parametrize(
    "options", [{"state": dict}, {"members": dict}, {"state": dict, "linger": 3600}]
)


@HOMES
async def test_joins_at_the_same_time_make_one_home_and_keep_it(monkeypatch, options):
    """Each had claimed it for itself, and the last claim had ended that of the first."""
    apps, ends = at_home(monkeypatch, options)
    async with TestClient(apps[0]) as one, TestClient(apps[1]) as two:
        for end in ends[1:]:
            end.answers.set()
        opening = [asyncio.ensure_future(one.connect("/").__aenter__()) for _ in range(4)]
        await until(lambda: ends[0].asked == 4)
        ends[0].answers.set()
        players = await asyncio.gather(*opening)
        await one.clock.advance(3 * REFRESH)
        assert [player.closed for player in players] == [None] * 4
        assert len(apps[0].room("game").sockets) == 4
        with pytest.raises(Exception, match="elsewhere"):
            await two.connect("/")
        for player in players:
            await player.close()
        await one.clock.advance(3601)
        async with two.connect("/"):
            assert len(apps[1].room("game").sockets) == 1


@HOMES
@pytest.mark.parametrize("count", [1, 3])
async def test_a_join_that_is_given_up_before_the_answer_leaves_no_home_behind(monkeypatch, options, count):
    apps, ends = at_home(monkeypatch, options)
    async with TestClient(apps[0]) as one, TestClient(apps[1]) as two:
        ends[1].answers.set()
        opening = [asyncio.ensure_future(one.connect("/").__aenter__()) for _ in range(count)]
        await until(lambda: ends[0].asked == count)
        for each in opening:
            each.cancel()
        await asyncio.wait(opening)
        await one.settle()
        async with two.connect("/"):
            assert len(apps[1].room("game").sockets) == 1


@HOMES
async def test_a_node_that_stops_leaves_no_home_behind(options):
    """Its last calls to the store have arrived before it has stopped."""

    def make(url: str) -> Symphony:
        app = Symphony(broker=url)
        app.rooms("game", **options)
        app.route("/", room="game", events=True)
        return app

    served = serve("memory://", Limits())
    try:
        async with TestClient(make(served.url), timeout=20) as stays:
            async with TestClient(make(served.url), timeout=20) as stops:
                players = await asyncio.gather(*(stops.connect("/").__aenter__() for _ in range(3)))
                with pytest.raises(Exception, match="elsewhere"):
                    await stays.connect("/")
            assert {player.closed.code for player in players if player.closed} == {1012}
            async with stays.connect("/"):
                pass
    finally:
        served.close()
