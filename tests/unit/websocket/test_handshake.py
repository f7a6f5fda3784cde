from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.errors import ConfigurationError
from symphony.websocket.handshake import (
    HandshakeError,
    accept_key,
    check_origins,
    check_upgrade,
    choose_subprotocol,
    http_response,
    offered_subprotocols,
    origin_advice,
    origin_allowed,
    switching_protocols,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = {
    "host": "server.example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def check(*extra: tuple[str, str], method: str = "GET", version: str = "1.1", **changes: str | None) -> str:
    """Check the RFC's request with headers changed, left out (None) or added."""
    fields = REQUEST | {name.replace("_", "-"): value for name, value in changes.items()}
    headers = [(name.encode(), value.encode()) for name, value in fields.items() if value is not None]
    headers += [(name.encode(), value.encode()) for name, value in extra]
    return check_upgrade(method, version, iter(headers))


def refused(*extra: tuple[str, str], **changes: str | None) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        check(*extra, **changes)
    assert caught.value.message
    return caught.value


# --- the request ------------------------------------------------------------------


def test_the_request_of_rfc_6455_1_3_is_accepted():
    assert check(("origin", "http://example.com"), ("sec-websocket-protocol", "chat, superchat")) == KEY


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "keep-alive ,\tUPGRADE"])
def test_connection_is_a_list_of_options_in_any_case(connection: str):
    assert check(connection=connection) == KEY


def test_connection_may_be_on_several_lines():
    assert check(("connection", "Upgrade"), connection="keep-alive") == KEY


@pytest.mark.parametrize("upgrade", ["WebSocket", "h2c, websocket"])
def test_upgrade_is_a_list_in_any_case(upgrade: str):
    assert check(upgrade=upgrade) == KEY


@pytest.mark.parametrize("name", ["connection", "upgrade"])
@pytest.mark.parametrize("value", [None, "", "close", "not-upgrade", "websocket2", "web socket"])
def test_a_request_that_does_not_ask_for_the_upgrade_is_400(name: str, value: str | None):
    assert refused(**{name: value}).status == 400


@pytest.mark.parametrize("method", ["POST", "HEAD", "get", "CONNECT"])
def test_another_method_is_405_and_says_which_is_allowed(method: str):
    error = refused(method=method)
    assert (error.status, error.headers) == (405, {"Allow": "GET"})


@pytest.mark.parametrize("version", ["1.0", "0.9", "1", "", "x.y"])
def test_http_below_1_1_is_400(version: str):
    assert refused(version=version).status == 400


def test_http_2_is_not_below_1_1():
    assert check(version="2") == KEY


@pytest.mark.parametrize("host", [None, "", "  "])
def test_a_request_without_host_is_400(host: str | None):
    assert refused(host=host).status == 400


def test_a_second_host_is_400():
    assert refused(("host", "other.example.com")).status == 400


@pytest.mark.parametrize("version", ["8", "0", "14", "013", "13, 8", "", None])
def test_another_websocket_version_is_426_and_names_ours(version: str | None):
    error = refused(sec_websocket_version=version)
    assert error.status == 426
    assert error.headers == {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


def test_the_version_is_judged_before_the_key():
    assert refused(sec_websocket_version="8", sec_websocket_key=None).status == 426


def test_a_repeated_version_is_400():
    assert refused(("sec-websocket-version", "13")).status == 400


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ==\n",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25j!Q==",
        base64.b64encode(bytes(15)).decode(),
        base64.b64encode(bytes(17)).decode(),
        f"{KEY}, {KEY}",
    ],
)
def test_a_key_that_is_not_16_bytes_of_base64_is_400(key: str | None):
    assert refused(sec_websocket_key=key).status == 400


def test_a_repeated_key_is_400():
    assert refused(("sec-websocket-key", KEY)).status == 400


@given(st.binary(min_size=16, max_size=16))
def test_any_16_bytes_are_a_key(nonce: bytes):
    key = base64.b64encode(nonce).decode()
    assert check(sec_websocket_key=f" {key}\t") == key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-length", "1"),
        ("content-length", "10"),
        ("content-length", "x"),
        ("content-length", ""),
        ("content-length", "-0"),
        ("content-length", "9" * 5000),
        ("transfer-encoding", "chunked"),
    ],
)
def test_a_request_that_announces_a_body_is_400(name: str, value: str):
    assert refused((name, value)).status == 400


