"""Links over streams."""

from __future__ import annotations

import asyncio
import threading

import pytest

from symphony import BrokerUnavailableError, ConfigurationError, Limits
from symphony.broker import ipc, streams
from symphony.broker.base import Broker
from symphony.broker.engines import check, open_broker, serve
from symphony.broker.links import Link, LinkEnd
from symphony.broker.memory import MemoryBroker

LIMITS = Limits()


class End:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.began = False
        self.messages: list[bytes] = []
        self.last = asyncio.Event()
        self.ended = asyncio.Event()

    def received(self, message: bytes) -> None:
        self.messages.append(message)
        if message == b"you":
            self.last.set()

    def lost(self) -> None:
        self.ended.set()


async def at_end(reader: asyncio.StreamReader) -> bool:
    """Return whether the connection ends, without a byte."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def guarded(token: bytes, end: End) -> asyncio.Server:
    def begin(link: Link) -> LinkEnd:
        end.began = True
        return end

    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: streams.GuardedStream(begin, token), "127.0.0.1", 0)


@pytest.mark.within("broker.streams._TOKEN_TIMEOUT")
async def test_the_token_comes_first_in_as_many_pieces_as_it_likes() -> None:
    end = End()
    async with await guarded(b"secret", end) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for piece in (b"sec", b"ret\0\0\0\2h", b"i\0\0\0\0\0\0\0", b"\3you"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await end.last.wait()
        assert end.messages == [b"hi", b"", b"you"]
        writer.close()
        await end.ended.wait()


async def test_a_wrong_token_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    end = End()
    async with await guarded(b"secret", end) as server:
        for wrong in (b"Secret", b"\0\0\0\0\0\0\0\0"):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(wrong)
            assert await at_end(reader)
            writer.close()
        assert not end.began
    assert "wrong token" in caplog.text


@pytest.mark.beyond("broker.streams._TOKEN_TIMEOUT")
async def test_a_connection_without_a_token_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_TOKEN_TIMEOUT", 0.05)
    async with await guarded(b"secret", End()) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await at_end(reader)
        writer.close()


async def test_a_message_that_is_too_large_ends_the_link(caplog: pytest.LogCaptureFixture) -> None:
    end = End()
    async with await guarded(b"t", end) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"t\xff\xff\xff\xff")
        await end.ended.wait()
        writer.close()
    assert "too large" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "", "memory", "memory://name", "redis//x", "kafka://x", "ipc://", "ipc://name", "ipc:///",
        "ipc://127.0.0.1:1", "ipc://127.0.0.1:x/token", "ipc:/path",
    ],
)  # fmt: skip
def test_a_wrong_url_is_a_mistake_of_the_app(url: str) -> None:
    with pytest.raises(ConfigurationError):
        check(url)


def test_the_token_of_a_url_is_not_in_the_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check("ipc://127.0.0.1:99999999/secret")
    assert "secret" not in str(caught.value)


async def test_a_broker_that_is_not_there_is_named() -> None:
    with pytest.raises(BrokerUnavailableError):
        await open_broker("ipc:///nowhere/broker", Limits(publish_timeout=0.1))


def test_what_is_served_lives_in_this_process() -> None:
    with pytest.raises(ConfigurationError, match="another process"):
        serve("ipc:///nowhere/broker", LIMITS)


@pytest.mark.within("broker.ipc._STOP_TIMEOUT")
def test_a_served_broker_stops() -> None:
    before = threading.active_count()
    served = serve("memory://", LIMITS)
    assert threading.active_count() == before + 1
    served.close()
    assert threading.active_count() == before
    served.close()


@pytest.mark.beyond("broker.ipc._STOP_TIMEOUT")
def test_a_broker_that_does_not_stop_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ipc, "_STOP_TIMEOUT", 0.05)
    release = threading.Event()

    class Slow(MemoryBroker):
        def close(self) -> None:
            release.wait(10)
            super().close()

    async def make() -> Broker:
        return Slow(max_bytes=1000)

    served = ipc.serve(make)
    served.close()
    assert "did not stop" in caplog.text
    release.set()
    monkeypatch.setattr(ipc, "_STOP_TIMEOUT", 10)
    served.close()


def test_a_broker_that_cannot_be_made_says_why() -> None:
    async def make() -> Broker:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        ipc.serve(make)
