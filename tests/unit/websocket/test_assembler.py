from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.errors import ProtocolError
from symphony.websocket.assembler import Assembler
from symphony.websocket.deflate import compress
from symphony.websocket.frames import BINARY, CLOSE, CONTINUATION, TEXT

LIMIT = 10_000
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


class Connection:
    """An assembler, fed by name."""

    def __init__(self, max_bytes: int = LIMIT, *, deflate: bool = False) -> None:
        self.assembler = Assembler(max_bytes, deflate=deflate)

    def take(
        self,
        opcode: int,
        payload: bytes,
        *,
        fin: bool = False,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> str | bytes | None:
        return self.assembler.feed(opcode, fin, rsv1, rsv2, rsv3, payload)

    def refuses(self, opcode: int, payload: bytes, **bits: bool) -> int:
        with pytest.raises(ProtocolError) as caught:
            self.take(opcode, payload, **bits)
        return caught.value.code

    def take_cut(
        self, opcode: int, payload: bytes, cuts: list[int], *, rsv1: bool = False
    ) -> str | bytes | None:
        """Take *payload* in the fragments that *cuts* make of it."""
        edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
        last = len(edges) - 2
        message = None
        for index, (start, end) in enumerate(pairwise(edges)):
            message = self.take(
                CONTINUATION if index else opcode,
                payload[start:end],
                fin=index == last,
                rsv1=rsv1 and not index,
            )
            assert (message is None) == (index != last)
            assert self.assembler.active == (index != last)
        return message


def shattered(payload: bytes) -> list[int]:
    """Return the cuts that make fragments of one byte."""
    return list(range(1, len(payload)))


# --- whole messages --------------------------------------------------------------


def test_an_unfragmented_frame_is_a_message():
    connection = Connection()
    assert connection.take(TEXT, "Hällo".encode(), fin=True) == "Hällo"
    assert connection.take(BINARY, b"\xff\x00", fin=True) == b"\xff\x00"
    assert connection.take(TEXT, b"", fin=True) == ""
    assert connection.take(BINARY, b"", fin=True) == b""


def test_the_fragmented_text_of_rfc_6455_5_7():
    connection = Connection()
    assert connection.take(TEXT, b"\x48\x65\x6c") is None
    assert connection.take(CONTINUATION, b"lo", fin=True) == "Hello"


def test_it_is_active_only_inside_a_fragmented_message():
    connection = Connection()
    assert connection.assembler.active is False
    connection.take(BINARY, b"")
    assert connection.assembler.active is True
    connection.take(CONTINUATION, b"", fin=True)
    assert connection.assembler.active is False
    connection.take(BINARY, b"x", fin=True)
    assert connection.assembler.active is False


def test_nothing_of_a_message_is_left_for_the_next():
    connection = Connection(8)
    assert connection.take_cut(TEXT, b"12345678", [3]) == "12345678"
    assert connection.take_cut(BINARY, b"\xff" * 8, [3]) == b"\xff" * 8
    assert connection.take_cut(TEXT, b"abcdefgh", [1]) == "abcdefgh"


@given(st.lists(st.tuples(texts | st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=9))))
def test_messages_cut_anywhere_arrive_as_they_were(messages: list[tuple[str | bytes, list[int]]]):
    connection = Connection()
    for message, cuts in messages:
        if isinstance(message, str):
            assert connection.take_cut(TEXT, message.encode(), cuts) == message
        else:
            assert connection.take_cut(BINARY, message, cuts) == message


@given(
    st.lists(
        st.tuples(texts | st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=9), st.booleans())
    )
)
def test_compressed_and_plain_messages_cut_anywhere_arrive_as_they_were(
    messages: list[tuple[str | bytes, list[int], bool]],
):
    connection = Connection(deflate=True)
    for message, cuts, compressed in messages:
        opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        sent = compress(payload, 15) if compressed else payload
        assert connection.take_cut(opcode, sent, cuts, rsv1=compressed) == message


