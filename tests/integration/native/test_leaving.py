"""Clients that vanish, at every stage, and what is left of them."""

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest

from support.clients import Log, until
from support.raw import CLOSE, TEXT, Frame, RawClient, close, connect, dial, frame, handshake, text
from symphony import Close, DisconnectedError, Limits, Reject, Socket, Symphony

Vanish = Callable[[RawClient], None]


def fin(client: RawClient) -> None:
    client.finish()


def rst(client: RawClient) -> None:
    client.reset()


both = pytest.mark.parametrize("vanish", [fin, rst])


class Journal:
    """An app that writes down what happens, and lets a test stop it at each stage."""

    def __init__(self, **limits) -> None:
        self.app = app = Symphony(limits=Limits(**limits))
        self.log: Log = Log()
        self.connecting = asyncio.Event()
        self.connecting.set()
        self.handling = asyncio.Event()
        self.handling.set()
        self.refuse = False

        @app.on_connect
        async def enter(socket: Socket) -> None:
            self.log.append("connect")
            await self.connecting.wait()
            if self.refuse:
                raise Reject("forbidden")
            await socket.join("lobby")
            await socket.join(socket.id)

        @app.on_message
        async def handle(socket: Socket, message: str) -> str:
            self.log.append(message)
            await self.handling.wait()
            self.log.append(f"{message} done")
            return message

        @app.on_disconnect
        async def leave(socket: Socket, close: Close) -> None:
            # It has left them, so that nothing that is said in the meantime is for it.
            assert not socket.rooms
            self.log.append(("disconnect", close.code, close.clean))


@both
@pytest.mark.parametrize("said", [b"", b"GET / HT", handshake()[:-2]])
async def test_a_client_that_goes_during_its_handshake_leaves_nothing(native, vanish: Vanish, said: bytes):
    journal = Journal()
    async with native(journal.app) as url:
        for _ in range(5):
            async with await dial(url) as client:
                await client.send(said)
                await asyncio.sleep(0)
                vanish(client)
    assert journal.log == []


@both
async def test_a_connect_handler_is_cancelled_when_its_client_goes(native, vanish: Vanish):
    journal = Journal()
    journal.connecting.clear()
    async with native(journal.app) as url, await dial(url) as client:
        await client.send(handshake(), text("early"))
        await journal.log.reaches(1)
        vanish(client)
        await journal.log.reaches(2)
    assert journal.log == ["connect", ("disconnect", 1006, False)]
    assert journal.app.stats.opened == 0


@both
async def test_a_client_that_goes_just_before_it_is_refused_does_no_harm(native, vanish: Vanish):
    journal = Journal()
    journal.connecting.clear()
    journal.refuse = True
    async with native(journal.app) as url, await dial(url) as client:
        await client.send(handshake())
        await journal.log.reaches(1)
        # In one iteration: the server hears of both, in either order.
        vanish(client)
        journal.connecting.set()
        await journal.log.reaches(2)
    assert [entry if isinstance(entry, str) else entry[0] for entry in journal.log] == [
        "connect",
        "disconnect",
    ]


@both
async def test_a_handler_finishes_after_its_client_has_gone(native, vanish: Vanish):
    journal = Journal()
    journal.handling.clear()
    async with native(journal.app) as url, connect(url) as client:
        await client.send(text("a"), text("b"))
        await journal.log.reaches(2)
        vanish(client)
        await until(lambda: not next(iter(journal.app._core.node._sessions)).socket.connected)
        journal.handling.set()
        await journal.log.reaches(6)
    assert journal.log == ["connect", "a", "a done", "b", "b done", ("disconnect", 1006, False)]


async def test_a_handler_that_does_not_end_is_cancelled_after_finish_timeout(native, complaints):
    journal = Journal(finish_timeout=0.1)
    journal.handling.clear()
    async with native(journal.app) as url:
        async with connect(url) as client:
            await client.send(text("a"), text("b"), text("c"))
            await journal.log.reaches(2)
            client.reset()
            await journal.log.reaches(3)
        complaints.clear()
    assert journal.log == ["connect", "a", ("disconnect", 1006, False)]


