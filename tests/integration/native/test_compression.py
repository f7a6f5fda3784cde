"""permessage-deflate (RFC 7692) over a real socket, and the vectors of both RFCs."""

import asyncio
import zlib

import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from support import clients
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
    dial,
    frame,
    handshake,
    text,
)
from symphony import Socket, Symphony

RSV1 = 4
OFFER = "permessage-deflate"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def deflate(payload: bytes, *, bits: int = 15, level: int = 6, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(level, wbits=-bits)
    packed = compressor.compress(payload) + compressor.flush(flush)
    return packed.removesuffix(b"\x00\x00\xff\xff")


def inflate(payload: bytes, bits: int = 15) -> bytes:
    return zlib.decompressobj(-bits).decompress(payload + b"\x00\x00\xff\xff")


async def echoed(client: RawClient) -> str | bytes:
    """Read a message, compressed or not."""
    got = await client.frame()
    assert got.opcode in (TEXT, BINARY), got
    assert got.rsv in (0, RSV1)
    payload = inflate(got.payload) if got.rsv else got.payload
    return payload.decode() if got.opcode == TEXT else payload


# RFC 6455 §5.7; the client's are masked with 37 fa 21 3d there.
FRAMES = {
    "masked text": (bytes.fromhex("818537fa213d7f9f4d5158"), bytes.fromhex("810548656c6c6f")),
    "fragmented text": (
        bytes.fromhex("018337fa213d7f9f4d") + bytes.fromhex("808237fa213d5b95"),
        bytes.fromhex("810548656c6c6f"),
    ),
    "masked ping": (bytes.fromhex("898537fa213d7f9f4d5158"), bytes.fromhex("8a0548656c6c6f")),
    "256 bytes": (frame(BINARY, b"z" * 256), bytes.fromhex("827e0100") + b"z" * 256),
    "64 KiB": (frame(BINARY, b"z" * 65536), bytes.fromhex("827f0000000000010000") + b"z" * 65536),
}


@pytest.mark.parametrize(("said", "heard"), FRAMES.values(), ids=FRAMES)
async def test_the_frames_of_rfc_6455_are_answered_byte_for_byte(native, said: bytes, heard: bytes):
    async with native(echo_app()) as url, connect(url) as client:
        await client.send(said)
        assert await client.reader.readexactly(len(heard)) == heard


# RFC 7692 §7.2.3: the payloads of "Hello", and of the fragments of one.
HELLOS = {
    "one compressed block": [(4, "f248cdc9c90700")],
    "fragments": [(4, "f248cd"), (0, "c9c90700")],
    "not compressed": [(4, "000500faff48656c6c6f00")],
    "a block with BFINAL": [(4, "f348cdc9c9070000")],
    "two blocks": [(4, "f248050000 00ffffcac9c90700".replace(" ", ""))],
}


@pytest.mark.parametrize("parts", HELLOS.values(), ids=HELLOS)
async def test_every_hello_of_rfc_7692_is_read(native, parts: list[tuple[int, str]]):
    said = b"".join(
        frame(
            TEXT if index == 0 else CONTINUATION,
            bytes.fromhex(payload),
            rsv=rsv,
            fin=index == len(parts) - 1,
        )
        for index, (rsv, payload) in enumerate(parts)
    )
    async with native(echo_app(1)) as url, connect(url, sec_websocket_extensions=OFFER) as client:
        for _ in range(3):
            await client.send(said)
            assert await echoed(client) == "Hello"


async def test_what_follows_a_context_of_its_own_is_not_read_with_the_one_before(native):
    """RFC 7692 §7.2.3.2: the second "Hello" of a client that shares its window between
    messages is `f2 00 11 00 00`; it agreed not to.
    """
    async with native(echo_app(1)) as url, connect(url, sec_websocket_extensions=OFFER) as client:
        await client.send(frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1))
        assert await echoed(client) == "Hello"
        await client.send(frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1))
        assert (await client.frame()).code == 1007


OFFERS = {
    OFFER: AGREED,
    f"{OFFER}; client_max_window_bits": AGREED,
    f"{OFFER}; client_max_window_bits=10; server_no_context_takeover": AGREED,
    f"{OFFER}; server_max_window_bits=10": f"{AGREED}; server_max_window_bits=10",
    f"{OFFER}; server_max_window_bits=8, {OFFER}": AGREED,
    f"{OFFER}; server_max_window_bits=8": None,
    f"{OFFER}; unknown, {OFFER}; server_max_window_bits=16, {OFFER}; client_no_context_takeover": AGREED,
    f"{OFFER}; server_no_context_takeover=1": None,
    "x-webkit-deflate-frame": None,
    f"x-other; a=b, {OFFER}": AGREED,
}