# --- what may stand where --------------------------------------------------------


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("bit", ["rsv2", "rsv3"])
def test_a_reserved_bit_is_1002(deflate: bool, opcode: int, bit: str):
    assert Connection(deflate=deflate).refuses(opcode, b"", fin=True, **{bit: True}) == 1002


@pytest.mark.parametrize("bit", ["rsv1", "rsv2", "rsv3"])
def test_a_reserved_bit_in_a_continuation_is_1002(bit: str):
    connection = Connection(deflate=True)
    connection.take(TEXT, compress(b"Hello", 15), rsv1=True)
    assert connection.refuses(CONTINUATION, b"", fin=True, **{bit: True}) == 1002


def test_a_compressed_frame_that_was_not_agreed_on_is_1002():
    assert Connection().refuses(TEXT, compress(b"Hello", 15), fin=True, rsv1=True) == 1002


@pytest.mark.parametrize("fin", [False, True])
def test_a_continuation_without_a_message_is_1002(fin: bool):
    assert Connection().refuses(CONTINUATION, b"x", fin=fin) == 1002


@pytest.mark.parametrize("fin", [False, True])
def test_a_continuation_after_a_whole_message_is_1002(fin: bool):
    connection = Connection()
    connection.take_cut(TEXT, b"Hello", [2])
    assert connection.refuses(CONTINUATION, b"x", fin=fin) == 1002


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_new_message_inside_a_fragmented_one_is_1002(opcode: int, fin: bool):
    connection = Connection()
    connection.take(TEXT, b"He")
    assert connection.refuses(opcode, b"llo", fin=fin) == 1002


@pytest.mark.parametrize("opcode", [3, 7, CLOSE, 11, 15])
def test_any_other_opcode_is_1002(opcode: int):
    assert Connection().refuses(opcode, b"", fin=True) == 1002


# --- UTF-8 -----------------------------------------------------------------------


def code_points() -> list[int]:
    """Return the edges of every row of the table in RFC 3629 §4."""
    edges = [0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000, 0xD7FF, 0xE000, 0xFFFF]
    return [*edges, 0x10000, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFF]


@pytest.mark.parametrize("code_point", code_points())
def test_a_character_may_be_cut_anywhere(code_point: int):
    payload = chr(code_point).encode()
    assert Connection().take_cut(TEXT, payload, shattered(payload)) == chr(code_point)


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        (b"ok", b"\xff"),
        (b"ok", b"\x80"),
        (b"", b"\xc0"),
        (b"", b"\xc1"),
        (b"", b"\xf5"),
        (b"\xc3", b"\x28"),
        (b"\xe0", b"\x9f"),
        (b"\xed", b"\xa0"),  # a surrogate
        (b"\xed", b"\xbf"),
        (b"\xf0", b"\x8f"),
        (b"\xf4", b"\x90"),  # above U+10FFFF
        (b"\xf0\x9f\x98", b"\x28"),
    ],
)
def test_the_first_wrong_byte_of_a_text_is_1007_before_its_end(before: bytes, wrong: bytes):
    connection = Connection()
    connection.take(TEXT, before)
    assert connection.refuses(CONTINUATION, wrong) == 1007
    assert Connection().refuses(TEXT, before + wrong) == 1007


def test_a_wrong_byte_is_noticed_as_early_as_any_utf8_can_show_it():
    """Every start of up to two bytes: refused exactly if no text begins like that."""
    starts = {chr(point).encode()[:2] for point in range(0x110000) if not 0xD800 <= point < 0xE000}
    starts |= {start[:1] for start in starts}
    for first in range(0x80, 0x100):
        for start in (bytes((first,)), *(bytes((first, second)) for second in range(0x80, 0x100))):
            connection = Connection()
            if start in starts:
                assert connection.take(TEXT, start) is None
            else:
                assert connection.refuses(TEXT, start) == 1007