@pytest.mark.within("finish_timeout")
async def test_what_cut_a_handler_short_does_not_cut_its_disconnect_handler_short(native):
    """The clock for handlers ran on after they had ended, and cancelled whatever the
    socket's task was doing then: its disconnect handler, or waiting for the client's
    close frame.
    """
    app = Symphony(limits=Limits(finish_timeout=0.2))
    log: Log = Log()
    handling = asyncio.Event()

    @app.on_message
    async def handle(message: str) -> None:
        log.append(message)
        await asyncio.sleep(0.1)
        handling.set()

    @app.on_disconnect
    async def leave() -> None:
        log.append("leaving")
        await asyncio.sleep(0.15)
        log.append("left")

    async with native(app) as url, connect(url) as client:
        await client.send(text("a"))
        await log.reaches(1)
        client.reset()
        await log.reaches(3)
    assert log == ["a", "leaving", "left"]


@pytest.mark.within("close_timeout")
async def test_a_stop_waits_for_the_close_frame_of_a_client_whose_handler_was_running(native):
    """The same clock ended the wait for the client's answer to our 1012."""
    app = Symphony(limits=Limits(finish_timeout=0.15, close_timeout=5))
    closes: list[Close] = []
    handling = asyncio.Event()
    go = asyncio.Event()

    @app.on_message
    async def handle(message: str) -> None:
        handling.set()
        await go.wait()

    @app.on_disconnect
    async def leave(close: Close) -> None:
        closes.append(close)

    async def answer(client: RawClient) -> None:
        assert (await client.frame()).code == 1012
        await asyncio.sleep(0.3)
        await client.send(close(1012))
        assert await client.at_end()

    async with native(app) as url:
        client = await dial(url)
        await client.open(handshake())
        await client.send(text("a"))
        await handling.wait()
        answering = asyncio.ensure_future(answer(client))
        asyncio.get_running_loop().call_later(0.05, go.set)
    await answering
    await client.aclose()
    assert closes == [Close(1012, "the server restarts", clean=True)]


async def test_a_half_closed_client_is_let_go_even_if_it_reads_nothing(native):
    """An end of file closes the transport once its buffer is written; a client that
    never reads kept it, and without heartbeat nothing ever looked again.
    """
    app = Symphony(limits=Limits(ping_interval=None, close_timeout=0.2, max_outbox_bytes=50_000_000))

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send(b"x" * 20_000_000)

    async with native(app) as url, connect(url, buffer=4096) as client:
        client.finish()
        await until(lambda: not app._core.node._sessions)


async def test_a_half_closed_client_still_gets_what_was_on_its_way(native):
    app = Symphony(limits=Limits(max_message_bytes=3_000_000, max_outbox_bytes=10_000_000))

    @app.on_message
    async def echo(message: bytes) -> bytes:
        return message

    async with native(app) as url, connect(url) as client:
        await client.send(frame(2, b"x" * 50_000))
        client.finish()
        assert (await client.frame()).payload == b"x" * 50_000
        assert await client.at_end()


@both
async def test_a_client_that_goes_during_our_close_is_gone_at_once(native, vanish: Vanish):
    app = Symphony(limits=Limits(close_timeout=60))
    closes: Log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("x")
        socket.close(4000, "enough")

    @app.on_disconnect
    async def leave(close: Close) -> None:
        closes.append(close)

    async with native(app) as url, connect(url) as client:
        assert await client.message() == "x"
        assert (await client.frame()).code == 4000
        vanish(client)
        await closes.reaches(1)
    assert closes == [Close(4000, "enough", clean=False)]


