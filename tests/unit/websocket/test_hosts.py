"""Which hosts a server answers for."""

import pytest

from symphony.errors import ConfigurationError
from symphony.websocket.handshake import HandshakeError
from symphony.websocket.hosts import LOCAL_HOSTS, check_hosts, check_target, host_advice, host_allowed


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com:8080", "example.COM"),
        ("example.com.", "example.com"),
        ("example.com:8443", "example.com:8443"),
        ("example.com", "example.com:80"),
        ("a.example.com", "*.example.com"),
        ("a.b.example.com:1", "*.example.com:*"),
        ("[::1]:8080", "[::1]"),
        ("localhost:65535", "localhost:*"),
        ("anything at all", "*"),
        (None, "example.com"),
    ],
)
def test_a_host_that_is_listed_is_allowed(host: str | None, entry: str):
    check_hosts([entry])
    assert host_allowed(host, secure=False, allowed=["other.example", entry])


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("evil-example.com", "*.example.com"),
        ("example.com", "*.example.com"),
        ("example.com.evil.example", "example.com"),
        ("example.com:8080", "example.com:8443"),
        ("example.com@evil.example", "example.com"),
        ("example.com:80:80", "example.com"),
        ("", "example.com"),
        ("127.0.0.1.evil.example", "127.0.0.1"),
        ("localhost.evil.example", "localhost"),
        ("example.com\t", "example.com"),
    ],
)
def test_another_host_is_refused(host: str, entry: str):
    assert not host_allowed(host, secure=False, allowed=[entry])


def test_the_default_port_is_that_of_the_scheme():
    assert host_allowed("example.com", secure=True, allowed=["example.com:443"])
    assert not host_allowed("example.com", secure=False, allowed=["example.com:443"])


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("https://example.com", "'example.com'"),
        ("example.com/chat", "'example.com'"),
        ("wss://[::1]:8080/", "'[::1]:8080'"),
        ("*example.com", ""),
        ("*.[::1]", ""),
        ("", ""),
        ("a b", ""),
        ("::1", ""),
    ],
)
def test_an_entry_that_could_never_match_is_refused(entry: str, hint: str):
    with pytest.raises(ConfigurationError, match="is not a host") as caught:
        check_hosts([entry])
    assert hint in str(caught.value)


def test_one_host_instead_of_a_list_is_refused():
    with pytest.raises(ConfigurationError, match="write hosts="):
        check_hosts("example.com")


def test_the_advice_names_the_host_and_nothing_else_of_the_peer():
    assert 'hosts=["evil.example"]' in host_advice("Evil.example:80", listed=True)
    assert "--proxy-headers" in host_advice("evil.example", listed=False)
    assert host_advice("evil\x1b[0m", listed=True) == "the Host header is not a host"
    assert len(host_advice("x" * 60_000, listed=True)) < 1000


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/", [(b"host", b"a")]),
        (b"http://a/x?y", [(b"host", b"a")]),
        (b"http://A:80", [(b"host", b"a")]),
        (b"https://a/", [(b"host", b"a:443")]),
        (b"/?next=http://b/", [(b"host", b"a")]),
        (b"*", [(b"host", b"a")]),
    ],
)
def test_a_request_that_says_once_whom_it_is_for_is_taken(target: bytes, headers: list[tuple[bytes, bytes]]):
    check_target(target, "1.1", headers)


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/", []),
        (b"/", [(b"host", b"a"), (b"host", b"a")]),
        (b"http://b/", [(b"host", b"a")]),
        (b"http://a:81/", [(b"host", b"a")]),
        (b"http://b@a/", [(b"host", b"a")]),
        (b"http://b?a", [(b"host", b"a")]),
        (b"ws://", [(b"host", b"a")]),
    ],
)
def test_any_other_is_400(target: bytes, headers: list[tuple[bytes, bytes]]):
    with pytest.raises(HandshakeError) as caught:
        check_target(target, "1.1", headers)
    assert caught.value.status == 400


def test_only_http_1_0_needs_no_host():
    check_target(b"/", "1.0", [])


def test_local_hosts_are_hosts():
    check_hosts(LOCAL_HOSTS)