def test_a_second_content_length_announces_a_body_too():
    assert refused(("content-length", "0"), ("content-length", "5")).status == 400


def test_a_content_length_of_zero_is_no_body():
    assert check(("content-length", "0")) == KEY


def test_the_accept_key_is_that_of_rfc_6455_1_3():
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# --- subprotocols ----------------------------------------------------------------


def offered(*values: str) -> list[str]:
    return offered_subprotocols((b"sec-websocket-protocol", value.encode()) for value in values)


def test_no_header_offers_no_subprotocol():
    assert offered_subprotocols([(b"host", b"chat")]) == []


def test_subprotocols_keep_the_clients_order_over_several_lines():
    assert offered("superchat, chat", "v2.chat") == ["superchat", "chat", "v2.chat"]


def test_empty_elements_of_the_list_are_ignored():
    assert offered("chat,, ,\tsuperchat,") == ["chat", "superchat"]


@pytest.mark.parametrize("value", ["", ",", "two words", 'quo"ted', "a/b", "a;b", "ä"])
def test_a_list_that_is_not_of_tokens_is_400(value: str):
    with pytest.raises(HandshakeError) as caught:
        offered(value)
    assert caught.value.status == 400


def test_the_servers_order_chooses_the_subprotocol():
    assert choose_subprotocol(["a", "b", "c"], ["c", "b"]) == "c"


@pytest.mark.parametrize(("client", "server"), [([], ["a"]), (["a"], []), (["a"], ["A"])])
def test_nothing_in_common_is_no_subprotocol(client: list[str], server: list[str]):
    assert choose_subprotocol(client, server) is None


# --- origins ---------------------------------------------------------------------


def allowed(
    origin: str | None, *entries: str, host: str | None = "server.example.com", secure: bool = True
) -> bool:
    check_origins(entries)
    return origin_allowed(origin, host=host, secure=secure, allowed=entries)


@pytest.mark.parametrize(
    ("origin", "host", "secure", "of_proxy"),
    [
        ("https://example.com", "example.com", False, True),
        ("https://example.com", "example.com:443", False, True),
        ("https://example.com:8443", "example.com:8443", False, True),
        # Not the same host and port, or not what a proxy does to the scheme.
        ("https://evil.com", "example.com", False, False),
        ("https://example.com", "example.com:8080", False, False),
        ("http://example.com", "example.com", True, False),
        ("https://example.com", None, False, False),
        ("null", "example.com", False, False),
        ("not an origin", "example.com", False, False),
    ],
)
def test_the_advice_names_the_proxy_if_only_the_scheme_differs(origin, host, secure, of_proxy):
    """Behind TLS it said to list the origin, and the next refusal was the client's address."""
    assert not origin_allowed(origin, host=host, secure=secure, allowed=())
    advice = origin_advice(origin, host=host, secure=secure)
    assert ("--proxy-headers" in advice) == of_proxy
    assert ("origins=" in advice) != of_proxy


def test_a_client_without_an_origin_passes():
    assert allowed(None)


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("https://example.com", "example.com", True),
        ("https://example.com", "example.com:443", True),
        ("https://EXAMPLE.com", "example.COM", True),
        ("http://example.com", "example.com", False),
        ("http://example.com", "example.com:80", False),
        ("http://localhost:8080", "localhost:8080", False),
        ("http://[::1]:8080", "[::1]:8080", False),
        ("http://my_host", "my_host", False),
    ],
)
def test_the_same_origin_passes(origin: str, host: str, secure: bool):
    assert allowed(origin, host=host, secure=secure)


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("http://example.com", "example.com", True),
        ("https://example.com", "example.com", False),
        ("https://example.com:8443", "example.com", True),
        ("https://example.com", "example.com:80", True),
        ("https://other.com", "example.com", True),
        ("https://example.com.evil.org", "example.com", True),
        ("https://evil-example.com", "example.com", True),
        ("https://a.example.com", "example.com", True),
        ("https://example.com", None, True),
        ("https://example.com", "example.com/", True),
        ("https://example.com", "user@example.com", True),
    ],
)
def test_another_origin_does_not_pass(origin: str, host: str | None, secure: bool):
    assert not allowed(origin, host=host, secure=secure)


