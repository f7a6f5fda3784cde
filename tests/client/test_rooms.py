"""Rooms of a client, beyond the conversations of `client.json`."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from client.opened import opened, pair
from client.scripted import Peer, serve
from support.clients import until
from symphony.client import Client, Pool, Position, Publication, Room, connect
from symphony.client.rooms import MAX_REMEMBERED_ROOMS
from symphony.errors import (
    ConfigurationError,
    DisconnectedError,
    QueueFullError,
    RemoteError,
    RequestTimeoutError,
    WrongRouteError,
)


def at(offset: int, epoch: str = "e") -> dict[str, Any]:
    return {"epoch": epoch, "offset": offset}


async def enter(client: Client, peer: Peer, name: str = "chat:a", offset: int | None = 0) -> Room:
    """Join a room, with a history after this offset; `None`: without one."""
    joining = asyncio.ensure_future(client.join(name))
    frame = await peer.receive()
    assert frame["join"] == name
    await peer.send(joined=name, **({} if offset is None else {"position": at(offset)}))
    await peer.send(reply=frame["id"])
    return await joining


async def publish(
    peer: Peer, data: Any, offset: int | None = None, event: str = "said", room: str = "chat:a"
) -> None:
    more = {} if offset is None else {"offset": offset}
    await peer.send(event=event, data=data, room=room, **more)


@contextmanager
def corked(peer: Peer) -> Iterator[None]:
    """Send what is sent in the block in one write."""
    transport = peer.connection.transport
    written: list[bytes] = []
    peer.connection.transport = Corked(transport, written)
    try:
        yield
    finally:
        peer.connection.transport = transport
        transport.write(b"".join(written))


class Corked:
    """A transport that keeps what is written."""

    def __init__(self, transport: Any, written: list[bytes]) -> None:
        self.write = written.append
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def heard(peer: Peer) -> None:
    """Wait until the client has handled everything that was sent: it answers a request in order with it."""
    await peer.send(event="unknown", id=2**50)
    while (await peer.receive()).get("error") != 2**50:
        pass


# Joining


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        ("", {}, "name of a room"),
        (7, {}, "name of a room"),
        (None, {}, "name of a room"),
        ("a", {"since": "now"}, "since"),
        ("a", {"since": 41}, "since"),
        ("a", {"since": {"epoch": "e", "offset": 1}}, "since"),
        ("a", {"timeout": 0}, "timeout"),
        ("a", {"timeout": float("nan")}, "timeout"),
    ],
)
async def test_a_wrong_argument_is_named(name: Any, options: dict[str, Any], wrong: str) -> None:
    async with pair() as (client, peer, _):
        with pytest.raises(ValueError, match=wrong):
            await client.join(name, **options)
        assert await peer.nothing_came()


async def test_a_raw_client_has_no_rooms() -> None:
    async with serve() as server:
        client = connect(server.url, raw=True)
        peer = await opened(server, client, None)
        with pytest.raises(WrongRouteError, match="raw=True"):
            await client.join("chat:a")
        assert await peer.nothing_came()
        await client.close()


async def test_a_raw_route_has_no_rooms() -> None:
    async with pair("symphony.raw") as (client, _, _):
        with pytest.raises(WrongRouteError, match="raw connection"):
            await client.join("chat:a")


async def test_a_pool_has_no_rooms() -> None:
    async with serve() as server:
        with pytest.raises(ConfigurationError, match="several connections"):
            await Pool(server.url).join("chat:a")


async def test_a_client_that_is_not_open_says_so() -> None:
    client = connect("ws://127.0.0.1:9/")
    with pytest.raises(RuntimeError, match="never opened"):
        await client.join("chat:a")


async def test_a_closed_client_says_so() -> None:
    async with pair() as (client, _, _):
        await client.close()
        with pytest.raises(DisconnectedError):
            await client.join("chat:a")


async def test_a_join_is_not_queued_beyond_the_limit() -> None:
    async with pair(max_queue=1, backoff=5, max_backoff=5) as (client, peer, _):
        await peer.drop()
        await until(lambda: client.state == "waiting")
        client.emit("say")
        with pytest.raises(QueueFullError):
            await client.join("chat:a")


async def test_a_join_that_is_cancelled_is_not_held() -> None:
    async with pair() as (client, peer, server):
        joining = asyncio.ensure_future(client.join("chat:a"))
        frame = await peer.receive()
        joining.cancel()
        assert await peer.receive() == {"cancel": frame["id"]}
        await asyncio.wait((joining,))
        assert joining.cancelled()
        await peer.drop()
        peer = await server.accept()
        await until(lambda: client.state == "open")
        assert await peer.nothing_came()


async def test_a_second_join_waits_no_longer_than_its_timeout() -> None:
    async with pair() as (client, peer, _):
        first = asyncio.ensure_future(client.join("chat:a"))
        frame = await peer.receive()
        with pytest.raises(RequestTimeoutError, match=r"join of 'chat:a'.*0\.05 s"):
            await client.join("chat:a", timeout=0.05)
        await peer.send(joined="chat:a")
        await peer.send(reply=frame["id"])
        assert (await first).name == "chat:a"


async def test_when_the_first_join_is_refused_the_second_asks_itself() -> None:
    async with pair() as (client, peer, _):
        first, second = (asyncio.ensure_future(client.join("chat:a")) for _ in range(2))
        frame = await peer.receive()
        await peer.send(error=frame["id"], data={"code": "forbidden"})
        with pytest.raises(RemoteError, match="forbidden"):
            await first
        frame = await peer.receive()
        await peer.send(joined="chat:a", position=at(3))
        await peer.send(reply=frame["id"])
        assert (await second).position == Position("e", 3)


# Handlers


async def test_handlers_of_the_room_and_of_the_client_keep_the_order_of_arrival() -> None:
    log: list[Any] = []
    go = asyncio.Event()
    async with pair() as (client, peer, _):
        room = await enter(client, peer)

        @room.on("said")
        async def said(data: int) -> None:
            await go.wait()
            log.append(("room", data))

        @client.on("said")
        def plain(data: int) -> None:
            log.append(("client", data))

        await publish(peer, 1, 1)
        await peer.send(event="said", data=2)
        await publish(peer, 3, 2)
        await heard(peer)
        assert log == []
        go.set()
        await until(lambda: len(log) == 3)
        assert log == [("room", 1), ("client", 2), ("room", 3)]


async def test_the_position_moves_when_the_handlers_have_returned() -> None:
    go = asyncio.Semaphore(0)
    async with pair() as (client, peer, _):
        room = await enter(client, peer, offset=5)
        for _ in range(2):
            room.on("said", lambda: go.acquire())
        await publish(peer, 1, 6)
        await publish(peer, 2, 7)
        await heard(peer)
        for permits, position in enumerate([5, 5, 6, 6, 7]):
            await until(lambda position=position: room.position == Position("e", position))
            assert await peer.nothing_came()
            assert room.position == Position("e", position)
            if permits < 4:
                go.release()


async def test_a_publication_that_is_being_handled_comes_only_once() -> None:
    log: list[int] = []
    go = asyncio.Event()
    async with pair() as (client, peer, server):
        room = await enter(client, peer)

        @room.on("said")
        async def said(data: int) -> None:
            await go.wait()
            log.append(data)

        for offset in (1, 2, 3):
            await publish(peer, offset, offset)
        await heard(peer)
        assert room.position == Position("e", 0)
        await peer.drop()
        peer = await server.accept()
        frame = await peer.receive()
        # It has taken three, which wait in its queue.
        assert frame["since"] == at(3)
        await peer.send(joined="chat:a", position=at(3), recovered=True)
        await peer.send(reply=frame["id"])
        for offset in (2, 3, 4):
            await publish(peer, offset, offset)
        go.set()
        await until(lambda: room.position == Position("e", 4))
        assert log == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), GeneratorExit()])
async def test_a_handler_that_fails_does_not_stop_the_room(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[int] = []
    async with pair() as (client, peer, _):
        room = await enter(client, peer)

        @room.on("said")
        def fail() -> None:
            raise error

        room.on("said", lambda data: log.append(data))
        await publish(peer, 1, 1)
        await publish(peer, 2, 2)
        await until(lambda: room.position == Position("e", 2))
        assert log == [1, 2]
    assert "fail of the event 'said' failed" in caplog.text


async def test_data_has_the_type_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    log: list[int] = []
    async with pair() as (client, peer, _):
        room = await enter(client, peer)

        @room.on("said")
        def said(data: int) -> None:
            log.append(data)

        for offset, data in enumerate(["one", 2, None, 4], start=1):
            await publish(peer, data, offset)
        await until(lambda: room.position == Position("e", 4))
        assert log == [2, 4]
    assert "does not fit" in caplog.text


async def test_a_star_takes_every_event_without_another_handler_of_the_room() -> None:
    log: list[Any] = []
    async with pair() as (client, peer, _):
        client.on("said", lambda data: log.append("the client's"))
        room = await enter(client, peer)
        room.on("*", lambda event, data: log.append((event, data)))
        room.on("noticed", lambda data: log.append(data))
        await publish(peer, 1, 1)
        await publish(peer, 2, 2, "noticed")
        await publish(peer, 3, event="typing")
        await until(lambda: len(log) == 3)
        assert log == [("said", 1), 2, ("typing", 3)]


async def test_a_removed_handler_is_not_called() -> None:
    log: list[Any] = []
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        room.on("said", log.append)
        room.off("said", log.append)
        client.on("said", lambda data: log.append(("client", data)))
        await publish(peer, 1, 1)
        await until(lambda: log == [("client", 1)])


@pytest.mark.parametrize("wrong", [lambda a, b: None, "text", 7])
async def test_a_wrong_handler_is_refused(wrong: Any) -> None:
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        with pytest.raises(ConfigurationError):
            room.on("said", wrong)


async def test_what_comes_before_the_first_handler_is_kept_for_it_in_order() -> None:
    log: list[Any] = []
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        for offset, event in enumerate(("said", "noticed", "said"), start=1):
            await publish(peer, offset, offset, event)
        await heard(peer)
        room.on("noticed", lambda data: log.append(("noticed", data)))
        room.on("said", lambda data: log.append(("said", data)))
        await until(lambda: len(log) == 3)
        assert log == [("said", 1), ("noticed", 2), ("said", 3)]


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("history", [True, False])
async def test_nothing_is_lost_between_the_join_and_the_handlers(history: bool, codec: Any) -> None:
    """Everything may arrive with the answer to the join: in one read, before the program has the room."""
    async with pair(protocol=codec) as (client, peer, _):
        log: list[Any] = []
        client.on("said", lambda data: log.append(("client", data)))

        async def use() -> None:
            room = await client.join("chat:a", since=Position("e", 1) if history else None)
            for event in ("snapshot", "said", "typing"):
                room.on(event, lambda data, event=event: log.append((event, data)))
            room.on_lost(lambda position: log.append(("lost", position.offset)))
            room.on_presence(lambda presence: log.append("presence"))
            assert list(room.presence) == ["ann", "bob"]

        joining = asyncio.ensure_future(use())
        asked = await peer.receive()
        where: dict[str, Any] = {"position": at(3), "recovered": False} if history else {}
        members = {"epoch": "k", "version": 1, "total": 1, "list": [{"id": "ann", "info": None}]}
        frames: list[dict[str, Any]] = [
            {"joined": "chat:a", **where, "snapshot": "drawn", "members": members},
            {"reply": asked["id"], "data": None},
            {"event": "said", "room": "chat:a", "data": "one", **({"offset": 4} if history else {})},
            {"event": "typing", "room": "chat:a", "data": "not kept"},
            {"event": "said", "room": "chat:a", "data": "two", **({"offset": 5} if history else {})},
        ]
        if history:
            frames.append({"lost": "chat:a", "position": at(9), "snapshot": "drawn again"})
            frames.append({"event": "said", "room": "chat:a", "data": "ten", "offset": 10})
        frames.append(
            {
                "presence": "chat:a",
                "diff": {
                    "epoch": "k",
                    "from": 1,
                    "to": 2,
                    "total": 2,
                    "changed": [{"id": "bob", "info": None}],
                    "gone": [],
                },
            }
        )
        # One write, so that the client reads them together.
        with corked(peer):
            for frame in frames:
                await peer.say(frame)
        await joining
        await heard(peer)
        between: list[Any] = [("lost", 9), ("snapshot", "drawn again"), ("said", "ten")] if history else []
        first: list[Any] = [("lost", 3)] if history else []
        expected = [*first, ("snapshot", "drawn"), ("said", "one"), ("typing", "not kept"), ("said", "two")]
        await until(lambda: log == [*expected, *between])


async def test_handlers_that_are_registered_later_get_what_was_kept_for_them() -> None:
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        for offset in (1, 2):
            await publish(peer, f"{offset}", offset)
        await heard(peer)
        log: list[Any] = []
        room.on("said", log.append)
        await publish(peer, "3", 3)
        await until(lambda: log == ["1", "2", "3"])


async def test_handlers_of_the_client_are_there_before_it_connects() -> None:
    """They take what is published to each room, if its own handlers do not."""
    log: list[Any] = []

    def register(client: Client) -> None:
        client.on("said", lambda data: log.append(("client", data)))

    async with pair(register=register) as (client, peer, _):
        # The app puts the client into a room before the program does anything.
        await peer.send(joined="chat:served", position=at(0))
        await publish(peer, "served", 1, room="chat:served")
        await until(lambda: log == [("client", "served")])
        room = await enter(client, peer)
        await publish(peer, "joined", 1)
        await until(lambda: log[1:] == [("client", "joined")])
        room.on("said", lambda data: log.append(("room", data)))
        await publish(peer, "own", 2)
        await until(lambda: log[2:] == [("room", "own")])


async def test_what_a_program_takes_in_no_way_is_dropped_once_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[Any] = []
    async with pair(max_queue=3, register=lambda client: client.on("said", log.append)) as (client, peer, _):
        room = await enter(client, peer)
        for offset in range(1, 30, 2):
            await publish(peer, offset, offset, "typing")
            await publish(peer, offset + 1, offset + 1)
        await until(lambda: len(log) == 15)
        # The client's handler has missed nothing because of it.
        assert log == list(range(2, 31, 2))
        await until(lambda: room.position == Position("e", 30))
    told = [record for record in caplog.records if "neither registered a handler" in record.message]
    assert len(told) == 1


async def test_after_leave_returns_no_handler_is_called() -> None:
    log: list[Any] = []
    go = asyncio.Event()
    async with pair() as (client, peer, _):
        room = await enter(client, peer)

        @client.on("wait")
        async def wait() -> None:
            await go.wait()

        room.on("said", log.append)
        await peer.send(event="wait")
        await publish(peer, 1, 1)
        leaving = asyncio.ensure_future(room.leave())
        frame = await peer.receive()
        await publish(peer, 2, 2)
        await peer.send(left="chat:a", data={"code": "left"})
        await peer.send(reply=frame["id"], data=True)
        await leaving
        go.set()
        done = asyncio.Event()
        client.on("done", done.set)
        await peer.send(event="done")
        await done.wait()
        assert log == []
        assert isinstance(room.ended, RemoteError)
        await room.leave()
        assert await peer.nothing_came()


async def test_a_block_leaves_the_room() -> None:
    async with pair() as (client, peer, _):
        room = await enter(client, peer)

        async def block() -> None:
            async with room:
                pass

        leaving = asyncio.ensure_future(block())
        frame = await peer.receive()
        assert frame["leave"] == "chat:a"
        await peer.send(reply=frame["id"], data=True)
        await leaving
        assert room.ended is not None


async def test_a_leave_without_an_answer_raises_and_the_room_is_not_held() -> None:
    async with pair(request_timeout=0.1) as (client, peer, server):
        room = await enter(client, peer)
        with pytest.raises(RequestTimeoutError, match="leave of 'chat:a'"):
            await room.leave()
        await peer.drop()
        peer = await server.accept()
        await until(lambda: client.state == "open")
        assert await peer.nothing_came()


async def test_the_program_is_told_that_the_server_has_ended_the_membership(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[Any] = []
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        room.on("said", log.append)
        room.on_left(log.append)
        await publish(peer, 1, 1)
        await peer.send(left="chat:a", data={"code": "removed", "message": "banned"})
        await until(lambda: len(log) == 2)
        assert log[0] == 1
        assert log[1] is room.ended
        assert log[1].code == "removed"
    assert "banned" in caplog.text


async def test_a_closed_client_ends_its_rooms() -> None:
    async with pair() as (client, peer, _):
        room, other = await enter(client, peer), await enter(client, peer, "chat:b")
        iterating = asyncio.ensure_future(anext(room, None))
        await asyncio.sleep(0)
        await client.close()
        assert await iterating is None
        assert isinstance(room.ended, DisconnectedError)
        assert isinstance(other.ended, DisconnectedError)


async def test_a_client_that_has_ended_by_an_error_raises_it_in_the_iteration() -> None:
    async with pair(reconnect=False) as (client, peer, _):
        room = await enter(client, peer)
        await publish(peer, 1, 1)
        await heard(peer)
        await peer.close(4000, "enough")
        await client.wait_closed()
        assert await anext(room) == Publication("said", 1, Position("e", 1))
        for _ in range(2):
            with pytest.raises(DisconnectedError) as raised:
                await anext(room)
            assert raised.value.code == 4000


# Iterations


async def test_a_slow_iteration_gets_the_rest_from_the_history() -> None:
    async with pair(max_queue=3) as (client, peer, _):
        room = await enter(client, peer)
        aiter(room)
        for offset in range(1, 8):
            await publish(peer, offset, offset)
        await heard(peer)
        assert [(await anext(room)).data for _ in range(3)] == [1, 2, 3]
        following = asyncio.ensure_future(anext(room))
        frame = await peer.receive()
        assert frame["since"] == at(3)
        await peer.send(joined="chat:a", position=at(3), recovered=True)
        await peer.send(reply=frame["id"])
        for offset in range(4, 8):
            await publish(peer, offset, offset)
        assert (await following).data == 4
        assert [(await anext(room)).data for _ in range(2)] == [5, 6]
        assert room.dropped == 0
        following = asyncio.ensure_future(anext(room))
        frame = await peer.receive()
        assert frame["since"] == at(6)
        await peer.send(joined="chat:a", position=at(20), recovered=False)
        await publish(peer, 21, 21)
        assert (await following).data == 21


async def test_a_slow_iteration_does_not_stop_the_connection_and_what_is_not_kept_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(max_queue=3) as (client, peer, _):
        room = await enter(client, peer, offset=None)
        aiter(room)
        for number in range(10):
            await publish(peer, number)
        await heard(peer)
        assert room.dropped == 7
        assert [(await anext(room)).data for _ in range(3)] == [0, 1, 2]
    assert "7 publications" not in caplog.text
    assert "4 publications of the room 'chat:a' were dropped" in caplog.text


async def test_a_slow_iteration_is_limited_in_bytes() -> None:
    async with pair(max_queue_bytes=1000) as (client, peer, _):
        room = await enter(client, peer, offset=None)
        aiter(room)
        for _ in range(5):
            await publish(peer, "x" * 400)
        await heard(peer)
        assert room.dropped == 2


async def test_a_loss_is_told_where_it_is_in_the_iteration() -> None:
    log: list[Any] = []
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        aiter(room)

        @room.on_lost
        async def lost(position: Position) -> None:
            await asyncio.sleep(0)
            log.append(position)

        await publish(peer, 1, 1)
        await peer.send(lost="chat:a", position=at(7))
        await peer.send(lost="chat:a", position=at(8))
        await publish(peer, 9, 9)
        await heard(peer)
        log.append((await anext(room)).data)
        log.append((await anext(room)).data)
        assert log == [1, Position("e", 8), 9]


async def test_a_loss_without_a_function_for_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        room.on("said", lambda: None)
        await peer.send(lost="chat:a", position=at(7))
        await until(lambda: "are lost" in caplog.text)


async def test_the_iteration_may_be_left_and_continued() -> None:
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        log: list[Any] = []
        for offset in range(1, 4):
            await publish(peer, offset, offset)
        for _ in range(3):
            async for publication in room:
                log.append(publication.data)
                break
        assert log == [1, 2, 3]


async def test_two_tasks_cannot_wait_in_one_iteration() -> None:
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        first = asyncio.ensure_future(anext(room))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="Another task"):
            await anext(room)
        await publish(peer, 1, 1)
        assert (await first).data == 1


async def test_a_handler_may_iterate_over_its_room() -> None:
    """The publications do not pass through the queue of the handler that waits for them."""
    log: list[Any] = []

    def register(client: Client) -> None:
        @client.on("start")
        async def start() -> None:
            room = await client.join("chat:a")
            async for publication in room:
                log.append(publication.data)
                if len(log) == 2:
                    break

    async with pair(register=register) as (_, peer, _):
        await peer.send(event="start")
        frame = await peer.receive()
        await peer.send(joined="chat:a", position=at(0))
        await peer.send(reply=frame["id"])
        await publish(peer, 1, 1)
        await publish(peer, 2, 2)
        await until(lambda: log == [1, 2])


# Rooms that the server puts the client into


@pytest.mark.within("client.rooms.MAX_REMEMBERED_ROOMS")
async def test_the_positions_in_so_many_rooms_are_remembered() -> None:
    async with pair() as (_, peer, server):
        for number in range(MAX_REMEMBERED_ROOMS):
            await peer.send(joined=f"room:{number}", position=at(1))
        await heard(peer)
        await peer.drop()
        peer = await server.accept()
        await peer.send(joined="room:0", position=at(5))
        await heard_joins(peer, ["room:0"])


@pytest.mark.beyond("client.rooms.MAX_REMEMBERED_ROOMS")
async def test_positions_are_remembered_for_so_many_rooms_only(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (_, peer, server):
        for number in range(MAX_REMEMBERED_ROOMS + 2):
            await peer.send(joined=f"room:{number}", position=at(1))
        await heard(peer)
        await peer.drop()
        peer = await server.accept()
        for number in (2, MAX_REMEMBERED_ROOMS + 1, 0, 1):
            await peer.send(joined=f"room:{number}", position=at(5))
        await heard_joins(peer, ["room:2", f"room:{MAX_REMEMBERED_ROOMS + 1}"])
    told = [record for record in caplog.records if "more than 1000 rooms" in record.message]
    assert len(told) == 1


async def heard_joins(peer: Peer, rooms: list[str]) -> None:
    assert [(await peer.receive())["join"] for _ in rooms] == rooms
    assert await peer.nothing_came()


async def test_a_room_that_cannot_be_recovered_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    async with pair(register=lambda client: client.on("said", log.append)) as (_, peer, server):
        await peer.send(joined="chat:a", position=at(1))
        await publish(peer, 2, 2)
        await until(lambda: log == [2])
        await peer.drop()
        peer = await server.accept()
        await peer.send(joined="chat:a", position=at(5))
        frame = await peer.receive()
        assert frame["since"] == at(2)
        await peer.send(error=frame["id"], data={"code": "forbidden", "message": "no"})
        await publish(peer, 6, 6)
        await until(lambda: log == [2, 6])
    assert "is lost" in caplog.text


async def test_a_program_joins_a_room_that_the_server_has_put_the_client_into() -> None:
    log: list[Any] = []
    async with pair(register=lambda client: client.on("said", log.append)) as (client, peer, _):
        await peer.send(joined="chat:a", position=at(1))
        await publish(peer, "before", 2)
        await until(lambda: log == ["before"])
        joining = asyncio.ensure_future(client.join("chat:a"))
        frame = await peer.receive()
        # Nothing between the two is missed.
        assert frame["since"] == at(2)
        await peer.send(joined="chat:a", position=at(2), recovered=True)
        await peer.send(reply=frame["id"])
        room = await joining
        room.on("said", lambda data: log.append(("room", data)))
        await publish(peer, "after", 3)
        await until(lambda: log == ["before", ("room", "after")])


# Faults of a server


async def test_a_server_that_leaves_gaps_is_asked_once_at_a_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(backoff=0.05, max_backoff=0.05) as (client, peer, _):
        room = await enter(client, peer)
        room.on("said", lambda: None)
        for _ in range(3):
            await publish(peer, "late", 9)
            frame = await peer.receive()
            assert frame["since"] == at(0)
            # Meanwhile, further gaps do not cause further joins.
            for _ in range(20):
                await publish(peer, "late", 9)
            assert await peer.nothing_came()
            await peer.send(joined="chat:a", position=at(0), recovered=True)
            await peer.send(reply=frame["id"])
        assert room.position == Position("e", 0)
    assert caplog.text.count("something of the room 'chat:a' is missing") == 3


@pytest.mark.parametrize(
    "frame",
    [
        {"joined": "", "position": at(1)},
        {"joined": "chat:a", "position": {"epoch": "e"}},
        {"lost": "chat:a"},
        {"lost": "chat:b", "position": at(1)},
        {"left": "chat:b", "data": None},
        {"join": "chat:a", "id": 1},
        {"leave": "chat:a", "id": 1},
        {"event": "said", "data": 1, "room": "chat:a", "offset": -1},
        {"event": "said", "data": 1, "room": "chat:a", "offset": 1, "epoch": ""},
        {"event": "said", "data": 1, "room": ""},
    ],
)
async def test_what_a_server_must_not_send_does_no_harm(frame: dict[str, Any]) -> None:
    log: list[Any] = []
    async with pair() as (client, peer, _):
        room = await enter(client, peer)
        room.on("said", log.append)
        await peer.say(frame)
        await publish(peer, "next", 1)
        await until(lambda: log == ["next"])
        assert room.position == Position("e", 1)


async def test_an_overflow_of_the_handlers_loses_nothing_of_a_room(caplog: pytest.LogCaptureFixture) -> None:
    """While a handler waits for an answer, the client reads on, up to 32 times its limit."""
    caplog.set_level(logging.ERROR)
    log: list[int] = []
    answer: list[Any] = []
    async with pair(max_queue=2) as (client, peer, server):
        room = await enter(client, peer)

        @room.on("said")
        async def said(data: int) -> None:
            if data == 1:
                try:
                    answer.append(await client.request("ask"))
                except DisconnectedError:
                    answer.append(None)
            log.append(data)

        await publish(peer, 1, 1)
        assert (await peer.receive())["event"] == "ask"
        for offset in range(2, 100):
            await publish(peer, offset, offset)
        peer = await server.accept()
        frame = await peer.receive()
        since = frame["since"]["offset"]
        assert 32 < since < 99
        await peer.send(joined="chat:a", position=at(since), recovered=True)
        await peer.send(reply=frame["id"])
        for offset in range(since + 1, 101):
            await publish(peer, offset, offset)
        await until(lambda: len(log) == 100)
        assert log == list(range(1, 101))
        assert answer == [None]
