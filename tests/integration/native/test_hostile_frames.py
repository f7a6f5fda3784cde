"""Raw bytes that no honest client sends, and honest ones in the strangest order."""

import asyncio
import gc
import tracemalloc
from contextlib import suppress

import pytest

from support.clients import until
from support.echo import echo_app
from support.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    close,
    connect,
    frame,
    resident_bytes,
    text,
)
from support.sizes import size
from symphony import Close, Limits, Socket, Symphony


async def closed_with(client: RawClient, *said: bytes) -> int:
    """Say something that fails the connection; return the close code, the last that comes."""
    await client.send(*said)
    frames = await client.rest()
    assert [got.opcode for got in frames] == [CLOSE], frames
    return frames[0].code


def lawful(opcode: int, fin: bool, rsv: int) -> bool:
    """Tell whether a frame may stand first on a connection without extensions."""
    if rsv or opcode not in (TEXT, BINARY, CLOSE, PING, PONG):
        return False
    return fin or opcode < 8


@pytest.mark.parametrize("opcode", range(16))
async def test_every_first_frame_is_taken_or_refused(native, opcode: int):
    """16 opcodes, with and without FIN, and all RSV bits; the RFC decides which."""
    async with native(echo_app()) as url:
        for fin in (True, False):
            for rsv in range(8):
                async with connect(url) as client:
                    said = frame(opcode, b"", fin=fin, rsv=rsv)
                    if not lawful(opcode, fin, rsv):
                        assert await closed_with(client, said, text("never answered")) == 1002
                        continue
                    await client.send(said)
                    if opcode == CLOSE:
                        assert await client.rest() == [Frame(CLOSE, b"")]
                        continue
                    if not fin:
                        await client.send(frame(CONTINUATION, b""))
                    if opcode == PING:
                        assert await client.frame() == Frame(PONG, b"")
                    elif opcode != PONG:
                        assert await client.frame() == Frame(opcode, b"")
                    await client.send(text("alive"))
                    assert await client.message() == "alive"


LENGTHS = {
    "126 in 16 bits for 0": (b"\xfe\x00\x00", 1002),
    "126 in 16 bits for 125": (b"\xfe\x00\x7d", 1002),
    "127 in 64 bits for 0": (b"\xff" + bytes(8), 1002),
    "127 in 64 bits for 125": (b"\xff" + (125).to_bytes(8, "big"), 1002),
    "127 in 64 bits for 65535": (b"\xff" + (65535).to_bytes(8, "big"), 1002),
    "top bit": (b"\xff\x80" + bytes(7), 1002),
    "all bits": (b"\xff" + b"\xff" * 8, 1002),
    "largest lawful": (b"\xff\x7f" + b"\xff" * 7, 1009),
    "1 GiB": (b"\xff" + (1 << 30).to_bytes(8, "big"), 1009),
    "one above the limit": (b"\xff" + (1024 * 1024 + 1).to_bytes(8, "big"), 1009),
}


@pytest.mark.parametrize(("length", "code"), LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_bad_lengths_fail_at_the_header(native, length: bytes, code: int, opcode: int):
    """Not one byte of payload is waited for; what came before is answered."""
    async with native(echo_app()) as url, connect(url) as client:
        await client.send(text("before"), bytes((0x80 | opcode,)) + length)
        assert await client.message() == "before"
        assert [got.code for got in await client.rest()] == [code]


async def test_an_oversize_frame_is_refused_before_it_is_buffered(native):
    """A 64-bit header announces 1 GiB, and the client goes on to send it: neither
    may memory be set aside for it, nor what comes be kept.
    """
    async with native(echo_app()) as url, connect(url) as client:
        gc.collect()
        before = resident_bytes()
        header = b"\x82\xff" + (1 << 30).to_bytes(8, "big") + bytes(4)
        sending = client.in_background(client.send(header, bytes(20_000_000)))
        assert (await client.frame()).code == 1009
        assert await client.at_end()
        client.reset()
        await asyncio.wait((sending,))
        # The client's own 20 MB may still be there.
        assert resident_bytes() - before < 60_000_000


@pytest.mark.parametrize("fragments", [2, 3, 1000])
async def test_a_fragmented_message_above_the_limit_is_refused_on_the_way(native, fragments: int):
    limit = 100_000
    async with native(echo_app(max_message_bytes=limit)) as url, connect(url) as client:
        size = limit // (fragments - 1) + 1
        said = [frame(BINARY, bytes(size), fin=False)]
        said += [frame(CONTINUATION, bytes(size), fin=False)] * (fragments - 1)
        assert await closed_with(client, *said) == 1009


@pytest.mark.parametrize("size", [1, 125, 126, 65535, 65536, 70_000])
@pytest.mark.within("max_message_bytes")
@pytest.mark.beyond("max_message_bytes")
async def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not(native, size: int):
    async with native(echo_app(max_message_bytes=size)) as url, connect(url) as client:
        half = size // 2
        await client.send(
            frame(BINARY, b"x" * size),
            frame(BINARY, b"x" * half, fin=False),
            frame(CONTINUATION, b"x" * (size - half)),
        )
        assert await client.message() == b"x" * size
        assert await client.message() == b"x" * size
        assert await closed_with(client, frame(BINARY, b"x" * (size + 1))) == 1009


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
async def test_an_unmasked_frame_fails_the_connection(native, opcode: int):
    async with native(echo_app()) as url, connect(url) as client:
        await client.send(text("before"), frame(opcode, b"", masked=False))
        assert await client.message() == "before"
        assert await closed_with(client) == 1002


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 65536])
async def test_a_control_frame_above_125_bytes_fails_at_its_header(native, opcode: int, size: int):
    async with native(echo_app()) as url, connect(url) as client:
        header = bytes((0x80 | opcode,)) + (b"\xfe" if size < 65536 else b"\xff")
        assert await closed_with(client, header) == 1002


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8" + b"r" * 123])
async def test_a_close_is_answered_with_its_code_alone(native, payload: bytes):
    async with native(echo_app()) as url, connect(url) as client:
        await client.send(frame(CLOSE, payload))
        assert await client.rest() == [Frame(CLOSE, payload[:2])]