@pytest.mark.parametrize(
    ("origin", "entry"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com", "https://APP.example.com:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("https://a.example.com", "https://*.example.com"),
        ("https://a.b.c.example.com", "https://*.example.com"),
        ("https://A.Example.COM", "https://*.example.com"),
        ("https://a.example.com:8443", "https://*.example.com:8443"),
        ("https://anything.org", "*"),
        ("null", "*"),
    ],
)
def test_an_allowed_origin_passes(origin: str, entry: str):
    assert allowed(origin, "https://first.example.org", entry)


@pytest.mark.parametrize(
    ("origin", "entry"),
    [
        ("http://app.example.com", "https://app.example.com"),
        ("https://app.example.com:8443", "https://app.example.com"),
        ("https://app.example.com", "https://app.example.com:8443"),
        ("https://sub.app.example.com", "https://app.example.com"),
        ("https://example.com", "https://*.example.com"),
        ("https://evil-example.com", "https://*.example.com"),
        ("https://evilexample.com", "https://*.example.com"),
        ("https://example.com.evil.org", "https://*.example.com"),
        ("https://a.example.com.evil.org", "https://*.example.com"),
        ("http://a.example.com", "https://*.example.com"),
        ("http://a.example.com:443", "https://*.example.com"),
        ("https://a.example.com:8443", "https://*.example.com"),
        ("https://a.example.com.", "https://*.example.com"),
        ("null", "https://*.example.com"),
    ],
)
def test_what_is_not_quite_an_allowed_origin_does_not_pass(origin: str, entry: str):
    assert not allowed(origin, entry)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "NULL",
        "example.com",
        "https://",
        "https://.example.com",
        "https://a..example.com",
        "https://a.example.com/",
        "https://a.example.com:",
        "https://a.example.com:x",
        "https://a.example.com:65536",
        "https://evil.org#.example.com",
        "https://evil.org/.example.com",
        "https://evil.org\\.example.com",
        "https://evil.org@a.example.com",
        "https://a.example.com\n",
        "https://a.example.com https://b.example.com",
        "https://a.example.com, https://b.example.com",
        "https://*.example.com",
        "https://\u212a.example.com",
    ],
)
def test_a_malformed_origin_never_passes(origin: str):
    assert not allowed(origin, "*", "https://*.example.com")


@given(st.text())
def test_any_origin_gets_an_answer(origin: str):
    assert allowed(origin, "https://*.example.com") in (True, False)


def test_origins_of_every_kind_may_stand_in_the_list():
    check_origins(["*", "https://a.example.com", "https://*.example.com:8443", "http://[::1]:3000"])


@pytest.mark.parametrize(
    ("entry", "mended"),
    [
        ("app.example.com", "https://app.example.com"),
        ("*.example.com", "https://*.example.com"),
        ("localhost:3000", "https://localhost:3000"),
        ("https://app.example.com/", "https://app.example.com"),
        ("https://app.example.com/chat?x=1", "https://app.example.com"),
        (" https://app.example.com", "https://app.example.com"),
        ("wss://app.example.com", "https://app.example.com"),
        ("ws://localhost:3000", "http://localhost:3000"),
    ],
)
def test_a_wrong_entry_is_refused_with_what_was_meant(entry: str, mended: str):
    with pytest.raises(ConfigurationError) as caught:
        check_origins(["https://fine.example.com", entry])
    assert repr(entry) in str(caught.value)
    assert f"did you mean {mended!r}?" in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "null",
        "https://",
        "https://*",
        "https://*.",
        "https://a*.example.com",
        "https://*.*.example.com",
        "https://a.*.example.com",
        "https://*.[::1]",
        "https://example.com:99999",
        "https://b\u00fccher.example",
        "*://example.com",
    ],
)
def test_an_entry_that_nobody_can_guess_is_refused_with_the_rules(entry: str):
    with pytest.raises(ConfigurationError, match="is not an origin\\. Allowed are"):
        check_origins([entry])