async def test_a_client_that_does_not_answer_our_close_is_cut_after_close_timeout(native):
    app = Symphony(limits=Limits(close_timeout=0.1))
    closes: Log = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("x")
        socket.close(4000)

    @app.on_disconnect
    async def leave(close: Close) -> None:
        closes.append(close)

    async with native(app) as url, connect(url) as client:
        await closes.reaches(1)
        # Whatever it says but a close frame is not heard, and stretches nothing.
        await client.send(text("please"))
    assert closes == [Close(4000, "", clean=False)]


async def test_a_stop_during_our_close_reads_the_answer_to_it(native):
    """A stopping server paused reading on every socket, and never went on where a
    close was under way: the answer stood unread until `close_timeout`.
    """
    app = Symphony(limits=Limits(close_timeout=60))
    closes: list[Close] = []

    @app.on_message
    async def leave(socket: Socket, message: str) -> None:
        socket.close(4000)

    @app.on_disconnect
    async def left(close: Close) -> None:
        closes.append(close)

    async def answer(client: RawClient) -> None:
        (session,) = app._core.node._sessions
        # The stop pauses reading in the step that sets this.
        await until(lambda: session._draining)
        await client.send(close(4000))
        assert await client.at_end()

    async with native(app) as url:
        client = await dial(url)
        await client.open(handshake())
        await client.send(text("go"))
        assert (await client.frame()).code == 4000
        answering = asyncio.ensure_future(answer(client))
    await answering
    await client.aclose()
    assert closes == [Close(4000, "", clean=True)]


@both
async def test_vanishing_in_the_middle_of_a_frame_leaves_nothing(native, vanish: Vanish):
    journal = Journal()
    async with native(journal.app) as url:
        async with connect(url) as client:
            await client.send(frame(TEXT, b"x" * 100_000)[:50_000])
            vanish(client)
        async with connect(url) as client:
            await client.send(frame(TEXT, b"a", fin=False))
            vanish(client)
        await until(lambda: len([entry for entry in journal.log if entry != "connect"]) == 2)


async def test_a_connect_handler_that_will_not_be_cancelled_does_not_open_a_dead_socket(native):
    app = Symphony()
    log: Log = Log()
    go = asyncio.Event()

    @app.on_connect
    async def stubborn(socket: Socket) -> None:
        log.append("connect")
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                log.append("cancelled")
        socket.send("too late")
        assert not socket.connected
        with pytest.raises(DisconnectedError):
            await socket.join("lobby")
        log.append("end")

    @app.on_disconnect
    async def leave() -> None:
        log.append("disconnect")

    async with native(app) as url, await dial(url) as client:
        await client.send(handshake())
        await log.reaches(1)
        client.reset()
        await log.reaches(2)
        go.set()
        await log.reaches(4)
    assert log == ["connect", "cancelled", "end", "disconnect"]
    assert app.stats.opened == app.stats.closed == 0


@pytest.mark.parametrize("way", ["in order", "reset", "failed", "refused", "slow"])
async def test_nothing_of_a_connection_outlives_it(native, way: str):
    """Sockets, connections, parsers and tasks refer to each other; something else
    that refers to one of them keeps them all.
    """
    app = Symphony()
    born: list[weakref.ref[object]] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        born.append(weakref.ref(socket._connection))
        if way == "refused":
            raise Reject("forbidden")
        await socket.join("lobby")

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        await asyncio.sleep(0)
        return message

    async with native(app) as url:
        for _ in range(20):
            async with await dial(url) as client:
                await client.send(handshake())
                if (await client.response()).status != 101:
                    assert await client.at_end()
                    continue
                await client.send(text("a"))
                assert await client.message() == "a"
                if way == "in order":
                    await client.send(close())
                    assert await client.rest() == [Frame(CLOSE, b"\x03\xe8")]
                elif way == "failed":
                    await client.send(b"\xff" * 9)
                    assert (await client.frame()).code == 1002
                    assert await client.at_end()
                else:
                    client.reset()
        assert len(born) == 20
        await until(lambda: gc.collect() is not None and not any(ref() for ref in born))