CODES = {
    **dict.fromkeys(range(1000, 1016), 1002),
    **{code: code for code in (1000, 1001, 1002, 1003, *range(1007, 1015))},
    **dict.fromkeys((0, 1, 999, 1016, 1100, 2000, 2999, 5000, 10_000, 65535), 1002),
    **{code: code for code in (3000, 3001, 3999, 4000, 4999)},
}


async def test_every_class_of_close_codes_is_answered_as_it_deserves(native):
    app = echo_app()
    closes: list[Close] = []

    @app.on_disconnect
    async def gone(close: Close) -> None:
        closes.append(close)

    async with native(app) as url:
        for code, answer in CODES.items():
            async with connect(url) as client:
                assert await closed_with(client, close(code, "why")) == answer, code
            await until(lambda: closes)
            ended = closes.pop()
            assert (ended.code, ended.clean) == (answer, answer == code), code


async def test_every_octet_alone_makes_the_same_conversation(native):
    """A frame a byte at a time: every state of the parser is stopped in."""
    said = b"".join(
        (
            text("short"),
            frame(BINARY, b"m" * 300),
            frame(TEXT, "é".encode()[:1], fin=False),
            frame(PING, b"now"),
            frame(CONTINUATION, "é".encode()[1:]),
            frame(BINARY, b"l" * 66_000),
            close(4321, "bye"),
        )
    )
    async with native(echo_app()) as url, connect(url) as client:
        sending = client.in_background(client.send_slowly(said))
        assert await client.rest() == [
            Frame(TEXT, b"short"),
            Frame(BINARY, b"m" * 300),
            Frame(PONG, b"now"),
            Frame(TEXT, "é".encode()),
            Frame(BINARY, b"l" * 66_000),
            Frame(CLOSE, (4321).to_bytes(2, "big")),
        ]
        await sending


BEHIND_A_CLOSE = {
    "text": text("x"),
    "garbage": b"\xff" * 100,
    "a bad close": close(1005),
    "another close": close(1001),
    "pings": frame(PING) * 100,
    "a fragment": frame(TEXT, b"x", fin=False),
    "half a frame": text("hello")[:4],
}


@pytest.mark.parametrize("behind", BEHIND_A_CLOSE.values(), ids=BEHIND_A_CLOSE)
async def test_what_comes_behind_a_close_is_dropped(native, behind: bytes):
    app = Symphony()
    got: list[str | bytes] = []

    @app.on_message
    async def take(message: str | bytes) -> str | bytes:
        got.append(message)
        return message

    async with native(app) as url, connect(url) as client:
        sending = client.in_background(client.send(text("before"), close(4000), behind))
        assert await client.rest() == [Frame(TEXT, b"before"), Frame(CLOSE, (4000).to_bytes(2, "big"))]
        await asyncio.wait((sending,))
    assert got == ["before"]


