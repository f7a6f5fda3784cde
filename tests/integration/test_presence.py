"""Clients of rooms with `presence=True` are told who is in the room."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest

from support.clients import until
from support.servers import serve_natively
from symphony import Identity, Reject, Socket, Symphony
from symphony.client import connect, sync
from symphony.client.presence import RoomPresence, Roster
from symphony.errors import RemoteError
from symphony.protocol.envelopes import Presence
from symphony.protocol.rosters import MemberInfo, MembersDiff, MembersState
from symphony.rooms import showing
from symphony.rooms.membertable import MemberTable
from symphony.testing import TestClient, TestConnection


def make(**options: Any) -> Symphony:
    app = Symphony()
    app.rooms("chat:{name}", presence=True, client_join=True, **options)
    app.rooms("quiet:{name}", max_members=10, client_join=True)
    route = app.route("/{user}")

    @route.on_connect
    async def enter(socket: Socket, user: str) -> None:
        name = user.rstrip("0123456789")
        if name != "anon":
            socket.login(Identity(name, {"name": name.title()}))

    @route.on("rename")
    async def rename(socket: Socket, data: str) -> None:
        assert socket.user is not None
        socket.login(Identity(socket.user.id, {"name": data}))

    return app


class Peer:
    """A connection that shows its envelopes."""

    def __init__(self, connection: TestConnection) -> None:
        self.connection = connection
        self.number = 0

    async def ask(self, **envelope: Any) -> list[dict[str, Any]]:
        """Send a request; return what came up to its answer, and the answer."""
        self.number += 1
        await self.connection.send(json.dumps({**envelope, "id": self.number}))
        came: list[dict[str, Any]] = []
        while True:
            came.append(await self.hear())
            if came[-1].get("reply") == self.number or came[-1].get("error") == self.number:
                return came

    async def hear(self) -> dict[str, Any]:
        return json.loads(await self.connection.receive())


class Crowd:
    """A client of the app in memory, and its peers."""

    def __init__(self, app: Symphony) -> None:
        self.client = TestClient(app)
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> Crowd:
        await self.stack.enter_async_context(self.client)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stack.__aexit__(None, None, None)

    async def peer(self, name: str) -> Peer:
        connection = self.client.connect(f"/{name}", protocol="raw")
        return Peer(await self.stack.enter_async_context(connection))


def ids(members: dict[str, Any]) -> list[str]:
    return [member["id"] for member in members["list"]]


async def test_a_client_is_told_who_is_there_when_it_joins():
    async with Crowd(make()) as crowd:
        ann, bob = await crowd.peer("ann"), await crowd.peer("bob")
        joined, answer = await ann.ask(join="chat:a")
        assert joined["joined"] == "chat:a"
        assert joined["members"]["list"] == [{"id": "ann", "info": {"name": "Ann"}}]
        assert answer == {"reply": 1, "data": None}
        joined, *_ = await bob.ask(join="chat:a")
        assert ids(joined["members"]) == ["ann", "bob"]
        assert joined["members"]["total"] == 2


async def test_the_others_are_told_each_change_in_order():
    async with Crowd(make()) as crowd:
        ann, bob, other = await crowd.peer("ann"), await crowd.peer("bob"), await crowd.peer("bob2")
        joined, *_ = await ann.ask(join="chat:a")
        version = joined["members"]["version"]
        await crowd.client.clock.advance(1)
        seen: list[Any] = []

        async def changed() -> dict[str, Any]:
            await crowd.client.clock.advance(1)
            envelope = await ann.hear()
            if envelope["diff"]["to"] <= version:
                # Its own arrival.
                envelope = await ann.hear()
            seen.append(envelope["diff"])
            return envelope["diff"]

        await bob.ask(join="chat:a")
        diff = await changed()
        assert (diff["changed"], diff["gone"], diff["total"]) == (
            [{"id": "bob", "info": {"name": "Bob"}}],
            [],
            2,
        )
        await other.ask(join="chat:a")
        await bob.ask(event="rename", data="Bobby")
        diff = await changed()
        assert (diff["changed"], diff["gone"]) == ([{"id": "bob", "info": {"name": "Bobby"}}], [])
        # The other tab is still there.
        await bob.ask(leave="chat:a")
        await other.ask(leave="chat:a")
        diff = await changed()
        assert (diff["changed"], diff["gone"], diff["total"]) == ([], ["bob"], 1)
        assert all(one["to"] == two["from"] for one, two in pairwise(seen))


async def test_a_reload_is_silent():
    async with Crowd(make(grace=10)) as crowd:
        ann, bob = await crowd.peer("ann"), await crowd.peer("bob")
        await ann.ask(join="chat:a")
        await bob.ask(join="chat:a")
        await crowd.client.clock.advance(1)
        await ann.ask(count="chat:a")
        await bob.connection.close(1001)
        await crowd.client.clock.advance(5)
        again = await crowd.peer("bob")
        await again.ask(join="chat:a")
        await crowd.client.clock.advance(1)
        # Only the answer comes.
        (answer,) = await ann.ask(count="chat:a")
        assert answer["data"] == 2


async def test_a_mass_of_joins_is_told_in_a_few_envelopes(monkeypatch):
    """The number of envelopes does not grow with the square of the room."""
    monkeypatch.setattr(showing, "_PACE", 1000.0)
    async with Crowd(make()) as crowd:
        ann = await crowd.peer("ann")
        await ann.ask(join="chat:a")
        await crowd.client.clock.advance(2000)
        await ann.ask(count="chat:a")
        peers = [await crowd.peer(f"anon{number}") for number in range(250)]
        for peer in peers:
            await peer.ask(join="chat:a")
        await crowd.client.clock.advance(2000)
        *diffs, answer = await ann.ask(count="chat:a")
        assert answer["data"] == 251
        # The first at once, then as many as an envelope has, and the rest.
        assert [len(one["diff"]["changed"]) for one in diffs] == [1, 100, 100, 49]
        view = Roster()
        view.restart(MembersState(diffs[0]["diff"]["epoch"], 1, 1, [MemberInfo("ann")]))
        for one in diffs:
            diff = one["diff"]
            changed = [MemberInfo(**member) for member in diff["changed"]]
            change = MembersDiff(
                diff["epoch"], diff["from"], diff["to"], diff["total"], changed, diff["gone"]
            )
            view.take(Presence("chat:a", change))
            assert view.missed is None
        assert (len(view.infos), view.total) == (251, 251)


@pytest.mark.within("rooms.showing._MAX_SHOWN")
@pytest.mark.beyond("rooms.showing._MAX_SHOWN")
async def test_in_a_crowded_room_clients_are_only_told_how_many_there_are(monkeypatch):
    monkeypatch.setattr(showing, "_MAX_SHOWN", 3)
    async with Crowd(make()) as crowd:
        peers = [await crowd.peer(f"anon{number}") for number in range(4)]
        for peer in peers[:3]:
            joined, *_ = await peer.ask(join="chat:a")
        assert len(joined["members"]["list"]) == 3
        await crowd.client.clock.advance(1)
        *_, _ = await peers[0].ask(count="chat:a")
        joined, *_ = await peers[3].ask(join="chat:a")
        assert (joined["members"]["total"], "list" in joined["members"]) == (4, False)
        await crowd.client.clock.advance(1)
        *_, told, _ = await peers[0].ask(count="chat:a")
        assert (told["diff"]["total"], "changed" in told["diff"]) == (4, False)
        await peers[3].ask(leave="chat:a")
        await crowd.client.clock.advance(1)
        *_, told, _ = await peers[0].ask(count="chat:a")
        assert len(told["members"]["list"]) == 3


@pytest.mark.within("rooms.showing._MAX_CHANGES")
@pytest.mark.beyond("rooms.showing._MAX_CHANGES")
async def test_an_envelope_has_a_limited_number_of_changes(monkeypatch):
    monkeypatch.setattr(showing, "_MAX_CHANGES", 2)
    async with Crowd(make()) as crowd:
        ann = await crowd.peer("ann")
        await ann.ask(join="chat:a")
        await crowd.client.clock.advance(1)
        await ann.ask(count="chat:a")
        for number in range(5):
            await (await crowd.peer(f"anon{number}")).ask(join="chat:a")
        await crowd.client.clock.advance(1)
        *diffs, _ = await ann.ask(count="chat:a")
        sizes = [len(one["diff"]["changed"]) for one in diffs]
        assert sum(sizes) == 5
        assert max(sizes) == 2


@pytest.mark.parametrize("request_of", ["presence", "count"])
async def test_only_members_may_ask(request_of):
    async with Crowd(make()) as crowd:
        ann = await crowd.peer("ann")
        for room in ("chat:a", "nowhere", "chat:"):
            *_, answer = await ann.ask(**{request_of: room})
            assert answer["data"]["code"] == "forbidden"
        await ann.ask(join="chat:a")
        *_, answer = await ann.ask(**{request_of: "chat:a"})
        assert ids(answer["data"]) == ["ann"] if request_of == "presence" else answer["data"] == 1
        await ann.ask(join="quiet:a")
        *_, answer = await ann.ask(**{request_of: "quiet:a"})
        if request_of == "presence":
            # The members of this room are not shown.
            assert answer["data"]["code"] == "forbidden"
        else:
            assert answer["data"] == 1


async def test_a_client_has_a_live_view():
    app = make()
    async with serve_natively(app) as url, connect(f"{url}/ann") as ann:
        room = await ann.join("chat:a")
        assert dict(room.presence) == {"ann": {"name": "Ann"}}
        async with connect(f"{url}/bob") as bob:
            other = await bob.join("chat:a")
            assert list(other.presence) == ["ann", "bob"]
            await until(lambda: "bob" in room.presence)
            assert (room.presence["bob"], room.presence.total, room.presence.is_known) == (
                {"name": "Bob"},
                2,
                True,
            )
            await bob.request("rename", "Bobby")
            await until(lambda: room.presence["bob"] == {"name": "Bobby"})
        await until(lambda: "bob" not in room.presence)
        assert list(room.presence) == ["ann"]


async def test_a_program_is_told_that_the_members_have_changed():
    async with serve_natively(make(grace=10)) as url, connect(f"{url}/ann") as ann:
        room = await ann.join("chat:a")
        seen: list[list[str]] = []

        @room.on_presence
        def plain(presence: RoomPresence) -> None:
            seen.append(list(presence))

        told = asyncio.Event()

        @room.on_presence
        async def later(presence: RoomPresence) -> None:
            assert presence is room.presence
            told.set()

        async with connect(f"{url}/bob") as bob:
            await bob.join("chat:a")
            await until(lambda: seen[-1:] == [["ann", "bob"]])
            await asyncio.wait_for(told.wait(), 10)
            before = len(seen)
            await bob.request("rename", "Bobby")
            await until(lambda: len(seen) > before)
            assert room.presence["bob"] == {"name": "Bobby"}
            await (await bob.join("chat:a")).leave()
            await until(lambda: seen[-1] == ["ann"])
        before = len(seen)
        link = ann._core.reconnector._link
        assert link is not None
        link.abort()
        assert await room.count() == 1
        assert all(one == ["ann"] for one in seen[before:])
        await room.leave()
        before = len(seen)
        assert await ann.request("rename", "Anna") is None
        assert len(seen) == before


async def test_a_client_reads_how_many_members_there_are():
    async with serve_natively(make()) as url, connect(f"{url}/ann") as ann, connect(f"{url}/bob") as bob:
        rooms = [await ann.join("chat:a"), await ann.join("quiet:a")]
        for room in rooms:
            assert await room.count() == 1
            await bob.join(room.name)
            assert await room.count() == 2
        assert not rooms[1].presence.is_known
        assert rooms[1].presence.total == 0
        await rooms[0].leave()
        with pytest.raises(RemoteError) as caught:
            await rooms[0].count()
        assert caught.value.code == "left"


async def test_a_blocking_client_reads_how_many_members_there_are():
    def read(url: str) -> tuple[int, list[str]]:
        with sync.connect(f"{url}/ann") as ann:
            room = ann.join("chat:a")
            return room.count(), list(room.presence)

    async with serve_natively(make()) as url:
        assert await asyncio.to_thread(read, url) == (1, ["ann"])


async def test_a_client_that_has_missed_a_change_asks_for_all():
    app = make()
    async with serve_natively(app) as url, connect(f"{url}/ann") as ann, connect(f"{url}/bob") as bob:
        room = await ann.join("chat:a")
        await asyncio.sleep(0)
        # As if the changes before had not arrived.
        room._held.roster._version = -5
        room._held.roster.infos.clear()
        await bob.join("chat:a")
        await until(lambda: list(room.presence) == ["ann", "bob"])


async def test_what_cannot_be_read_again_is_logged(caplog, monkeypatch):
    async def refuse(self: Any, name: str) -> Any:
        raise Reject("unavailable", "not now", retryable=True)

    monkeypatch.setattr(MemberTable, "shown", refuse)
    async with (
        serve_natively(make()) as url,
        connect(f"{url}/ann") as ann,
        connect(f"{url}/bob") as bob,
        connect(f"{url}/eve") as eve,
    ):
        room = await ann.join("chat:a")
        room._held.roster._version = -5
        await bob.join("chat:a")
        await until(lambda: "they cannot be read: unavailable: not now" in caplog.text)
        monkeypatch.undo()
        # The next change is a reason to read them again.
        await eve.join("chat:a")
        await until(lambda: list(room.presence) == ["ann", "bob", "eve"])


def state(version: int, *names: str, epoch: str = "e") -> MembersState:
    return MembersState(epoch, version, len(names), [MemberInfo(name) for name in names])


def test_a_view_applies_what_follows_and_drops_what_it_has():
    view = Roster()
    view.restart(state(5, "ann", "bob"))
    # Older, and the same.
    assert not view.take(Presence("r", MembersDiff("e", 1, 5, 1, [], ["bob"])))
    assert list(view.infos) == ["ann", "bob"]
    # It overlaps what the view has: it says how things are in the end.
    assert view.take(Presence("r", MembersDiff("e", 3, 7, 2, [MemberInfo("eve", 1)], ["bob"])))
    assert view.infos == {"ann": None, "eve": 1}
    assert view.missed is None
    # A gap, and another epoch.
    assert not view.take(Presence("r", MembersDiff("e", 8, 9, 1, [], ["ann"])))
    assert view.missed == ("e", 9)
    assert not view.take(Presence("r", MembersDiff("f", 7, 8, 1, [], ["ann"])))
    assert view.missed == ("f", 8)
    assert view.infos == {"ann": None, "eve": 1}
    assert view.take(Presence("r", members=state(8, "dan", epoch="f")))
    assert list(view.infos) == ["dan"]
    assert view.missed is None


def test_a_view_ignores_a_state_that_is_older():
    view = Roster()
    assert view.restart(state(5, "ann", "bob"))
    for older in (state(4, "ann"), state(5, "ann"), state(0), None):
        assert not view.restart(older)
        assert list(view.infos) == ["ann", "bob"]
    assert view.restart(state(6, "ann"))
    assert view.restart(state(1, "eve", epoch="f"))
    assert list(view.infos) == ["eve"]


def test_a_view_that_is_behind_knows_which_state_will_do():
    view = Roster()
    view.restart(state(5, "ann"))
    view.take(Presence("r", MembersDiff("e", 7, 8, 2, [MemberInfo("bob")], [])))
    # One from before the change that is missing.
    assert view.restart(state(7, "ann", "eve"))
    assert view.missed == ("e", 8)
    # A change that follows it.
    assert view.take(Presence("r", MembersDiff("e", 7, 8, 3, [MemberInfo("bob")], [])))
    assert view.missed is None
    # A state of the old epoch, and one of an epoch after both.
    view.take(Presence("r", MembersDiff("f", 1, 2, 2, [MemberInfo("bob")], [])))
    view.restart(state(9, "ann"))
    assert view.missed == ("f", 2)
    view.restart(state(1, "ann", epoch="g"))
    assert view.missed is None
