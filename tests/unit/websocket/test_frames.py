from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.errors import ProtocolError, valid_close_code
from symphony.websocket.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    message_frame,
    parse_close,
)

LENGTHS = [
    (0, "00"),
    (1, "01"),
    (125, "7d"),
    (126, "7e007e"),
    (127, "7e007f"),
    (65535, "7effff"),
    (65536, "7f0000000000010000"),
]


def test_the_unmasked_text_message_of_rfc_6455_5_7():
    assert message_frame("Hello") == bytes.fromhex("810548656c6c6f")


def test_the_unmasked_ping_of_rfc_6455_5_7():
    assert frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")


def test_the_pong_of_rfc_6455_5_7():
    assert frame(PONG, b"Hello") == bytes.fromhex("8a0548656c6c6f")


def test_the_binary_message_of_256_bytes_of_rfc_6455_5_7():
    payload = bytes(range(256))
    assert message_frame(payload) == bytes.fromhex("827e0100") + payload


def test_the_binary_message_of_64_kib_of_rfc_6455_5_7():
    payload = bytes(65536)
    assert message_frame(payload) == bytes.fromhex("827f0000000000010000") + payload


@pytest.mark.parametrize(("size", "length"), LENGTHS)
def test_a_length_takes_the_fewest_bytes_it_can(size: int, length: str):
    payload = b"x" * size
    assert message_frame(payload.decode()) == b"\x81" + bytes.fromhex(length) + payload
    assert message_frame(payload) == b"\x82" + bytes.fromhex(length) + payload
    assert frame(BINARY, payload) == message_frame(payload)


def test_the_length_of_a_text_counts_its_bytes():
    assert message_frame("ä" * 63) == b"\x81\x7e\x00\x7e" + ("ä" * 63).encode()


def test_a_compressed_frame_has_rsv1_set():
    assert frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv1=True) == bytes.fromhex("c107f248cdc9c90700")


def test_a_close_frame_has_code_and_reason():
    assert close_frame(1000, "bye") == bytes.fromhex("880503e8") + b"bye"


def test_a_close_frame_for_1005_has_no_payload():
    assert close_frame(1005, "never sent") == bytes.fromhex("8800")


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000])
def test_a_close_code_that_must_not_be_sent_is_refused(code: int):
    with pytest.raises(ValueError, match=str(code)):
        close_frame(code)


@pytest.mark.within("websocket.frames._MAX_REASON_BYTES")
@pytest.mark.beyond("websocket.frames._MAX_REASON_BYTES")
def test_a_long_reason_is_cut_at_a_character():
    assert close_frame(1000, "x" * 123) == bytes((0x80 | CLOSE, 125)) + b"\x03\xe8" + b"x" * 123
    sent = close_frame(1000, "x" * 122 + "ä")
    assert sent == bytes((0x80 | CLOSE, 124)) + b"\x03\xe8" + b"x" * 122


@given(st.sampled_from([1000, 1011, 3000, 4999]), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_a_close_frame_says_is_read_back(code: int, reason: str):
    sent = close_frame(code, reason)
    assert len(sent) <= 127
    read_code, read_reason = parse_close(sent[2:])
    assert read_code == code
    assert reason.startswith(read_reason)
    assert len(read_reason.encode()) > 119 or read_reason == reason


def test_an_empty_close_payload_is_1005():
    assert parse_close(b"") == (1005, "")


def test_a_close_payload_without_a_reason_is_the_code():
    assert parse_close(b"\x03\xe9") == (1001, "")


def test_a_close_payload_of_one_byte_is_a_protocol_error():
    with pytest.raises(ProtocolError, match="one byte") as caught:
        parse_close(b"\x03")
    assert caught.value.code == 1002


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_code_that_must_not_arrive_is_a_protocol_error(code: int):
    with pytest.raises(ProtocolError) as caught:
        parse_close(code.to_bytes(2, "big"))
    assert caught.value.code == 1002


@pytest.mark.parametrize("reason", [b"\xff", b"\xce", b"\xed\xa0\x80"])
def test_a_close_reason_that_is_not_utf8_is_1007(reason: bytes):
    with pytest.raises(ProtocolError) as caught:
        parse_close(b"\x03\xe8" + reason)
    assert caught.value.code == 1007


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4000, 4999])
def test_registered_and_private_close_codes_are_valid(code: int):
    assert valid_close_code(code)
    assert parse_close(close_frame(code)[2:]) == (code, "")


@given(
    st.builds(int.to_bytes, st.integers(990, 5010), st.just(2), st.just("big")) | st.just(b""),
    st.binary(max_size=123),
)
def test_any_close_payload_is_read_or_refused(code_bytes: bytes, text: bytes):
    payload = code_bytes + text
    with suppress(ProtocolError):
        code, reason = parse_close(payload)
        assert close_frame(code, reason)[2:] == payload
