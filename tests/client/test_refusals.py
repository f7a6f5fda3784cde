"""What is said of attempts that failed, where no real network says it."""

import errno
import ssl
from typing import Any

import msgspec
import pytest

from symphony.client import refusals
from symphony.client.address import parse_url
from symphony.client.link import Close
from symphony.client.loss import sentence
from symphony.client.opening import Answer, AnswerError
from symphony.client.payload import Decoding, error_said
from symphony.errors import RemoteError
from symphony.protocol.envelopes import MalformedError
from symphony.protocol.v1 import MSGPACK

PLAIN = parse_url("ws://example.com/")
SECURE = parse_url("wss://[::1]:444/")
FORBIDDEN = (
    "HTTP 403 Forbidden. May this client connect? Check the token and the `Origin`, "
    "and the path if the app is mounted."
)


@pytest.mark.parametrize(
    ("address", "problems", "reason", "message"),
    [
        (
            PLAIN,
            [ConnectionRefusedError(), TimeoutError()],
            "no answer",
            "example.com:80 does not answer. Is the host correct, and is there no firewall in between?",
        ),
        (
            PLAIN,
            [
                OSError(errno.EHOSTUNREACH, "No route to host"),
                OSError(errno.EHOSTUNREACH, "No route to host"),
            ],
            "No route to host",
            "no connection to example.com:80: No route to host.",
        ),
        (
            PLAIN,
            [OSError(errno.EMFILE, "Too many open files"), OSError("odd")],
            "Too many open files; odd",
            "no connection to example.com:80: Too many open files; odd.",
        ),
        (
            SECURE,
            [ConnectionResetError()],
            "TLS failed",
            "[::1]:444 ended the connection in the TLS handshake. If it has no certificate, write ws://.",
        ),
        (PLAIN, [ConnectionResetError()], "ConnectionResetError", "no connection to example.com:80: Conn"),
    ],
)
def test_addresses_that_do_not_connect(address: Any, problems: Any, reason: str, message: str) -> None:
    error = refusals.unreachable(problems, address)
    assert (error.code, error.reason, error.again) == (1006, reason, True)
    assert error.message.startswith(message)


def test_a_tls_error_without_a_reason() -> None:
    error = refusals.tls(ssl.SSLError(1, "odd"), SECURE)
    assert (error.code, error.again) == (1015, False)
    assert error.message.startswith("the TLS handshake with [::1]:444 failed (odd).")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", FORBIDDEN),
        (b"\x00\x01", FORBIDDEN),
        (b"two\nlines", FORBIDDEN),
        (b"x" * 300, f"{FORBIDDEN} It says: '{'x' * 199}…'."),
        (b"{}", f"{FORBIDDEN} It says: '{{}}'."),
    ],
)
def test_what_a_page_says(body: bytes, says: str) -> None:
    answer = Answer()
    answer.feed(
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    answer.feed(body)
    assert refusals.http(answer, None).message == says


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the end", "The end."),
        ("ws://a is closed", "ws://a is closed."),
        ("the end. Is it?", "The end. Is it?"),
        ("done.", "done."),
    ],
)
def test_a_clause_becomes_a_sentence(text: str, said: str) -> None:
    assert sentence(text) == said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1006, "could not be reached"),
        (1002, "could not be reached"),
        (1015, "could not be reached"),
        (1011, "failed to open the connection"),
        (4500, "failed to open the connection"),
        (4502, "failed to open the connection"),
        (4503, "refused the connection"),
        (1013, "refused the connection"),
        (4401, "refused the connection"),
        (4404, "refused the connection"),
        (4200, "refused the connection"),
    ],
)
def test_what_the_server_did(code: int, said: str) -> None:
    assert refusals.verb(code) == said


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, b"", "HTTP 500 Internal Server Error. The server's log says why."),
        (
            500,
            b'{"code":"internal","message":"it failed"}',
            "internal: it failed (HTTP 500 Internal Server Error). The server's log says why.",
        ),
        (
            502,
            b"",
            "HTTP 502 Bad Gateway. This is a proxy that cannot reach the server. Is the server running?",
        ),
        (401, b"", "HTTP 401 Unauthorized. Does it require a token? Pass token= or headers=."),
        (404, b"", "HTTP 404 Not Found. The server has no such path."),
        (200, b"", "HTTP 200 OK. Is there a WebSocket at this path?"),
        (
            400,
            b"<h1>The plain HTTP request was sent to HTTPS port</h1>",
            "HTTP 400 Bad Request. If it expects TLS, write wss://.",
        ),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, says: str) -> None:
    answer = Answer()
    answer.feed(
        b"HTTP/1.1 %d \r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    )
    answer.feed(body)
    assert refusals.http(answer, None).message == says


@pytest.mark.parametrize(
    ("close", "says"),
    [
        (Close(1011, "", clean=True), "internal (1011). The server's log says why."),
        (Close(1011, "no database", clean=True), "no database (1011). The server's log says why."),
        (Close(4401, "", clean=True), "unauthorized (4401)"),
        (Close(4403, "ask her", clean=True), "ask her (4403)"),
        (Close(4999, "", clean=True), "close code (4999)"),
    ],
)
def test_what_a_close_code_means(close: Close, says: str) -> None:
    assert refusals.close(close).message == says


def test_tls_where_http_was_expected() -> None:
    with pytest.raises(AnswerError, match="the response is TLS, not HTTP"):
        Answer().feed(b"\x15\x03\x03\x00\x02\x02\x16")
    error = refusals.no_http(AnswerError("the response is TLS, not HTTP"), PLAIN)
    assert error.message.endswith("If it expects TLS, write wss://.")


LONG = "\x1b[31m" + "x" * 60_000


@pytest.mark.parametrize(
    ("phrase", "headers", "body"),
    [
        (LONG, {}, b""),
        ("", {"location": LONG}, b""),
        ("", {}, msgspec.json.encode({"code": LONG})),
        ("", {}, msgspec.json.encode({"code": "no", "message": LONG})),
        ("", {"content-type": "text/plain"}, b"x" * 60_000),
    ],
)
def test_long_text_of_a_server_is_cut_and_escaped(phrase: str, headers: Any, body: bytes) -> None:
    answer = Answer()
    answer.status, answer.phrase, answer.headers, answer.body = 302, phrase, headers, body
    error = refusals.http(answer, None)
    assert max(len(error.message), len(error.reason)) < 1000
    assert "\x1b" not in error.message + error.reason


def test_long_text_in_an_invalid_response_is_cut() -> None:
    for error in (
        refusals.no_websocket(LONG),
        refusals.no_http(AnswerError(LONG), PLAIN),
        refusals.close(Close(4403, "", True), refusal=RemoteError("no", LONG)),
    ):
        assert max(len(error.message), len(error.reason)) < 1000
        assert "\x1b" not in error.message + error.reason


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_a_delay_that_is_none_is_left_out(delay: float) -> None:
    said = error_said(msgspec.msgpack.encode({"code": "busy", "retry_after": delay}), Decoding("msgpack"))
    assert said is not None
    assert said.retry_after is None
    with pytest.raises(MalformedError):
        MSGPACK.decode(msgspec.msgpack.encode({"retry": delay}))