@pytest.mark.parametrize(("offer", "answer"), OFFERS.items(), ids=OFFERS)
async def test_the_first_offer_that_can_be_kept_is_accepted(native, offer: str, answer: str | None):
    async with native(echo_app(1)) as url, await dial(url) as client:
        response = await client.open(handshake(sec_websocket_extensions=offer))
        assert response.headers.get("sec-websocket-extensions") == answer
        await client.send(text("x" * 1000))
        bits = 10 if answer and answer.endswith("=10") else 15
        got = await client.frame()
        assert bool(got.rsv) is (answer is not None)
        assert (inflate(got.payload, bits) if got.rsv else got.payload) == b"x" * 1000


@pytest.mark.parametrize("offer", ["permessage-deflate; =", ",", "a b", 'permessage-deflate; x="'])
async def test_a_malformed_offer_is_400_where_compression_is_on(native, offer: str):
    async with native(echo_app(1)) as url, await dial(url) as client:
        await client.send(handshake(sec_websocket_extensions=offer))
        assert (await client.response()).status == 400


@pytest.mark.parametrize(
    "factory",
    [
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(client_max_window_bits=9),
        ClientPerMessageDeflateFactory(server_max_window_bits=9),
        ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    ],
)
async def test_another_librarys_client_talks_compressed(native, factory: ClientPerMessageDeflateFactory):
    async with (
        native(echo_app(100)) as url,
        clients.connect(url, extensions=[factory]) as client,
    ):
        assert [extension.name for extension in client.protocol.extensions] == [OFFER]
        for message in ("", "short", "long " * 10_000, b"\x00\xff" * 30_000, "κόσμε" * 1000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["frag", "ment", "ed" * 5000])
        assert await client.recv() == "fragment" + "ed" * 5000


async def test_the_default_client_of_that_library_agrees_too(native):
    async with native(echo_app(1)) as url, websockets.connect(url, proxy=None, ping_interval=None) as client:
        await client.send("x" * 100_000)
        assert await client.recv() == "x" * 100_000


@pytest.mark.parametrize("fragments", [1, 5])
async def test_a_compression_bomb_is_1009_by_its_decompressed_size(native, fragments: int):
    """1 KiB on the wire, 1 MiB inside, and a limit between them."""
    bomb = deflate(bytes(1_000_001), level=9)
    assert len(bomb) < 2000
    size = len(bomb) // fragments + 1
    parts = [bomb[at : at + size] for at in range(0, len(bomb), size)]
    async with (
        native(echo_app(1, max_message_bytes=1_000_000)) as url,
        connect(url, sec_websocket_extensions=OFFER) as client,
    ):
        await client.send(frame(BINARY, deflate(bytes(1_000_000), level=9), rsv=RSV1))
        assert await echoed(client) == bytes(1_000_000)
        for index, part in enumerate(parts):
            await client.send(
                frame(
                    BINARY if index == 0 else CONTINUATION,
                    part,
                    rsv=RSV1 if index == 0 else 0,
                    fin=index == len(parts) - 1,
                )
            )
        assert [got.code for got in await client.rest()] == [1009]


async def test_a_frame_too_large_even_compressed_is_1009_at_its_header(native):
    async with (
        native(echo_app(1, max_message_bytes=1000)) as url,
        connect(url, sec_websocket_extensions=OFFER) as client,
    ):
        await client.send(b"\xc2\xfe\x10\x00")
        assert [got.code for got in await client.rest()] == [1009]


@pytest.mark.parametrize("size", [999, 1000, 1001, 1100])
async def test_the_limit_holds_exactly_for_uncompressed_messages_of_a_compressing_client(native, size: int):
    async with (
        native(echo_app(1, max_message_bytes=1000)) as url,
        connect(url, sec_websocket_extensions=OFFER) as client,
    ):
        await client.send(frame(BINARY, b"x" * size))
        if size <= 1000:
            assert await echoed(client) == b"x" * size
        else:
            assert (await client.frame()).code == 1009


