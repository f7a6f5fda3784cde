"""Frames as a client writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import raw
from symphony.client.frames import masked_frame, masked_message
from symphony.websocket.frames import PING

SIZES = (0, 1, 2, 3, 4, 125, 126, 127, 2047, 2048, 2049, 2050, 2051, 65535, 65536, 65537, 1 << 20)


def parts(frame: bytes) -> tuple[int, int, bytes]:
    """Return first byte, length of the header with its mask, and the payload unmasked, the slow way."""
    assert frame[1] & 0x80, "not masked"
    at, size = 2, frame[1] & 0x7F
    if size == 126:
        at, size = 4, int.from_bytes(frame[2:4], "big")
        assert size > 125
    elif size == 127:
        at, size = 10, int.from_bytes(frame[2:10], "big")
        assert size > 65535
    key, masked = frame[at : at + 4], frame[at + 4 :]
    assert len(masked) == size
    return frame[0], at + 4, raw.mask(masked, key)


@pytest.mark.parametrize("size", SIZES)
def test_a_payload_of_any_size_is_masked_and_framed(size: int) -> None:
    payload = bytes(index * 7 % 256 for index in range(size))
    first, _, unmasked = parts(masked_message(payload))
    assert first == 0x82
    assert unmasked == payload


@given(st.binary(min_size=2000, max_size=2100))
def test_the_two_ways_to_mask_agree(payload: bytes) -> None:
    assert parts(masked_message(payload))[2] == payload


def test_text_is_utf8() -> None:
    first, _, payload = parts(masked_message("žluťoučký 🐎"))
    assert first == 0x81
    assert payload.decode() == "žluťoučký 🐎"


def test_each_frame_has_a_mask_of_its_own() -> None:
    masks = {masked_frame(PING, b"")[2:6] for _ in range(1000)}
    assert len(masks) > 990
