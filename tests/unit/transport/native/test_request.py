"""The bounds of one request, and where to cut what has arrived."""

import pytest

from symphony.limits import Limits
from symphony.transport.native.request import BadRequestError, Meter, end_of_piece


def pieces(data: bytes, segment: int) -> list[bytes]:
    """Cut *data* as the server does if it arrives in segments of a size."""
    found: list[bytes] = []
    unparsed, tail = bytearray(), b""
    for at in range(0, len(data), segment):
        unparsed += data[at : at + segment]
        while unparsed:
            piece = bytes(unparsed[: end_of_piece(unparsed, tail)])
            del unparsed[: len(piece)]
            tail = (tail + piece)[-3:]
            found.append(piece)
    return found


@pytest.mark.parametrize("segment", [1, 2, 3, 4, 5, 7, 11, 100])
def test_no_piece_reaches_past_the_end_of_a_request(segment: int):
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    cut = pieces(request * 5, segment)
    assert b"".join(cut) == request * 5
    ends = {len(request) * n for n in range(1, 6)}
    at = 0
    for piece in cut:
        assert not any(at < end < at + len(piece) for end in ends)
        at += len(piece)


@pytest.mark.parametrize("data", [b"\r\n\r\n\r\n\r\n", b"\r\n\r\n\r\r\n\r\n", b"a\r\n\r\n\n\r\n\r\n"])
def test_every_piece_has_something_in_it(data: bytes):
    for segment in range(1, 9):
        assert all(pieces(data, segment))


def status_of(meter: Meter, *counts: tuple[str, int]) -> int | None:
    try:
        for name, number in counts:
            getattr(meter, name)(number)
    except BadRequestError as error:
        return error.status
    return None


def test_head_extensions_and_trailers_count_together():
    limits = Limits(max_header_bytes=1000)
    assert status_of(Meter(limits), ("head", 400), ("after_head", 600)) is None
    assert status_of(Meter(limits), ("head", 400), ("after_head", 601)) == 431
    assert status_of(Meter(limits), ("head", 1001)) == 431


def test_data_and_the_sizes_of_chunks_are_no_extensions():
    meter = Meter(Limits(max_header_bytes=100))
    for _ in range(10_000):
        meter.chunk()
        meter.data(1)
        meter.after_head(6)


def test_each_request_is_counted_by_itself():
    meter = Meter(Limits(max_header_bytes=100, max_body_bytes=100))
    for _ in range(10):
        meter.begin()
        meter.head(100)
        meter.data(100)


@pytest.mark.parametrize(("size", "status"), [(100, None), (101, 413), (10**30, 413)])
def test_a_body_that_is_announced_too_large_is_413(size: int, status: int | None):
    assert status_of(Meter(Limits(max_body_bytes=100)), ("announce", size)) == status
    assert status_of(Meter(Limits(max_body_bytes=None)), ("announce", size)) is None