CORRUPT = {
    "noise": b"\xff" * 50,
    "cut off": deflate(b"hello world" * 100)[:-3],
    "empty": b"",
    "a reference before the beginning": bytes.fromhex("f200110000"),
    "a wrong length of a stored block": bytes.fromhex("000500000048656c6c6f00"),
}


@pytest.mark.parametrize("payload", CORRUPT.values(), ids=CORRUPT)
async def test_corrupt_compression_is_1007_and_harms_nobody_else(native, payload: bytes):
    async with (
        native(echo_app(1)) as url,
        connect(url, sec_websocket_extensions=OFFER) as other,
        connect(url, sec_websocket_extensions=OFFER) as client,
    ):
        await client.send(frame(TEXT, payload, rsv=RSV1))
        got = await client.frame()
        if got.opcode == TEXT:
            # Nothing, compressed: four bytes of tail are all there was.
            assert payload == b""
        else:
            assert got.code == 1007
        await other.send(text("alive"))
        assert await echoed(other) == "alive"


async def test_compressed_text_that_is_not_utf8_is_1007(native):
    async with native(echo_app(1)) as url, connect(url, sec_websocket_extensions=OFFER) as client:
        await client.send(frame(TEXT, deflate(b"\xed\xa0\x80"), rsv=RSV1))
        assert [got.code for got in await client.rest()] == [1007]


@pytest.mark.parametrize(
    "said",
    [
        frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", rsv=RSV1),
        frame(PING, b"x", rsv=RSV1),
        frame(CLOSE, b"\x03\xe8", rsv=RSV1),
        frame(TEXT, b"x", rsv=2),
        frame(TEXT, b"x", rsv=6),
    ],
)
async def test_rsv1_counts_on_first_data_frames_only(native, said: bytes):
    async with native(echo_app(1)) as url, connect(url, sec_websocket_extensions=OFFER) as client:
        await client.send(said)
        assert [got.code for got in await client.rest()] == [1002]


async def test_rsv1_without_an_agreement_is_1002(native):
    async with native(echo_app()) as url, connect(url, sec_websocket_extensions=OFFER) as client:
        await client.send(frame(TEXT, deflate(b"x"), rsv=RSV1))
        assert [got.code for got in await client.rest()] == [1002]


async def test_control_frames_between_compressed_fragments_are_answered_at_once(native):
    packed = deflate(b"hello " * 1000)
    async with native(echo_app(1)) as url, connect(url, sec_websocket_extensions=OFFER) as client:
        await client.send(
            frame(TEXT, packed[:5], rsv=RSV1, fin=False), frame(PING, b"now"), frame(CONTINUATION, packed[5:])
        )
        assert await client.frame() == Frame(PONG, b"now")
        assert await echoed(client) == "hello " * 1000


async def test_a_room_compresses_once_for_all_members_that_can_share(native, monkeypatch):
    """Plain members, members with the full window and one with a small window: three
    encodings of each publication, however many members.
    """
    from symphony.transport.native import encoding

    packed: list[int] = []

    def counted(payload: bytes, window_bits: int) -> bytes:
        packed.append(window_bits)
        return real(payload, window_bits)

    real = encoding.compress
    monkeypatch.setattr(encoding, "compress", counted)
    app = Symphony(compression=100)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("room")

    offers = [None] * 5 + [OFFER] * 5 + [f"{OFFER}; server_max_window_bits=9"]
    async with native(app) as url:
        members = [await dial(url) for _ in offers]
        for member, offer in zip(members, offers, strict=True):
            await member.open(handshake(sec_websocket_extensions=offer))
        await until(lambda: len(app.room("room").sockets) == len(members))
        app.room("room").send("long " * 200)
        app.room("room").send("short")
        for member, offer in zip(members, offers, strict=True):
            long, short = await member.frame(), await member.frame()
            assert short == Frame(TEXT, b"short")
            bits = 9 if offer and offer.endswith("=9") else 15
            assert (inflate(long.payload, bits) if offer else long.payload) == b"long " * 200
        assert sorted(packed) == [9, 15]
        await asyncio.gather(*(member.aclose() for member in members))


async def test_close_frames_are_never_compressed(native):
    async with native(echo_app(1)) as url, connect(url, sec_websocket_extensions=OFFER) as client:
        await client.send(close(4000, "r" * 100))
        assert await client.rest() == [Frame(CLOSE, (4000).to_bytes(2, "big"))]
