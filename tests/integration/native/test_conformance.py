"""Conformance, in the order of the cases of the Autobahn test suite.

Stricter than the suite: what came whole before a failing frame is answered,
the close frame has the right code, and the server ends the TCP connection
itself, in order, with nothing behind the close frame.
"""

import asyncio
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pytest

from support.echo import echo_app
from support.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    connect,
    frame,
    text,
)
from symphony import Limits, Symphony

MIB = 1024 * 1024
LIMITS = {"max_message_bytes": 8 * MIB, "max_outbox_bytes": 32 * MIB}


class Case(NamedTuple):
    """A conversation.

    Attributes:
        name: Its number in the suite, and what it is about.
        says: What the client writes, in one go.
        hears: What the server must answer, to the end of the connection; a
            close frame is given by its code alone.
        chop: Write so many bytes a segment.
    """

    name: str
    says: bytes
    hears: list[Frame | int]
    chop: int | None = None


def t(payload: bytes | str) -> Frame:
    return Frame(TEXT, payload.encode() if isinstance(payload, str) else payload)


def b(payload: bytes) -> Frame:
    return Frame(BINARY, payload)


def pong(payload: bytes = b"") -> Frame:
    return Frame(PONG, payload)


def fragments(opcode: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Return the frames of a fragmented message."""
    pieces = list(pieces)
    for index, piece in enumerate(pieces):
        yield frame(opcode if index == 0 else CONTINUATION, piece, fin=index == len(pieces) - 1)


def pieces(payload: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(payload), size):
        yield payload[at : at + size]


def fine(name: str, *says: bytes, hears: list[Frame], chop: int | None = None) -> Case:
    """Return a case that the client ends in order."""
    return Case(name, b"".join(says) + close(1000), [*hears, 1000], chop)


def bad(name: str, *says: bytes, hears: list[Frame] | None = None, code: int = 1002, chop: int | None = None):
    """Return a case that must fail with *code*."""
    return Case(name, b"".join(says), [*(hears or []), code], chop)


def framing() -> Iterator[Case]:
    sizes = (0, 125, 126, 127, 128, 65535, 65536)
    for number, (opcode, fill) in enumerate(((TEXT, b"*"), (BINARY, b"\xfe")), 1):
        for index, size in enumerate(sizes, 1):
            payload = fill * size
            yield fine(
                f"1.{number}.{index} {size} bytes", frame(opcode, payload), hears=[Frame(opcode, payload)]
            )
        payload = fill * 65536
        yield fine(
            f"1.{number}.8 65536 bytes chopped",
            frame(opcode, payload),
            hears=[Frame(opcode, payload)],
            chop=997,
        )


def pings() -> Iterator[Case]:
    noise = bytes((0x00, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0x00, 0xFF))
    yield fine("2.1 empty ping", frame(PING), hears=[pong()])
    yield fine("2.2 ping with a payload", frame(PING, b"Hello, world!"), hears=[pong(b"Hello, world!")])
    yield fine("2.3 ping with a binary payload", frame(PING, noise), hears=[pong(noise)])
    yield fine("2.4 ping of 125 bytes", frame(PING, b"\xfe" * 125), hears=[pong(b"\xfe" * 125)])
    yield bad("2.5 ping of 126 bytes", frame(PING, b"\xfe" * 126))
    yield fine("2.6 ping in octets", frame(PING, b"\xfe" * 125), hears=[pong(b"\xfe" * 125)], chop=1)
    yield fine("2.7 unsolicited pong", frame(PONG), hears=[])
    yield fine("2.8 unsolicited pong with a payload", frame(PONG, b"unsolicited"), hears=[])
    yield fine(
        "2.9 unsolicited pong, then ping", frame(PONG, b"unsolicited"), frame(PING, b"x"), hears=[pong(b"x")]
    )
    ten = [b"payload-%d" % number for number in range(10)]
    for number, chop in ((10, None), (11, 1)):
        yield fine(
            f"2.{number} ten pings", *(frame(PING, x) for x in ten), hears=[pong(x) for x in ten], chop=chop
        )


def reserved_bits() -> Iterator[Case]:
    hello = text("Hello, world!")
    ping = frame(PING)
    yield bad("3.1 RSV 1", frame(TEXT, b"Hello, world!", rsv=1))
    for number, rsv, chop in (("3.2", 2, None), ("3.3", 3, 7), ("3.4", 4, 1)):
        yield bad(
            f"{number} RSV {rsv} behind a message, before a ping",
            hello,
            frame(TEXT, b"Hello, world!", rsv=rsv),
            ping,
            hears=[t("Hello, world!")],
            chop=chop,
        )
    yield bad("3.5 RSV 5 on binary", frame(BINARY, b"\x00\xff", rsv=5))
    yield bad("3.6 RSV 6 on ping", frame(PING, b"Hello, world!", rsv=6))
    yield bad("3.7 RSV 7 on close", frame(CLOSE, b"\x03\xe8", rsv=7))


def opcodes() -> Iterator[Case]:
    hello = text("Hello, world!")
    for group, codes in ((1, range(3, 8)), (2, range(11, 16))):
        for index, code in enumerate(codes, 1):
            name = f"4.{group}.{index} opcode {code}"
            if index == 1:
                yield bad(name, frame(code))
            elif index == 2:
                yield bad(f"{name} with a payload", frame(code, b"reserved opcode payload"))
            else:
                yield bad(
                    f"{name} behind a message",
                    hello,
                    frame(code, b"reserved opcode payload"),
                    frame(PING),
                    hears=[t("Hello, world!")],
                    chop=None if index == 3 else 1,
                )


def fragmentation() -> Iterator[Case]:
    two = list(fragments(TEXT, (b"fragment1", b"fragment2")))
    whole = t("fragment1fragment2")
    yield bad("5.1 fragmented ping", *fragments(PING, (b"fragment1", b"fragment2")))
    yield bad("5.2 fragmented pong", *fragments(PONG, (b"fragment1", b"fragment2")))
    for number, chop in ((3, None), (4, 9), (5, 1)):
        yield fine(f"5.{number} two fragments", *two, hears=[whole], chop=chop)
    for number, chop in ((6, None), (7, 9), (8, 1)):
        yield fine(
            f"5.{number} ping between fragments",
            two[0],
            frame(PING, b"ping"),
            two[1],
            hears=[pong(b"ping"), whole],
            chop=chop,
        )
    for first, fin in ((9, True), (12, False)):
        for number, chop in ((first, None), (first + 1, 7), (first + 2, 1)):
            yield bad(
                f"5.{number} continuation without a message, fin {fin}",
                frame(CONTINUATION, b"non-continuation payload", fin=fin),
                text("Hello, world!"),
                chop=chop,
            )
    yield bad(
        "5.15 continuation behind a whole message",
        *two,
        frame(CONTINUATION, b"fragment3", fin=False),
        *fragments(TEXT, (b"fragment4",)),
        hears=[whole],
    )
    for number, fin in ((16, False), (17, True)):
        yield bad(
            f"5.{number} continuation before a message, fin {fin}",
            *(frame(CONTINUATION, b"fragment1", fin=fin), *fragments(TEXT, (b"fragment2", b"fragment3"))) * 2,
        )
    yield bad(
        "5.18 a message inside a message", frame(TEXT, b"fragment1", fin=False), frame(TEXT, b"fragment2")
    )
    five = list(fragments(TEXT, [b"fragment%d" % number for number in range(1, 6)]))
    for number, chop in ((19, None), (20, 1)):
        yield fine(
            f"5.{number} five fragments and two pings",
            *five[:2],
            frame(PING, b"ping1"),
            *five[2:4],
            frame(PING, b"ping2"),
            five[4],
            hears=[pong(b"ping1"), pong(b"ping2"), t("fragment1fragment2fragment3fragment4fragment5")],
            chop=chop,
        )


KOSME = "κόσμε".encode()
VALID_TEXTS = {
    "5.1 Greek": KOSME,
    "5.2 mixed": b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!",
    "7.1 one byte, first": b"\x00",
    "7.2 two bytes, first": b"\xc2\x80",
    "7.3 three bytes, first": b"\xe0\xa0\x80",
    "7.4 four bytes, first": b"\xf0\x90\x80\x80",
    "9.1 one byte, last": b"\x7f",
    "9.2 two bytes, last": b"\xdf\xbf",
    "9.3 three bytes, last": b"\xef\xbf\xbf",
    "9.4 four bytes, last": b"\xf4\x8f\xbf\xbf",
    "11.1 before the surrogates": b"\xed\x9f\xbf",
    "11.2 behind the surrogates": b"\xee\x80\x80",
    "11.3 the replacement character": b"\xef\xbf\xbd",
    "11.4 the last code point": b"\xf4\x8f\xbf\xbf",
    "22.1 noncharacter U+FFFE": b"\xef\xbf\xbe",
    "22.2 noncharacter U+FFFF": b"\xef\xbf\xbf",
    **{
        f"22.{number} noncharacter U+{plane:X}{last}": chr(plane << 16 | int(last, 16)).encode()
        for number, (plane, last) in enumerate(
            ((plane, last) for plane in range(1, 17) for last in ("FFFE", "FFFF")), 3
        )
    },
}
INVALID_TEXTS = {
    "3.1 surrogate between texts": KOSME + b"\xed\xa0\x80" + b"edited",
    "6.1 cut off, one byte": b"\xce",
    "6.2 cut off behind Greek": KOSME + b"\xe1\xbd",
    "8.1 five bytes": b"\xf8\x88\x80\x80\x80",
    "8.2 six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "10.1 above U+10FFFF": b"\xf7\xbf\xbf\xbf",
    "10.2 five bytes, last": b"\xfb\xbf\xbf\xbf\xbf",
    "10.3 six bytes, last": b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "11.5 U+110000": b"\xf4\x90\x80\x80",
    "12.1 lone continuation, first": b"\x80",
    "12.2 lone continuation, last": b"\xbf",
    **{f"12.{count + 1} {count} continuations": (b"\x80\xbf" * 4)[:count] for count in range(2, 8)},
    "12.9 all continuations": bytes(range(0x80, 0xC0)),
    "13.1 lone starts of two": b"".join(bytes((start, 0x20)) for start in range(0xC0, 0xE0)),
    "13.2 lone starts of three": b"".join(bytes((start, 0x20)) for start in range(0xE0, 0xF0)),
    "13.3 lone starts of four": b"".join(bytes((start, 0x20)) for start in range(0xF0, 0xF8)),
    "13.4 lone starts of five": b"\xf8\x20\xf9\x20\xfa\x20\xfb\x20",
    "13.5 lone starts of six": b"\xfc\x20\xfd\x20",
    "14.1 last byte missing, two": b"\xc0",
    "14.2 last byte missing, three": b"\xe0\x80",
    "14.3 last byte missing, four": b"\xf0\x80\x80",
    "14.4 last byte missing, five": b"\xf8\x80\x80\x80",
    "14.5 last byte missing, six": b"\xfc\x80\x80\x80\x80",
    "14.6 last byte missing, U+7FF": b"\xdf",
    "14.7 last byte missing, U+FFFF": b"\xef\xbf",
    "14.8 last byte missing, U+1FFFFF": b"\xf7\xbf\xbf",
    "14.9 last byte missing, five, last": b"\xfb\xbf\xbf\xbf",
    "14.10 last byte missing, six, last": b"\xfd\xbf\xbf\xbf\xbf",
    "15.1 all of them behind each other": (
        b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf"
    ),
    "16.1 FE": b"\xfe",
    "16.2 FF": b"\xff",
    "16.3 FE FE FF FF": b"\xfe\xfe\xff\xff",
    "17.1 overlong slash, two": b"\xc0\xaf",
    "17.2 overlong slash, three": b"\xe0\x80\xaf",
    "17.3 overlong slash, four": b"\xf0\x80\x80\xaf",
    "17.4 overlong slash, five": b"\xf8\x80\x80\x80\xaf",
    "17.5 overlong slash, six": b"\xfc\x80\x80\x80\x80\xaf",
    "18.1 largest overlong, two": b"\xc1\xbf",
    "18.2 largest overlong, three": b"\xe0\x9f\xbf",
    "18.3 largest overlong, four": b"\xf0\x8f\xbf\xbf",
    "18.4 largest overlong, five": b"\xf8\x87\xbf\xbf\xbf",
    "18.5 largest overlong, six": b"\xfc\x83\xbf\xbf\xbf\xbf",
    "19.1 overlong NUL, two": b"\xc0\x80",
    "19.2 overlong NUL, three": b"\xe0\x80\x80",
    "19.3 overlong NUL, four": b"\xf0\x80\x80\x80",
    "19.4 overlong NUL, five": b"\xf8\x80\x80\x80\x80",
    "19.5 overlong NUL, six": b"\xfc\x80\x80\x80\x80\x80",
    **{
        f"20.{number} surrogate U+{code:X}": chr(code).encode("utf-8", "surrogatepass")
        for number, code in enumerate((0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF), 1)
    },
    **{
        f"21.{number} surrogate pair {pair[0]:X} {pair[1]:X}": "".join(map(chr, pair)).encode(
            "utf-8", "surrogatepass"
        )
        for number, pair in enumerate(
            ((high, low) for high in (0xD800, 0xDB7F, 0xDB80, 0xDBFF) for low in (0xDC00, 0xDFFF)), 1
        )
    },
}


def texts() -> Iterator[Case]:
    yield fine("6.1.1 empty", frame(TEXT), hears=[t("")])
    yield fine("6.1.2 empty fragments", *fragments(TEXT, (b"", b"", b"")), hears=[t("")])
    yield fine(
        "6.1.3 the middle fragment is not empty",
        *fragments(TEXT, (b"", b"middle frame payload", b"")),
        hears=[t("middle frame payload")],
    )
    long = VALID_TEXTS["5.2 mixed"]
    yield fine("6.2.1 one frame", frame(TEXT, long), hears=[t(long)])
    yield fine("6.2.2 two fragments", *fragments(TEXT, pieces(long, 18)), hears=[t(long)])
    yield fine("6.2.3 fragments of one byte", *fragments(TEXT, pieces(long, 1)), hears=[t(long)])
    yield fine("6.2.4 fragments inside characters", *fragments(TEXT, pieces(KOSME, 1)), hears=[t(KOSME)])
    for name, payload in VALID_TEXTS.items():
        yield fine(f"6.{name}", frame(TEXT, payload), hears=[t(payload)])
    for name, payload in INVALID_TEXTS.items():
        yield bad(f"6.{name}", text("fine"), frame(TEXT, payload), frame(PING), hears=[t("fine")], code=1007)


def closing() -> Iterator[Case]:
    hello = text("Hello World!")
    yield fine("7.1.1 message, then close", hello, hears=[t("Hello World!")])
    yield fine("7.1.2 two closes", close(1000), hears=[])
    yield fine("7.1.3 close, then ping", close(1000), frame(PING), hears=[])
    yield fine("7.1.4 close, then text", close(1000), hello, hears=[])
    yield fine(
        "7.1.5 close inside a fragmented message",
        frame(TEXT, b"fragment1", fin=False),
        close(1000),
        frame(CONTINUATION, b"fragment2"),
        hears=[],
    )
    big = b"BAsd7&jh23" * 26214
    yield fine("7.1.6 256 KiB, close, ping", frame(TEXT, big), close(1000), frame(PING), hears=[t(big)])
    yield Case("7.3.1 close without a payload", close(None), [1005])
    yield bad("7.3.2 close of one byte", frame(CLOSE, b"a"))
    yield fine("7.3.3 close with a code", hears=[])
    yield Case("7.3.4 close with a reason", close(1000, "Hello World!"), [1000])
    yield Case("7.3.5 close with the longest reason", close(1000, "*" * 123), [1000])
    yield bad("7.3.6 close of 126 bytes", close(1000, "*" * 124))
    yield bad(
        "7.5.1 close with a reason that is not UTF-8",
        close(1000, INVALID_TEXTS["3.1 surrogate between texts"]),
        code=1007,
    )
    for number, code in enumerate(
        (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999), 1
    ):
        yield Case(f"7.7.{number} close with {code}", close(code), [code])
    invalid = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32768, 65535)
    for number, code in enumerate(invalid, 1):
        yield bad(f"7.9.{number} close with {code}", close(code))
        yield bad(f"7.9.{number} close with {code} and a reason", close(code, "why"))


def sizes() -> Iterator[Case]:
    for number, (opcode, fill) in enumerate(((TEXT, b"*"), (BINARY, b"\xfe")), 1):
        for index, size in enumerate((64 * 1024, 256 * 1024, MIB, 4 * MIB, 8 * MIB), 1):
            whole = Frame(opcode, fill * size)
            yield fine(f"9.{number}.{index} {size // 1024} KiB", frame(opcode, whole.payload), hears=[whole])
        whole = Frame(opcode, fill * MIB)
        for index, size in enumerate((64, 256, 1024, 4096, 16384, 65536, 262144), 1):
            yield fine(
                f"9.{number + 2}.{index} 1 MiB in fragments of {size}",
                *fragments(opcode, pieces(whole.payload, size)),
                hears=[whole],
            )
        for index, chop in enumerate((128, 256, 512, 1024, 2048), 1):
            small = Frame(opcode, fill * 64 * 1024)
            yield fine(
                f"9.{number + 4}.{index} 64 KiB in segments of {chop}",
                frame(opcode, small.payload),
                hears=[small],
                chop=chop,
            )
        for index, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            small = Frame(opcode, fill * size)
            yield fine(
                f"9.{number + 6}.{index} 200 messages of {size}",
                frame(opcode, small.payload) * 200,
                hears=[small] * 200,
            )


def fragment_sizes() -> Iterator[Case]:
    payload = b"*" * 65536
    yield fine(
        "10.1.1 64 KiB in fragments of 1300", *fragments(TEXT, pieces(payload, 1300)), hears=[t(payload)]
    )


GROUPS: list[Callable[[], Iterator[Case]]] = [
    framing,
    pings,
    reserved_bits,
    opcodes,
    fragmentation,
    texts,
    closing,
    sizes,
    fragment_sizes,
]
CASES = [case for group in GROUPS for case in group()]


async def answers(url: str, case: Case, **headers: str) -> list[Frame | int]:
    """Hold the conversation; return what the server said until it ended the connection."""
    async with connect(url, **headers) as client:
        writing = client.send(case.says) if case.chop is None else client.send_slowly(case.says, case.chop)
        # Together, or both sides wait for the other to read.
        task = asyncio.ensure_future(writing)
        frames = await client.rest()
        # The server may have ended the connection before it was all written.
        await asyncio.gather(task, return_exceptions=True)
    return [got.code if got.opcode == CLOSE else got for got in frames]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_the_server_answers_as_the_rfc_says(native, case: Case) -> None:
    async with (
        native(echo_app(**LIMITS)) as url,
        asyncio.timeout(15),
    ):
        assert await answers(url, case) == case.hears


async def test_a_connection_ends_alike_when_the_client_goes_right_after_the_handshake(native) -> None:
    """Case 7.1.x: the TCP connection is closed without a close frame."""
    async with (
        native(echo_app(**LIMITS)) as url,
        connect(url) as client,
    ):
        client.finish()
        assert await client.rest() == []


# RFC 3629 §4, and every proper beginning of it.
_CHARACTER = re.compile(
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    rb"|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_BEGINNING = re.compile(
    rb"|[\xc2-\xf4]|\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]?|[\xf1-\xf3][\x80-\xbf]{1,2}|\xf4[\x80-\x8f][\x80-\xbf]?"
)


def first_wrong_byte(payload: bytes) -> int | None:
    """Return where no continuation can make it UTF-8 any more; `None` if one still can."""
    for size in range(1, len(payload) + 1):
        at = 0
        while character := _CHARACTER.match(payload[:size], at):
            at = character.end()
        if not _BEGINNING.fullmatch(payload[:size], at):
            return size - 1
    return None


IMPOSSIBLE = {
    name: payload for name, payload in INVALID_TEXTS.items() if first_wrong_byte(payload) is not None
}


@pytest.mark.parametrize("payload", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
async def test_a_text_fails_at_the_first_fragment_with_a_wrong_byte(native, payload: bytes) -> None:
    """Cases 6.4: a server that decodes whole messages only would wait for a last
    fragment that a hostile client never sends.
    """
    at = first_wrong_byte(payload)
    assert at is not None
    said = [
        frame(TEXT if index == 0 else CONTINUATION, payload[index : index + 1], fin=False)
        for index in range(at + 1)
    ]
    async with (
        native(echo_app(**LIMITS)) as url,
        connect(url) as client,
    ):
        await client.send(*said[:-1], frame(PING, b"still here"))
        assert await client.frame() == pong(b"still here")
        await client.send(said[-1])
        assert [got.code for got in await client.rest()] == [1007]


# Compression


def deflated_app() -> Symphony:
    app = Symphony(limits=Limits(max_message_bytes=8 * MIB, max_outbox_bytes=32 * MIB), compression=1)

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    return app


def deflate(payload: bytes, bits: int = 15) -> bytes:
    compressor = zlib.compressobj(wbits=-bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
        b"\x00\x00\xff\xff"
    )


def inflate(payload: bytes, bits: int = 15) -> bytes:
    return zlib.decompressobj(-bits).decompress(payload + b"\x00\x00\xff\xff")


class Compression(NamedTuple):
    number: str
    size: int
    fragment: int | None
    opcode: int


JSON = b'{"id": 17, "name": "Autobahn", "tags": ["fast", "correct"], "price": 12.5}, '
COMPRESSIONS = [
    Compression(f"12.{group}.{index}", size, fragment, opcode)
    for group, (opcode, fragment) in enumerate(((TEXT, None), (BINARY, None), (TEXT, 256), (BINARY, 4096)), 1)
    for index, size in enumerate((16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072), 1)
]


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=[each.number for each in COMPRESSIONS])
@pytest.mark.parametrize("offer", ["", "; server_max_window_bits=9", "; server_no_context_takeover"])
async def test_compressed_messages_are_echoed(native, compression: Compression, offer: str) -> None:
    payload = (JSON * (compression.size // len(JSON) + 1))[: compression.size]
    packed = deflate(payload)
    parts = [packed] if compression.fragment is None else list(pieces(packed, compression.fragment))
    message = b"".join(
        frame(
            compression.opcode if index == 0 else CONTINUATION,
            part,
            rsv=4 if index == 0 else 0,
            fin=index == len(parts) - 1,
        )
        for index, part in enumerate(parts)
    )
    case = Case("", message * 20 + close(1000), [])
    extensions = {"sec_websocket_extensions": f"permessage-deflate{offer}"}
    bits = 9 if offer.endswith("=9") else 15
    async with native(deflated_app()) as url:
        *echoes, end = await answers(url, case, **extensions)
    assert end == 1000
    assert len(echoes) == 20
    for echo in echoes:
        assert isinstance(echo, Frame)
        assert (echo.opcode, echo.rsv) == (compression.opcode, 4)
        assert inflate(echo.payload, bits) == payload
