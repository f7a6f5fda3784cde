"""Where a URL leads."""

import re

import pytest

from symphony.client.address import parse_url, without_secrets


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "target", "authority"),
    [
        ("ws://example.com", False, "example.com", 80, "/", "example.com"),
        ("wss://example.com/chat?a=1&b=%20", True, "example.com", 443, "/chat?a=1&b=%20", "example.com"),
        ("http://127.0.0.1:8080/x", False, "127.0.0.1", 8080, "/x", "127.0.0.1:8080"),
        ("https://example.com:444/x", True, "example.com", 444, "/x", "example.com:444"),
        ("ws://[::1]:8080/", False, "::1", 8080, "/", "[::1]:8080"),
        ("WS://Example.COM/A", False, "example.com", 80, "/A", "example.com"),
        ("ws://bücher.example/ž ?q=ž", False, "xn--bcher-kva.example", 80, "/%C5%BE%20?q=%C5%BE", None),
        ("ws://[fe80::1%25eth0]:8000/", False, "fe80::1%eth0", 8000, "/", "[fe80::1]:8000"),
        ("wss://[FE80::1%25Eth0]/x", True, "fe80::1%Eth0", 443, "/x", "[fe80::1]"),
        ("ws://[fe80::1%eth0]/", False, "fe80::1%eth0", 80, "/", "[fe80::1]"),
        ("ws://[fe80::1%252]/", False, "fe80::1%2", 80, "/", "[fe80::1]"),
        ("ws://a/x#part", False, "a", 80, "/x", "a"),
    ],
)
def test_a_url(url: str, secure: bool, host: str, port: int, target: str, authority: str | None) -> None:
    address = parse_url(url)
    assert address[:4] == (secure, host, port, target)
    assert address.authority == (authority or host)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:8080", "is not the URL of a server; write it as 'ws://127.0.0.1:8080/chat'"),
        ("/chat", "is not the URL of a server"),
        ("ftp://example.com", "is not the URL of a server"),
        ("ws://", "is not the URL of a server"),
        ("ws://a:99999/", "is not a URL: Port out of range"),
        ("ws://a:b/", "is not a URL"),
        ("ws://me:secret@example.com", "use token= or headers="),
        ("ws://[fe80::1%25]/", "an invalid zone"),
        ("ws://a b/", "an invalid host name"),
    ],
)
def test_what_is_none(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


def test_what_people_are_shown_has_no_query() -> None:
    assert parse_url("wss://example.com/chat?token=secret").where == "wss://example.com/chat"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://other/path?token=s3cret", "http://other/path?***"),
        ("/path?a=s3cret&b=s3cret#s3cret", "/path?***"),
        ("http://me:s3cret@other/", "http://***@other/"),
        ("//s3cret@s3cret@other/a@b", "//***@other/a@b"),
        ("/path#s3cret", "/path#***"),
        ("?s3cret", "?***"),
        ("wss://other/path", "wss://other/path"),
        ("/a?\ns3cret", "/a?***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
