from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symphony.errors import ProtocolError
from symphony.websocket.deflate import Deflate, compress, inflate, max_compressed_bytes, negotiate
from symphony.websocket.handshake import HandshakeError

PLAIN = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
LIMIT = 1 << 20


def refusal(payload: bytes, max_bytes: int = LIMIT) -> int:
    """Return the close code that *payload* is refused with."""
    with pytest.raises(ProtocolError) as caught:
        inflate(payload, max_bytes)
    return caught.value.code


def finished(data: bytes) -> bytes:
    """Return *data* as one DEFLATE stream whose last block is final."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


# --- negotiation -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "bits", "answer"),
    [
        ("permessage-deflate", 15, PLAIN),
        ("permessage-deflate; client_max_window_bits", 15, PLAIN),
        ("permessage-deflate; client_max_window_bits=8", 15, PLAIN),
        ("permessage-deflate; client_max_window_bits=10", 15, PLAIN),
        ("permessage-deflate; server_no_context_takeover", 15, PLAIN),
        ("permessage-deflate; client_no_context_takeover", 15, PLAIN),
        ("permessage-deflate; server_max_window_bits=9", 9, f"{PLAIN}; server_max_window_bits=9"),
        ("permessage-deflate; server_max_window_bits=15", 15, f"{PLAIN}; server_max_window_bits=15"),
        ('permessage-deflate; server_max_window_bits="10"', 10, f"{PLAIN}; server_max_window_bits=10"),
        ('permessage-deflate; server_max_window_bits="1\\0"', 10, f"{PLAIN}; server_max_window_bits=10"),
        ("permessage-deflate;\tserver_max_window_bits = 12 ", 12, f"{PLAIN}; server_max_window_bits=12"),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=11; "
            "client_no_context_takeover; server_no_context_takeover",
            11,
            f"{PLAIN}; server_max_window_bits=11",
        ),
    ],
)
def test_an_offer_that_can_be_kept_is_accepted(offer: str, bits: int, answer: str):
    assert negotiate([offer]) == Deflate(bits, answer)


@pytest.mark.parametrize(
    "parameters",
    [
        "server_max_window_bits=8",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=1e1",
        "server_max_window_bits",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=08",
        "client_max_window_bits=x",
        "server_no_context_takeover=true",
        'client_no_context_takeover="1"',
        "unknown",
        "unknown=1",
        "Server_max_window_bits=10",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits=10",
    ],
)
def test_an_offer_with_a_parameter_we_cannot_keep_is_declined_and_the_next_one_tried(parameters: str):
    declined = f"permessage-deflate; {parameters}"
    assert negotiate([declined]) is None
    assert negotiate([f"{declined}, permessage-deflate"]) == Deflate(15, PLAIN)


def test_the_first_acceptable_offer_is_taken():
    offers = "permessage-deflate; server_max_window_bits=10, permessage-deflate"
    assert negotiate([offers]) == Deflate(10, f"{PLAIN}; server_max_window_bits=10")


def test_offers_may_be_on_several_lines():
    lines = ["permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=9"]
    assert negotiate(lines) == Deflate(9, f"{PLAIN}; server_max_window_bits=9")


def test_other_extensions_are_skipped():
    header = 'x-webkit-deflate-frame, foo; bar="a\\b", permessage-deflate-2, permessage-deflate'
    assert negotiate([header]) == Deflate(15, PLAIN)


@pytest.mark.parametrize("values", [[], ["x-webkit-deflate-frame"]])
def test_without_an_offer_there_is_no_compression(values: list[str]):
    assert negotiate(values) is None


def test_empty_elements_of_the_list_are_ignored():
    assert negotiate([" ,, permessage-deflate ,", ""]) == Deflate(15, PLAIN)


@pytest.mark.parametrize(
    "header",
    [
        "",
        " , ",
        "permessage-deflate;",
        "permessage-deflate; =10",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=10 12",
        'permessage-deflate; server_max_window_bits="10',
        'permessage-deflate; server_max_window_bits=""',
        'permessage-deflate; server_max_window_bits="1 0"',
        'permessage-deflate; server_max_window_bits="10"0',
        "permessage deflate",
        "permessage-deflate, ;",
        "permessage-deflate, foo/bar",
        'permessage-deflate, "',
    ],
)
def test_a_malformed_header_fails_the_handshake(header: str):
    with pytest.raises(HandshakeError) as caught:
        negotiate([header])
    assert caught.value.status == 400


@given(st.text('permessage-deflate;=," \\\t18'))
def test_any_header_is_read_or_refused(header: str):
    with suppress(HandshakeError):
        agreed = negotiate([header])
        assert agreed is None or agreed.extension.startswith(PLAIN)


@pytest.mark.parametrize("part", [" ", "a", "a ", ",", ";a", ';a="b"', "a;b=c ", 'a;b="\\'])
def test_reading_a_header_costs_time_in_proportion_to_its_size(part: str):
    """A pattern that goes back over what it read runs into the time limit of a test here."""
    for header in (part * 300_000 + "/", "x" + part * 300_000 + "/"):
        with pytest.raises(HandshakeError):
            negotiate([header])


# --- the examples of RFC 7692 §7.2.3 ----------------------------------------------


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("f248cdc9c90700", b"Hello"),  # §7.2.3.1, one block
        ("000500faff48656c6c6f00", b"Hello"),  # §7.2.3.3, not compressed
        ("f348cdc9c9070000", b"Hello"),  # §7.2.3.4, a final block
        ("f248050000 00ffff cac9c90700", b"Hello"),  # §7.2.3.5, two blocks
        ("00", b""),  # §7.2.3.6, an empty message
    ],
)
def test_the_examples_of_rfc_7692_7_2_3_are_inflated(payload: str, message: bytes):
    assert inflate(bytes.fromhex(payload), LIMIT) == message


def test_one_block_is_compressed_as_in_rfc_7692_7_2_3_1():
    assert compress(b"Hello", 15) == bytes.fromhex("f248cdc9c90700")


def test_an_empty_message_is_compressed_as_in_rfc_7692_7_2_3_6():
    assert compress(b"", 15) == b"\x00"


def test_a_message_that_leans_on_the_one_before_is_1007():
    """§7.2.3.2: legal only where the window is kept, which we always decline."""
    assert refusal(bytes.fromhex("f200110000")) == 1007


# --- final blocks ----------------------------------------------------------------


def test_a_message_may_end_with_a_final_block():
    assert inflate(finished(b"Hello"), LIMIT) == b"Hello"


def test_blocks_may_follow_a_final_block():
    assert inflate(finished(b"He") + compress(b"llo", 15), LIMIT) == b"Hello"


def test_several_final_blocks_may_be_in_a_message():
    assert inflate(finished(b"He") + finished(b"ll") + finished(b"o") + b"\x00", LIMIT) == b"Hello"


def test_the_limit_counts_over_final_blocks():
    payload = finished(b"x" * 60) + finished(b"y" * 41)
    assert len(inflate(payload, 101)) == 101
    assert refusal(payload, 100) == 1009


def test_garbage_behind_a_final_block_is_1007():
    assert refusal(finished(b"Hello") + b"\xff\xff") == 1007


@pytest.mark.within("websocket.deflate._MAX_STREAMS")
@pytest.mark.beyond("websocket.deflate._MAX_STREAMS")
def test_a_message_of_nothing_but_final_blocks_is_refused():
    assert inflate(finished(b"") * 60, LIMIT) == b""
    assert refusal(finished(b"") * 100_000) == 1008


# --- limits and corruption -------------------------------------------------------


@pytest.mark.parametrize("payload", ["", "ff", "f248cdc9", "f248cdc9c9", "0005", "000500faff4865", "06"])
def test_a_corrupt_or_cut_off_message_is_1007(payload: str):
    assert refusal(bytes.fromhex(payload)) == 1007


def test_a_message_cut_off_inside_a_block_is_never_taken_for_a_whole_one():
    whole = compress(bytes(range(256)) * 8, 15)
    for size in range(1, len(whole) - 1):
        assert refusal(whole[:size]) == 1007


def test_a_message_of_exactly_the_limit_passes():
    assert inflate(compress(b"x" * 1000, 15), 1000) == b"x" * 1000
    assert refusal(compress(b"x" * 1001, 15), 1000) == 1009


def test_a_bomb_is_refused_without_being_expanded():
    bomb = compress(bytes(64 << 20), 15)
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    try:
        assert refusal(bomb, 1000) == 1009
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=3000) | st.text().map(str.encode), st.integers(9, 15))
def test_what_is_compressed_is_inflated(message: bytes, window_bits: int):
    assert inflate(compress(message, window_bits), len(message)) == message


@pytest.mark.parametrize("window_bits", [9, 10, 12, 15])
@pytest.mark.parametrize("size", [250, 251, 8192, 8193, 70_000])
def test_no_window_larger_than_agreed_is_needed(window_bits: int, size: int):
    message = (bytes(range(256)) * 3 + b"Hello" * 99) * (size // 1263 + 1)
    payload = compress(message[:size], window_bits)
    inflater = zlib.decompressobj(-window_bits)
    assert inflater.decompress(payload + b"\x00\x00\xff\xff") == message[:size]


@given(st.binary(max_size=200), st.integers(1, 300))
@example(b"", 1)
def test_arbitrary_bytes_give_a_message_within_the_limit_or_a_protocol_error(payload: bytes, max_bytes: int):
    with suppress(ProtocolError):
        assert len(inflate(payload, max_bytes)) <= max_bytes


@given(st.binary(max_size=400), st.integers(0, 400))
def test_more_than_the_limit_is_1009(message: bytes, max_bytes: int):
    payload = compress(message, 15)
    if len(message) > max_bytes:
        assert refusal(payload, max_bytes) == 1009
    else:
        assert inflate(payload, max_bytes) == message


@given(st.binary(max_size=2000), st.integers(0, 9), st.integers(1, 9))
def test_no_message_within_the_limit_is_larger_compressed_than_is_allowed(
    message: bytes, level: int, memory: int
):
    compressor = zlib.compressobj(level, wbits=-15, memLevel=memory)
    payload = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(payload) <= max_compressed_bytes(len(message))