@pytest.mark.parametrize("payload", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"ok\xf0"])
def test_a_text_that_ends_inside_a_character_is_1007(payload: bytes):
    assert Connection().refuses(TEXT, payload, fin=True) == 1007
    connection = Connection()
    connection.take(TEXT, payload)
    assert connection.refuses(CONTINUATION, b"", fin=True) == 1007


def test_a_compressed_text_is_judged_at_its_end():
    connection = Connection(deflate=True)
    sent = compress(b"\xff" * 9, 15)
    connection.take(TEXT, sent[:2], rsv1=True)
    assert connection.refuses(CONTINUATION, sent[2:], fin=True) == 1007


def test_a_binary_message_need_not_be_utf8():
    assert Connection().take_cut(BINARY, b"\xff\xed\xa0", [1, 2]) == b"\xff\xed\xa0"


@given(
    texts, st.binary(min_size=1, max_size=20), texts, st.lists(st.integers(0, 300), max_size=9), st.booleans()
)
def test_a_text_is_1007_exactly_if_it_is_not_utf8(
    head: str, middle: bytes, tail: str, cuts: list[int], compressed: bool
):
    payload = head.encode() + middle + tail.encode()
    connection = Connection(deflate=True)
    sent = compress(payload, 15) if compressed else payload
    try:
        expected = payload.decode()
    except UnicodeDecodeError:
        with pytest.raises(ProtocolError) as caught:
            connection.take_cut(TEXT, sent, cuts, rsv1=compressed)
        assert caught.value.code == 1007
    else:
        assert connection.take_cut(TEXT, sent, cuts, rsv1=compressed) == expected


# --- limits ----------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_exactly_the_limit_passes(opcode: int):
    connection = Connection(10)
    assert connection.take(opcode, b"x" * 10, fin=True)
    assert connection.take_cut(opcode, b"x" * 10, [3, 7])


@pytest.mark.parametrize("fin", [False, True])
def test_a_frame_above_the_limit_is_1009(fin: bool):
    assert Connection(10).refuses(TEXT, b"x" * 11, fin=fin) == 1009


@pytest.mark.parametrize("fin", [False, True])
def test_the_fragment_that_passes_the_limit_is_1009(fin: bool):
    connection = Connection(10)
    connection.take(BINARY, b"x" * 6)
    connection.take(CONTINUATION, b"x" * 4)
    assert connection.refuses(CONTINUATION, b"x", fin=fin) == 1009


def test_the_limit_is_one_of_bytes_not_characters():
    assert Connection(10).refuses(TEXT, ("ä" * 6).encode(), fin=True) == 1009


def test_a_compressed_message_is_limited_by_its_real_size():
    connection = Connection(1000, deflate=True)
    assert connection.take(TEXT, compress(b"x" * 1000, 15), fin=True, rsv1=True) == "x" * 1000
    assert connection.refuses(TEXT, compress(b"x" * 1001, 15), fin=True, rsv1=True) == 1009


@given(st.binary(min_size=1, max_size=50))
def test_a_message_of_the_limit_that_grows_when_compressed_passes(message: bytes):
    connection = Connection(len(message), deflate=True)
    assert connection.take(BINARY, compress(message, 15), fin=True, rsv1=True) == message


def test_compressed_fragments_are_not_kept_without_end():
    connection = Connection(1000, deflate=True)
    stored = b"\x00\x00\x00\xff\xff" * 100
    connection.take(BINARY, stored, rsv1=True)
    connection.take(CONTINUATION, stored)
    assert connection.refuses(CONTINUATION, stored) == 1009


def test_a_million_empty_fragments_keep_nothing():
    connection = Connection()
    feed = connection.assembler.feed
    connection.take(TEXT, b"x")
    blocks = sys.getallocatedblocks()
    for _ in range(1_000_000):
        feed(CONTINUATION, False, False, False, False, b"")
    assert sys.getallocatedblocks() - blocks < 100
    assert connection.take(CONTINUATION, b"y", fin=True) == "xy"