def test_a_string_in_place_of_the_list_is_refused():
    with pytest.raises(ConfigurationError, match=r"origins=\['https://a.example.com'\]"):
        check_origins("https://a.example.com")


# --- the answers -----------------------------------------------------------------

BREAKING = ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b", "a\x7fb"]


def test_the_answer_of_rfc_6455_1_3():
    assert switching_protocols(KEY, subprotocol="chat", extension=None, headers=[]) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"\r\n"
    )


def test_an_answer_carries_the_extension_and_the_apps_headers_in_order():
    answer = switching_protocols(
        KEY,
        subprotocol=None,
        extension="permessage-deflate",
        headers=[("Set-Cookie", "a=1"), ("set-cookie", "b=ä")],
    )
    assert answer.endswith(
        b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: a=1\r\nset-cookie: b=\xe4\r\n\r\n"
    )
    assert b"Sec-WebSocket-Protocol" not in answer


@pytest.mark.parametrize(
    "name", ["Upgrade", "connection", "SEC-WEBSOCKET-ACCEPT", "Sec-WebSocket-Protocol", "Content-Length"]
)
def test_an_app_cannot_set_what_the_handshake_decides(name: str):
    with pytest.raises(ValueError, match="set by the handshake"):
        switching_protocols(KEY, subprotocol=None, extension=None, headers=[(name, "x")])


@pytest.mark.parametrize("value", [*BREAKING, "\u20ac"])
def test_a_value_that_would_break_the_upgrade_is_refused(value: str):
    with pytest.raises(ValueError, match=r"X-Thing|latin-1"):
        switching_protocols(KEY, subprotocol=None, extension=None, headers=[("X-Thing", value)])
    with pytest.raises(ValueError, match=r"Sec-WebSocket-Protocol|latin-1"):
        switching_protocols(KEY, subprotocol=value, extension=None, headers=[])


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\nb", "a\0", "ä"])
def test_a_name_that_is_no_token_is_refused(name: str):
    with pytest.raises(ValueError, match="not a header name"):
        switching_protocols(KEY, subprotocol=None, extension=None, headers=[(name, "x")])
    with pytest.raises(ValueError, match="not a header name"):
        http_response(403, [(name, "x")], b"")


def test_a_refusal_is_a_whole_answer():
    assert http_response(403, [("Content-Type", "text/plain")], b"no\r\n") == (
        b"HTTP/1.1 403 Forbidden\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Length: 4\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"no\r\n"
    )


def test_a_status_without_a_name_is_answered():
    assert http_response(499, [], b"").startswith(b"HTTP/1.1 499 \r\n")


def test_an_answer_made_elsewhere_is_framed_anew():
    foreign = [("content-length", "99"), ("Transfer-Encoding", "chunked"), ("connection", "keep-alive")]
    assert http_response(404, foreign, b"gone") == http_response(404, [], b"gone")


def test_an_answer_with_upgrade_names_it_in_connection():
    error = refused(sec_websocket_version="8")
    assert http_response(error.status, error.headers.items(), b"") == (
        b"HTTP/1.1 426 Upgrade Required\r\n"
        b"Upgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Content-Length: 0\r\n"
        b"Connection: close, Upgrade\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize("value", BREAKING)
def test_a_value_that_would_split_the_answer_is_refused_and_not_told(value: str):
    with pytest.raises(ValueError, match="'Location'") as caught:
        http_response(403, [("Location", value)], b"")
    assert "Set-Cookie" not in str(caught.value)


@given(st.lists(st.tuples(st.text("aZ-\r\n:", max_size=3), st.text("x:\t \r\n\0", max_size=3))))
def test_no_headers_ever_add_a_line(headers: list[tuple[str, str]]):
    try:
        answer = http_response(403, headers, b"")
    except ValueError:
        return
    assert len(answer.splitlines()) == len(headers) + 4
    assert answer.endswith(b"\r\nConnection: close\r\n\r\n")
