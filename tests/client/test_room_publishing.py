"""Clients publish to rooms on a real server: once, and in order, whatever happens to the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.clients import until
from support.elsewhere import serving
from support.servers import serve_natively
from symphony import Reject, Socket, Symphony
from symphony.client import Client, Position, Publication, connect, publishing, sync
from symphony.errors import DisconnectedError, OutcomeUnknownError, QueueFullError, RemoteError

codecs = pytest.mark.parametrize("codec", ["json", "msgpack"])


class Server:
    """An app whose rooms clients publish to."""

    def __init__(self) -> None:
        self.app = Symphony()
        self.stored: list[Any] = []
        self.sockets: list[Socket[Any]] = []
        # Cleared, the hooks wait.
        self.open = asyncio.Event()
        self.open.set()
        self.entered = 0
        # The joins are refused with it.
        self.refusal: Reject | None = None
        self.asked = 0
        rooms = self.app.rooms("chat:{name}", history=1000, client_join=True)
        plain = self.app.rooms("plain:{name}", client_join=True)
        route = self.app.route("/", events=True)

        @route.on("settled")
        def settled() -> None:
            """Answer, after everything that was sent before."""

        @route.on_connect
        def connected(socket: Socket) -> None:
            self.sockets.append(socket)

        @rooms.authorize
        def admit() -> None:
            self.asked += 1
            if self.refusal is not None:
                raise self.refusal

        @plain.on_publish("say")
        @rooms.on_publish("say")
        async def say(data: Any) -> None:
            self.entered += 1
            await self.open.wait()
            if data == "once" and data in self.stored:
                raise Reject("chat.again", "you have said that")
            if data == "rude":
                raise Reject("chat.rude", "be polite")
            self.stored.append(data)


@asynccontextmanager
async def opened(server: Server, codec: str = "json", **options: Any) -> AsyncIterator[Client]:
    async with (
        serve_natively(server.app) as url,
        connect(f"{url}/", protocol=codec, backoff=0.01, max_backoff=0.02, **options) as client,
    ):
        yield client


def cut(client: Client) -> None:
    link = client._core.reconnector._link
    if link is not None:
        link.abort()


async def kept(server: Server, room: str = "chat:a") -> list[Any]:
    return [each.data for each in await server.app.room(room).history(1000)]


@codecs
async def test_a_publication_has_its_position_and_is_heard_before(codec: str) -> None:
    server = Server()
    async with opened(server, codec) as client:
        room = await client.join("chat:a")
        heard: list[Publication] = []

        @room.on("say")
        def hear(data: dict[str, int], publication: Publication) -> None:
            assert data == publication.data
            heard.append(publication)

        first = await room.emit("say", {"n": 1})
        second = await room.emit("say", {"n": 2})
        assert first is not None
        assert second == Position(first.epoch, 2)
        await until(lambda: len(heard) == 2)
        assert heard == [Publication("say", {"n": 1}, first), Publication("say", {"n": 2}, second)]


async def test_the_data_is_that_of_the_call() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        data = ["before"]
        pending = room.emit("say", data)
        data[0] = "after"
        await pending
        assert server.stored == [["before"]]


async def test_what_is_refused_raises_and_nothing_is_published() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        for event, data, code in (("say", "rude", "chat.rude"), ("shout", 1, "forbidden")):
            with pytest.raises(RemoteError) as refused:
                await room.emit(event, data)
            assert refused.value.code == code
        await room.emit("say", "x", key="k")
        with pytest.raises(RemoteError, match="k"):
            await room.emit("say", "y", key="k")
        assert await room.emit("say", "x", key="k") == (await room.history())[0].position
        assert await kept(server) == ["x"]


@codecs
async def test_after_a_lost_connection_it_is_sent_again_and_published_once(codec: str) -> None:
    server = Server()
    async with opened(server, codec) as client:
        room = await client.join("chat:a")
        server.open.clear()
        pending = [asyncio.ensure_future(room.emit("say", number)) for number in range(3)]
        await until(lambda: server.entered == 1)
        # What the server has taken, it finishes; the rest is lost with the connection.
        cut(client)
        await until(lambda: len(server.sockets) == 2)
        server.open.set()
        positions = await asyncio.gather(*pending)
        assert [position.offset for position in positions if position] == [1, 2, 3]
        assert await kept(server) == [0, 1, 2]


@codecs
async def test_a_repeat_is_known_though_the_client_may_not_join_again(codec: str) -> None:
    """The server refused the repeat, so the program took it as not published."""
    server = Server()
    async with opened(server, codec) as client:
        room = await client.join("chat:a")
        server.open.clear()
        published = asyncio.ensure_future(room.emit("say", "published"))
        await until(lambda: server.entered == 1)
        lost = asyncio.ensure_future(room.emit("say", "lost with the connection"))
        server.refusal = Reject("forbidden", "banned")
        cut(client)
        await until(lambda: client.state != "open")
        unsent = asyncio.ensure_future(room.emit("say", "never sent"))
        await until(lambda: room.ended is not None)
        server.open.set()
        position = await published
        with pytest.raises(OutcomeUnknownError):
            await lost
        with pytest.raises(RemoteError, match=r"banned|not a member"):
            await unsent
        assert [each.position for each in await server.app.room("chat:a").history()] == [position]
        with pytest.raises(RemoteError, match="banned"):
            room.emit("say", "more")


async def test_a_repeat_that_the_hook_refuses_is_known() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        server.open.clear()
        pending = asyncio.ensure_future(room.emit("say", "once"))
        await until(lambda: server.entered == 1)
        cut(client)
        await until(lambda: len(server.sockets) == 2)
        server.open.set()
        assert await pending == (await room.history())[0].position
        assert await kept(server) == server.stored == ["once"]
        with pytest.raises(RemoteError, match="you have said that"):
            await room.emit("say", "once")


@codecs
async def test_while_the_client_may_not_join_again_yet_its_publications_wait_in_order(codec: str) -> None:
    server = Server()
    async with opened(server, codec) as client:
        room = await client.join("chat:a")
        server.open.clear()
        pending = [asyncio.ensure_future(room.emit("say", number)) for number in range(3)]
        await until(lambda: server.entered == 1)
        server.refusal = Reject("room_full", "no seat is left", retryable=True)
        for _ in range(2):
            cut(client)
            # The server finishes what it has begun.
            server.open.set()
            server.asked = 0
            await until(lambda: server.asked >= 2)
            pending.append(asyncio.ensure_future(room.emit("say", len(pending))))
            await until(lambda: client.state == "open")
            pending.append(asyncio.ensure_future(room.emit("say", len(pending))))
        await client.request("settled")
        assert max(server.stored) < 3
        assert room.ended is None
        server.refusal = None
        positions = await asyncio.gather(*pending)
        assert [position.offset for position in positions if position] == list(range(1, 8))
        assert await kept(server) == list(range(7))


async def test_what_waits_for_a_join_fails_when_the_client_leaves_or_is_closed() -> None:
    server = Server()
    async with opened(server) as client:
        rooms = [await client.join(name) for name in ("chat:a", "chat:b")]
        server.refusal = Reject("room_full", "no seat is left", retryable=True)
        cut(client)
        await until(lambda: server.asked >= 6 and client.state == "open")
        waiting = [asyncio.ensure_future(room.emit("say", number)) for room in rooms for number in (1, 2)]
        await asyncio.sleep(0)
        await client.request("settled", timeout=5)
        assert not any(each.done() for each in waiting)
        await rooms[0].leave()
        for each in waiting[:2]:
            with pytest.raises(RemoteError, match="left"):
                await each
        await client.close()
        for each in waiting[2:]:
            with pytest.raises(DisconnectedError):
                await each


async def test_without_a_connection_it_waits_in_order_after_the_rejoin() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        cut(client)
        await until(lambda: client.state != "open")
        pending = [asyncio.ensure_future(room.emit("say", number)) for number in range(20)]
        await asyncio.gather(*pending)
        assert await kept(server) == list(range(20))


async def test_volatile_is_dropped_while_offline_and_not_kept() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        heard: list[Any] = []
        room.on("say", heard.append)
        assert await room.emit("say", "here", volatile=True) is None
        await until(lambda: heard == ["here"])
        cut(client)
        await until(lambda: client.state != "open")
        assert await room.emit("say", "dropped", volatile=True) is None
        await until(lambda: client.state == "open")
        await room.emit("say", "kept")
        await until(lambda: heard == ["here", "kept"])
        assert await kept(server) == ["kept"]
        with pytest.raises(ValueError, match="volatile"):
            room.emit("say", 1, volatile=True, key="k")


async def test_in_a_room_without_a_history_a_lost_one_is_not_repeated() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("plain:a")
        assert await room.emit("say", 1) is None
        with pytest.raises(ValueError, match="history"):
            room.emit("say", 1, key="k")
        server.open.clear()
        pending = asyncio.ensure_future(room.emit("say", 2))
        await until(lambda: server.entered == 2)
        cut(client)
        with pytest.raises(OutcomeUnknownError):
            await pending
        server.open.set()


@pytest.mark.within("client.publishing.PUBLISH_TIMEOUT")
async def test_a_repeat_within_the_window_succeeds() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        for number in range(3):
            cut(client)
            await room.emit("say", number)
        assert await kept(server) == [0, 1, 2]


@pytest.mark.beyond("client.publishing.PUBLISH_TIMEOUT")
async def test_after_the_window_the_outcome_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PUBLISH_TIMEOUT", 0.2)
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        server.open.clear()
        with pytest.raises(OutcomeUnknownError, match=r"not acknowledged within 0\.2 s"):
            await room.emit("say", 1)
        server.open.set()


async def test_closing_the_client_says_what_is_known() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        server.open.clear()
        sent = asyncio.ensure_future(room.emit("say", 1))
        await until(lambda: server.entered == 1)
        await client.close()
        with pytest.raises(OutcomeUnknownError):
            await sent
        with pytest.raises(DisconnectedError):
            await room.emit("say", 2)
        server.open.set()


async def test_leaving_is_in_order_with_publications() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        pending = [asyncio.ensure_future(room.emit("say", number)) for number in range(5)]
        await asyncio.sleep(0)
        await room.leave()
        assert [position.offset for position in await asyncio.gather(*pending) if position] == [1, 2, 3, 4, 5]
        with pytest.raises(RemoteError, match="left"):
            room.emit("say", "late")


async def test_what_was_not_sent_fails_when_the_client_leaves() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        cut(client)
        await until(lambda: client.state != "open")
        pending = asyncio.ensure_future(room.emit("say", 1))
        await asyncio.sleep(0)
        await room.leave()
        with pytest.raises(RemoteError, match="left"):
            await pending
        assert await kept(server) == []


async def test_cancelling_stops_the_waiting_and_not_the_publishing() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        server.open.clear()
        pending = asyncio.ensure_future(room.emit("say", 1))
        await until(lambda: server.entered == 1)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        server.open.set()
        await room.emit("say", 2)
        assert await kept(server) == [1, 2]


async def test_a_failure_that_nothing_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        room.emit("say", "rude")
        await room.emit("say", 1)
        await until(lambda: "be polite" in caplog.text)
        assert "the publication 'say' to 'chat:a'" in caplog.text


async def test_unacknowledged_publications_are_bounded_in_number_and_bytes() -> None:
    server = Server()
    async with opened(server, max_queue=3, max_queue_bytes=5000) as client:
        room = await client.join("chat:a")
        server.open.clear()
        pending = [room.emit("say", number) for number in range(3)]
        with pytest.raises(QueueFullError, match="3 publications wait"):
            room.emit("say", 3)
        server.open.set()
        for each in pending:
            await each
        server.open.clear()
        large = room.emit("say", "x" * 4000)
        with pytest.raises(QueueFullError, match="bytes of publications wait"):
            room.emit("say", "x" * 4000)
        server.open.set()
        await large


async def test_history_is_read_in_pages() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        positions = [
            await server.app.room("chat:a").emit("said", str(number) * 60_000) for number in range(8)
        ]
        assert positions[2] is not None
        await server.app.room("chat:a").emit("said", "edited", replaces=positions[2])
        read = await room.history()
        assert [each.data[0] for each in read] == ["0", "1", "3", "4", "5", "6", "7", "e"]
        assert read[-1].replaces == positions[2]
        assert await room.history(2) == read[-2:]
        assert await room.history(2, before=read[-2].position) == read[-4:-2]
        with pytest.raises(RemoteError, match="position"):
            await room.history(before=Position("other", 1))
        with pytest.raises(ValueError, match="limit"):
            await room.history(0)


async def test_an_edit_names_what_it_replaces_live_and_recovered() -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        published = server.app.room("chat:a")
        first = await published.emit("said", "one")
        second = await published.emit("said", "edited", replaces=first)
        assert await anext(room) == Publication("said", "one", first)
        assert await anext(room) == Publication("said", "edited", second, first)
        cut(client)
        await until(lambda: client.state != "open")
        third = await published.emit("said", "again", replaces=second)
        last = await published.emit("said", "once more", replaces=third)
        assert await anext(room) == Publication("said", "once more", last, first)
        # It follows on without a gap.
        await published.emit("said", "more")
        assert (await anext(room)).data == "more"
        assert room.position == last


def test_the_blocking_client_publishes_and_reads() -> None:
    def make() -> Symphony:
        return Server().app

    with serving(make) as url, sync.connect(f"{url}/") as client, client.join("chat:a") as room:
        first = room.emit("say", 1)
        assert first is not None
        assert first.offset == 1
        assert room.receive(timeout=5) == Publication("say", 1, first)
        assert room.emit("say", 2, volatile=True) is None
        assert [each.data for each in room.history()] == [1]
        with pytest.raises(RemoteError):
            room.emit("shout")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.one_of(st.just("cut"), st.just("turn"), st.just("wait"), st.integers(1, 4)),
        min_size=1,
        max_size=25,
    )
)
async def test_whatever_breaks_each_is_published_once_and_in_order(steps: list[Any]) -> None:
    server = Server()
    async with opened(server) as client:
        room = await client.join("chat:a")
        heard: list[Any] = []
        room.on("say", heard.append)
        pending: list[asyncio.Future[Any]] = []
        for step in steps:
            if step == "cut":
                cut(client)
            elif step == "turn":
                await asyncio.sleep(0)
            elif step == "wait" and pending:
                await pending[-1]
            elif isinstance(step, int):
                pending += [
                    asyncio.ensure_future(room.emit("say", len(pending) + more)) for more in range(step)
                ]
        positions = await asyncio.gather(*pending)
        expected = list(range(len(pending)))
        assert await kept(server) == expected
        assert [position.offset for position in positions] == [number + 1 for number in expected]
        await until(lambda: len(heard) >= len(expected))
        assert heard == expected
