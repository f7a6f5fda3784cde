"""The text of the opening handshake."""

import pytest

from symphony.client.opening import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Answer,
    AnswerError,
    bad_names,
    check_headers,
    new_key,
    request,
    retry_after,
)
from symphony.websocket.handshake import check_upgrade, switching_protocols

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
OFFERED = ["symphony.v1.json", "symphony.raw"]
ACCEPTED = switching_protocols(KEY, subprotocol="symphony.raw", extension=None, headers=())


def answer(data: bytes) -> Answer:
    found = Answer()
    found.feed(data)
    return found


def test_the_request_is_one_that_our_server_takes() -> None:
    written = request("/chat?a=b", "example.com:81", KEY, subprotocols=OFFERED, headers={"X-Mine": "é"})
    line, *rest = written.decode("latin-1").split("\r\n")
    assert line == "GET /chat?a=b HTTP/1.1"
    assert rest[-2:] == ["", ""]
    fields = [tuple(part.encode("latin-1") for part in one.split(": ", 1)) for one in rest[:-2]]
    headers = [(name.lower(), value) for name, value in fields]
    assert check_upgrade("GET", "1.1", headers) == KEY
    assert (b"host", b"example.com:81") in headers
    assert (b"x-mine", "é".encode("latin-1")) in headers
    assert (b"user-agent", b"Symphony") in headers
    assert (b"sec-websocket-protocol", b"symphony.v1.json, symphony.raw") in headers


def test_a_user_may_set_host_and_user_agent_once() -> None:
    mine = {"host": "inner", "USER-AGENT": "me"}
    written = request("/", "outer", KEY, subprotocols=OFFERED, headers=mine).decode()
    assert "Host: inner\r\n" in written
    assert "USER-AGENT: me\r\n" in written
    assert "outer" not in written
    assert "Symphony" not in written


def test_each_key_is_a_new_one() -> None:
    assert new_key() != new_key()
    assert check_upgrade(
        "GET",
        "1.1",
        [
            (b"host", b"a"),
            (b"upgrade", b"websocket"),
            (b"connection", b"upgrade"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", new_key().encode()),
        ],
    )


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Upgrade": "h2c"}, "set by the handshake"),
        ({"Sec-WebSocket-Protocol": "chat"}, "set by the handshake"),
        ({"a b": "c"}, "not a header name"),
        ({"a": "b\r\nc: d"}, "not allowed in a header"),
        ({"a": "🐎"}, "not allowed in a header"),
    ],
)
def test_headers_that_would_break_it(headers: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_headers(headers)


def test_an_answer_in_any_pieces() -> None:
    for at in range(len(ACCEPTED) + 1):
        found = Answer()
        found.feed(ACCEPTED[:at])
        assert found.status == (101 if at == len(ACCEPTED) else 0)
        found.feed(ACCEPTED[at:])
        assert found.status == 101
        assert found.chosen(KEY, OFFERED) == "symphony.raw"


def test_what_stands_behind_the_answer_is_kept() -> None:
    assert answer(ACCEPTED + b"\x81\x02hi").rest == b"\x81\x02hi"


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        (b"Upgrade: websocket", b"Upgrade: h2c", "not for a WebSocket"),
        (b"Connection: Upgrade", b"Connection: close", "not for a WebSocket"),
        (b"s3pPLMBiTxaQ9kYGzzhZRbK", b"s3pPLMBiTxaQ9kYGzzhZRbX", "another request"),
        (b"symphony.raw", b"soap", "'soap', which was not offered"),
    ],
)
def test_a_101_that_opens_nothing(was: bytes, now: bytes, says: str) -> None:
    assert was in ACCEPTED
    with pytest.raises(AnswerError, match=says):
        answer(ACCEPTED.replace(was, now)).chosen(KEY, OFFERED)


@pytest.mark.parametrize(
    ("header", "offered", "bits"),
    [
        (None, True, None),
        (None, False, None),
        ("permessage-deflate; server_no_context_takeover", True, 15),
        ('permessage-deflate;server_no_context_takeover; client_max_window_bits="9"', True, 9),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits=8", True, 15),
        ("permessage-deflate; server_no_context_takeover", False, "not offered"),
        ("x-webkit-deflate-frame", True, "not offered"),
    ],
)
def test_an_extension(header: str | None, offered: bool, bits: int | str | None) -> None:
    line = f"Sec-WebSocket-Extensions: {header}\r\n".encode() if header else b""
    found = answer(ACCEPTED.replace(b"Connection:", line + b"Connection:"))
    if isinstance(bits, str):
        with pytest.raises(AnswerError, match=bits):
            found.window_bits(offered=offered)
    else:
        assert found.window_bits(offered=offered) == bits


