"""What is said of attempts that failed, where no real network says it."""

import errno
import ssl
from typing import Any

import pytest

from symphony.client import refusals
from symphony.client.address import parse_url
from symphony.client.loss import sentence
from symphony.client.opening import Answer

PLAIN = parse_url("ws://example.com/")
SECURE = parse_url("wss://[::1]:444/")


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
        (b"", "HTTP 403 Forbidden."),
        (b"\x00\x01", "HTTP 403 Forbidden."),
        (b"two\nlines", "HTTP 403 Forbidden."),
        (b"x" * 300, f"HTTP 403 Forbidden. It says: '{'x' * 200}…'."),
        (b"{}", "HTTP 403 Forbidden. It says: '{}'."),
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
