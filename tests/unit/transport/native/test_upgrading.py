"""Which handshakes are read in one go."""

import pytest

from symphony.limits import Limits
from symphony.transport.native.upgrading import asks_for_websocket, read_handshake

FIELDS = (
    b"Host: localhost",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def request(*fields: bytes, line: bytes = b"GET /echo?a=1 HTTP/1.1", end: bytes = b"\r\n\r\n") -> bytes:
    return b"\r\n".join((line, *fields)) + end


def test_a_whole_handshake_is_read_up_to_its_end():
    data = request(*FIELDS)
    found = read_handshake(data + b"\x81\x00\r\n\r\n", Limits())
    assert found is not None
    assert found.target == b"/echo?a=1"
    assert found.key == "dGhlIHNhbXBsZSBub25jZQ=="
    assert found.size == len(data)
    assert found.fields[0] == (b"host", b"localhost")
    assert len(found.fields) == len(FIELDS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET",
        b"\x00" * 40 + b"\r\n\r\n",
        request(*FIELDS, end=b"\r\n"),
        request(*FIELDS, line=b"POST / HTTP/1.1"),
        request(*FIELDS, line=b"GET / HTTP/1.0"),
        request(*FIELDS, line=b"GET / HTTP/2.0"),
        request(*FIELDS, line=b"GET http://other.example/ HTTP/1.1"),
        request(b"Host: localhost", b"X-Upgrade: websocket"),
        request(*FIELDS, b"Host: localhost"),
        request(*FIELDS, b"Content-Length: 1"),
        request(*FIELDS, b"Transfer-Encoding: chunked"),
        request(*FIELDS[:-1]),
        request(*FIELDS[:-1], b"Sec-WebSocket-Key: short"),
        request(*FIELDS[:1], b"Upgrade: h2c", *FIELDS[2:]),
        request(*FIELDS, b"Broken\x00: 1"),
    ],
)
def test_everything_else_is_left_to_the_front_door(data: bytes):
    assert read_handshake(data, Limits()) is None


def test_a_head_above_the_limits_is_left_to_the_front_door():
    data = request(*FIELDS)
    assert read_handshake(data, Limits(max_header_bytes=len(data), max_header_fields=len(FIELDS)))
    assert read_handshake(data, Limits(max_header_bytes=len(data) - 1)) is None
    assert read_handshake(data, Limits(max_header_fields=len(FIELDS) - 1)) is None


def test_both_headers_are_lists_on_any_number_of_lines():
    asked = [
        (b"upgrade", b"h2c"),
        (b"connection", b"keep-alive"),
        (b"upgrade", b"x,\tWebSocket "),
        (b"connection", b" Upgrade"),
    ]
    assert asks_for_websocket(asked)
    assert not asks_for_websocket(asked[:3])
    assert not asks_for_websocket([(b"connection", b"websocket"), (b"upgrade", b"upgrade")])