def test_a_101_without_headers() -> None:
    found = answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert found.complete
    with pytest.raises(AnswerError, match="not for a WebSocket"):
        found.chosen(KEY, OFFERED)


def test_no_subprotocol_is_a_choice() -> None:
    plain = switching_protocols(KEY, subprotocol=None, extension=None, headers=())
    assert answer(plain).chosen(KEY, OFFERED) is None


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    ],
)
def test_a_refusal_has_a_body(body: bytes) -> None:
    whole = b"HTTP/1.1 403 Forbidden\r\nX-A: 1\r\nx-a: 2\r\n" + body
    found = Answer()
    for byte in whole:
        assert not found.complete
        found.feed(bytes((byte,)))
    assert found.complete
    assert (found.status, found.phrase, found.body) == (403, "Forbidden", b"hello")
    assert found.headers["x-a"] == "1, 2"


def test_a_body_without_a_length_lasts_until_the_end() -> None:
    found = answer(b"HTTP/1.0 500 Oops\r\n\r\nhel")
    found.feed(b"lo")
    assert (found.status, found.body, found.complete) == (500, b"hello", False)


def test_an_interim_answer_is_passed_over() -> None:
    found = answer(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
    assert (found.status, found.complete) == (0, False)
    found.feed(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert (found.status, found.phrase, found.complete, "link" in found.headers) == (
        404,
        "Not Found",
        True,
        False,
    )


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"220 mail\r\n"]
)
def test_what_is_not_http(data: bytes) -> None:
    with pytest.raises(AnswerError, match=r"not HTTP"):
        answer(data)


@pytest.mark.within("client.opening.MAX_HEAD_BYTES")
@pytest.mark.beyond("client.opening.MAX_HEAD_BYTES")
def test_a_head_is_bounded() -> None:
    found = answer(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(MAX_HEAD_BYTES // 1024 - 1):
        found.feed(b"x" * 1024)
    with pytest.raises(AnswerError, match=str(MAX_HEAD_BYTES)):
        found.feed(b"x" * 1024)


@pytest.mark.within("client.opening.MAX_BODY_BYTES")
@pytest.mark.beyond("client.opening.MAX_BODY_BYTES")
def test_a_body_is_bounded() -> None:
    whole = answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES + b"x" * MAX_BODY_BYTES)
    assert (whole.complete, len(whole.body)) == (True, MAX_BODY_BYTES)
    found = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000)
    assert found.complete
    assert len(found.body) == MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, 999999999.0),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, 60.0) == seconds


def test_names_that_cannot_be_offered() -> None:
    assert bad_names(["chat.v1", "a b", "", "a,b"]) == ["a b", "", "a,b"]


CHUNKED = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"


@pytest.mark.within("client.opening._MAX_RESPONSE_BYTES")
def test_a_body_may_come_in_small_chunks() -> None:
    found = answer(CHUNKED + b"1\r\nA\r\n" * 16_000 + b"0\r\n\r\n")
    assert (found.complete, found.body) == (True, b"A" * 16_000)


@pytest.mark.beyond("client.opening._MAX_RESPONSE_BYTES")
@pytest.mark.parametrize(
    "more",
    [
        b"0\r\n" + b"X: y\r\n" * 100_000,
        b"1;" + b"x" * 1_000_000,
        b"1\r\nA\r\n" * 100_000,
        b"0\r\nX: " + b"y" * 1_000_000,
    ],
    ids=["trailers", "an extension", "small chunks", "a trailer"],
)
@pytest.mark.parametrize("size", [1000, 65536])
def test_what_follows_the_head_is_bounded(more: bytes, size: int) -> None:
    """Trailers were joined to the headers, in time quadratic in their number, and had no end."""
    found = answer(CHUNKED)
    fed = 0
    while not found.complete and fed < len(more):
        found.feed(more[fed : fed + size])
        fed += size
    assert found.complete
    assert fed < 300_000
    assert found.headers == {"transfer-encoding": "chunked", "x": "y"}
    assert len(found.body) <= MAX_BODY_BYTES


@pytest.mark.parametrize(
    "second",
    [b"HTTP/1.1 101 Go\r\nA: b\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: z\r\n\r\n", b"HTTP/1.1 103 Early\r\n\r\n"],
)
def test_a_second_response_does_not_replace_the_first(second: bytes) -> None:
    found = answer(b"HTTP/1.1 404 Not Found\r\nX: y\r\nContent-Length: 0\r\n\r\n" + second)
    assert (found.status, found.phrase) == (404, "Not Found")
    assert found.headers == {"x": "y", "content-length": "0"}
