"""Compressed messages (RFC 7692) in the client."""

import asyncio
import zlib
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from client.rawserver import RawPeer, RawServer, listen, server_frame
from client.test_other_servers import echo
from support import raw
from support.servers import serve_natively
from symphony import Symphony
from symphony.client import Client, connect
from symphony.errors import DisconnectedError
from symphony.websocket.deflate import compress
from symphony.websocket.handshake import switching_protocols

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
MESSAGES = ["a" * 5000, b"\x00" * 70_000, "", b"", "short", "é" * 3000, b"\xff\xfe", "x" * 300_000]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"server_max_window_bits": 9, "client_max_window_bits": 9},
        {"client_max_window_bits": 15, "client_no_context_takeover": True},
        {"server_no_context_takeover": True, "server_max_window_bits": 12},
        {"client_max_window_bits": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("threshold", [0, 1000])
async def test_messages_arrive_unchanged(parameters: dict[str, Any], threshold: int) -> None:
    factory = ServerPerMessageDeflateFactory(**parameters)
    async with (
        echo(compression=None, extensions=[factory], max_size=None) as server,
        connect(server.url, raw=True, compression=threshold, max_message_bytes=300_000) as client,
    ):
        for message in MESSAGES:
            client.send(message)
            assert await anext(client) == message
        assert server.got == MESSAGES
        offer = server.headers[0]["Sec-WebSocket-Extensions"]
        assert offer == f"{AGREED}; client_max_window_bits"


@pytest.mark.usefixtures("each_loop")
@pytest.mark.parametrize("compression", [None, 100])
async def test_with_symphony(compression: int | None) -> None:
    """The server compresses, or it does not; the client copes with both."""
    app = Symphony(compression=compression)
    route = app.route("/")

    @route.on("double")
    async def double(data: str) -> str:
        return data * 2

    async with serve_natively(app) as url, connect(f"{url}/", compression=100) as client:
        for text in ("a", "b" * 10_000, "é" * 99):
            assert await client.request("double", text) == text * 2


async def test_without_the_option_nothing_is_offered() -> None:
    async with echo() as server, connect(server.url, raw=True) as client:
        client.send("a" * 5000)
        assert await anext(client) == "a" * 5000
        assert "Sec-WebSocket-Extensions" not in server.headers[0]


async def agreed(server: RawServer, client: Client, extension: str = AGREED) -> RawPeer:
    opening = asyncio.ensure_future(client._open())
    peer = await server.peer()
    await peer.read_request()
    key = peer.header("sec-websocket-key")
    peer.write(switching_protocols(key, subprotocol=None, extension=extension, headers=()))
    await opening
    return peer


def compressed(payload: bytes, *, opcode: int = raw.BINARY, fin: bool = True) -> bytes:
    return server_frame(opcode, payload, fin=fin, rsv=4)


async def test_only_messages_above_the_threshold_are_compressed() -> None:
    async with listen() as server:
        client = connect(server.url, raw=True, compression=10)
        peer = await agreed(server, client)
        for message in ("a" * 9, "a" * 10, b"b" * 200):
            client.send(message)
        first, second, third = [await frame(peer) for _ in range(3)]
        assert first == (raw.TEXT, 0, b"a" * 9)
        assert (second[:2], inflated(second[2])) == ((raw.TEXT, 4), b"a" * 10)
        assert (third[:2], inflated(third[2])) == ((raw.BINARY, 4), b"b" * 200)
        peer.cut()
        await client.close()


async def frame(peer: RawPeer) -> tuple[int, int, bytes]:
    first, second = await peer.reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(await peer.reader.readexactly(2), "big")
    key = await peer.reader.readexactly(4)
    return first & 0x0F, (first >> 4) & 7, raw.mask(await peer.reader.readexactly(size), key)


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


async def test_fragments_and_uncompressed_messages_are_taken_too() -> None:
    async with listen() as server:
        client = connect(server.url, raw=True, compression=0)
        peer = await agreed(server, client)
        payload = compress("hello wörld".encode() * 50, 15)
        peer.write(
            compressed(payload[:7], opcode=raw.TEXT, fin=False),
            server_frame(raw.PING, b"now"),
            server_frame(raw.CONTINUATION, payload[7:]),
            server_frame(raw.TEXT, "plain"),
            compressed(compress(b"", 15)),
        )
        assert [await anext(client) for _ in range(3)] == ["hello wörld" * 50, "plain", b""]
        peer.cut()
        await client.close()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([compressed(compress(bytes(1001), 15))], 1009),
        ([compressed(compress(bytes(10_000_000), 15))], 1009),
        ([server_frame(raw.BINARY, bytes(1001))], 1009),
        ([server_frame(raw.BINARY, bytes(600), fin=False), server_frame(raw.CONTINUATION, bytes(600))], 1009),
        ([compressed(b"\xff\xff\xff")], 1007),
        ([compressed(compress(b"\xff", 15), opcode=raw.TEXT)], 1007),
        ([compressed(compress(bytes(500), 15)[:4])], 1007),
        ([server_frame(raw.PING, b"", rsv=4)], 1002),
        ([server_frame(raw.TEXT, b"a", rsv=2)], 1002),
    ],
    ids=["large", "bomb", "plain", "fragments", "corrupt", "not UTF-8", "cut off", "ping", "rsv2"],
)
async def test_what_breaks_the_rules_ends_the_connection(frames: list[bytes], code: int) -> None:
    """The limit counts the message after decompression."""
    async with listen() as server:
        client = connect(server.url, raw=True, compression=0, max_message_bytes=1000, reconnect=False)
        peer = await agreed(server, client)
        peer.write(compressed(compress(bytes(1000), 15)), *frames)
        assert await anext(client) == bytes(1000)
        assert (await peer.close_frame())[0] == code
        peer.cut()
        with pytest.raises(DisconnectedError) as caught:
            await anext(client)
        assert caught.value.code == code
        await client.close()


@pytest.mark.parametrize(
    "extension",
    [
        "permessage-deflate",
        "permessage-deflate; client_no_context_takeover",
        f"{AGREED}; server_no_context_takeover",
        f"{AGREED}; client_max_window_bits=7",
        f"{AGREED}; client_max_window_bits",
        f"{AGREED}; server_max_window_bits=16",
        f"{AGREED}; whatever",
        f"{AGREED}, {AGREED}",
        "permessage-bzip2",
        ";;;",
    ],
)
async def test_an_answer_that_does_not_fit_the_offer_fails(extension: str) -> None:
    async with listen() as server:
        client = connect(server.url, raw=True, compression=0, reconnect=False)
        with pytest.raises(DisconnectedError, match="an extension that was not offered"):
            await agreed(server, client, extension)


@pytest.mark.parametrize("compression", [-1, float("nan")])
def test_what_is_no_size(compression: Any) -> None:
    with pytest.raises(ValueError, match="compression must be 0 or more, or None"):
        connect("ws://a/", compression=compression)