async def test_megabytes_behind_a_close_are_not_read(native):
    """The server closes with bytes unread, so the client may hear a reset instead of
    the close frame: it broke the protocol. The server goes on.
    """
    async with native(echo_app()) as url:
        async with connect(url) as client:
            sending = client.in_background(client.send(close(4000), frame(BINARY, b"x" * 900_000) * 20))
            with suppress(ConnectionResetError):
                assert [got.code for got in await client.rest()] == [4000]
            await asyncio.wait((sending,))
            assert sending.exception() is None or isinstance(sending.exception(), OSError)
        async with connect(url) as client:
            await client.send(text("alive"))
            assert await client.message() == "alive"


@pytest.mark.parametrize(
    "answer", [frame(CLOSE, b"x"), close(1005), close(1000, b"\xff"), b"\xff" * 10, frame(PING, rsv=4)]
)
async def test_a_bad_answer_to_our_close_ends_the_connection_at_once(native, answer: bytes):
    """It was ignored, and the connection stood until `close_timeout` was over."""
    app = echo_app(close_timeout=60)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("hi")
        socket.close(4000)

    async with native(app) as url:
        async with connect(url) as client:
            assert await client.message() == "hi"
            assert (await client.frame()).code == 4000
            await client.send(answer, close(1000) if answer[0] == 0xC9 else b"")
            assert await client.at_end()
        await until(lambda: not app._core.node._sessions)


@pytest.mark.parametrize("behind", [b"\xff" * 20, close(1005), frame(TEXT, masked=False)])
async def test_our_own_close_leaves_before_a_bad_frame_of_the_same_segment(native, behind: bytes):
    app = Symphony(limits=Limits(close_timeout=60))

    @app.on_message
    async def leave(socket: Socket, message: str) -> None:
        await socket.send("bye")
        socket.close(4000)

    async with native(app) as url, connect(url) as client:
        await client.send(text("go"), behind)
        first, last = await client.rest()
        assert (first.payload, last.code) == (b"bye", 4000)


async def test_thousands_of_empty_fragments_cost_nothing(native):
    """A list of the fragments would take 8 bytes for each, an upper limit of none."""
    async with native(echo_app()) as url, connect(url) as client:
        await client.send(frame(BINARY, b"", fin=False))
        for _ in range(50):
            await client.send(frame(CONTINUATION, b"", fin=False) * 1000)
        await client.send(frame(PING, b"done"))
        assert await client.frame() == Frame(PONG, b"done")
        await client.send(frame(CONTINUATION, b"end"))
        assert await client.message() == b"end"


async def test_many_fragmented_messages_follow_each_other(native):
    one = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, b"b")
    async with native(echo_app()) as url, connect(url) as client:
        sending = client.in_background(client.send((one + text("c")) * 2000))
        for _ in range(2000):
            assert await client.message() == "ab"
            assert await client.message() == "c"
        await sending


async def test_hundreds_of_thousands_of_pings_are_answered_in_bounded_memory(native):
    ping = frame(PING, b"")
    batch, batches = 20_000, size(20, full=50)
    async with native(echo_app()) as url, connect(url, buffer=2**16) as client:

        async def say() -> None:
            for _ in range(batches):
                await client.send(ping * batch)

        gc.collect()
        before = resident_bytes()
        sending = asyncio.ensure_future(say())
        left = batch * batches
        while left:
            answer = await client.reader.readexactly(min(left, 10_000) * 2)
            assert answer == b"\x8a\x00" * (len(answer) // 2)
            left -= len(answer) // 2
        await sending
        # As objects each pong would take 43 bytes.
        assert resident_bytes() - before < 25 * batch * batches


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest"])
async def test_pings_of_a_client_that_does_not_read_do_not_pile_up(native, policy):
    """Each pong of two bytes is an object of 35 and a place in a list: counted by
    their payload alone, a megabyte of them took more than 20. Only the latest ping
    is owed an answer (RFC 6455 §5.5.3).
    """
    app = Symphony(slow_consumer=policy)
    sockets: list[Socket] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with native(app) as url, connect(url, buffer=4096) as client:
        (socket,) = sockets
        for _ in range(100):
            await client.send(frame(PING, b"x" * 125) * 1000)
            if socket._connection._late_pong is not None:
                break
        else:
            raise AssertionError("the client was read from to the end")
        batches = size(8, full=20)
        tracemalloc.start()
        try:
            for number in range(batches):
                await client.send(frame(PING, b"") * 20_000, frame(PING, str(number).encode()))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # As objects each pong would take 43 bytes.
        assert peak < 25 * batches * 20_000
        # Late, but not forgotten: most of the pings waited unread.
        while await client.frame() != Frame(PONG, str(batches - 1).encode()):
            pass
        await client.send(text("alive"))
        assert await client.message() == "alive"
