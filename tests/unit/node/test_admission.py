from typing import Any

import pytest
from starlette.datastructures import State

from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.limits import Limits
from symphony.node.admission import Admission, address_of, route_path, shown_path
from symphony.protocol.subprotocols import token_subprotocol
from symphony.session.endpoint import Endpoint
from symphony.transport.base import Profile
from symphony.websocket.queued import Queued


async def nothing(*_: Any) -> None: ...


def endpoint(*origins: str) -> Endpoint:
    return Endpoint(
        pattern="/chat",
        profile=Profile(Limits(), "disconnect", None, Queued(0)),
        subprotocols=(),
        origins=origins,
        state=State,
        connect=nothing,
        receive=nothing,
        is_async=True,
        handler_of=lambda event: "handler",
        events=None,
        checks=(),
        concurrency=1,
        closes_on_error=False,
        everyone=True,
        per_user=False,
        on_conflict="replace",
        inside=(),
        disconnect=None,
        resync=None,
        room=None,
    )


def handshake(
    path: str = "/chat", *, client: tuple[str, int] | None = ("10.0.0.1", 1), root: str = "", **headers: str
) -> Handshake:
    fields = {"host": "example.com", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return Handshake(
        {
            "type": "websocket",
            "scheme": "ws",
            "path": path,
            "root_path": root,
            "query_string": b"",
            "headers": [(name.encode(), text.encode()) for name, text in fields.items()],
            "client": client,
        }
    )


CHAT = endpoint()


def admission(chat: Endpoint = CHAT, **limits: Any) -> Admission:
    """Return an admission that knows `/chat` and `/chat/{name}`."""

    def resolve(path: str) -> tuple[Endpoint, dict[str, Any]] | None:
        if path == "/chat":
            return chat, {}
        return (chat, {"name": path[6:]}) if path.startswith("/chat/") else None

    return Admission(resolve, Limits(**limits), None, ("/chat", "/chat/{name}"))


def refusal(admission: Admission, handshake: Handshake, *, connected: int = 0) -> Reject:
    with pytest.raises(Reject) as caught:
        admission.admit(handshake, connected=connected)
    return caught.value


def test_a_handshake_gets_the_endpoint_and_the_parameters_of_its_path():
    assert admission().admit(handshake("/chat/lobby"), connected=0) == (CHAT, {"name": "lobby"})


def test_a_path_without_a_route_is_not_found():
    refused = refusal(admission(), handshake("/other"))
    assert (refused.code, refused.message) == ("not_found", "no WebSocket route for /other")


@pytest.mark.parametrize(
    ("root", "path", "route"),
    [
        ("", "/chat", "/chat"),
        ("/ws", "/ws/chat", "/chat"),
        ("/ws/", "/ws/chat", "/chat"),
        ("/ws", "/ws", "/"),
        ("/ws", "/ws/", "/"),
        ("/ws", "/wsx/chat", "/wsx/chat"),
        # A proxy has taken the prefix away.
        ("/ws", "/chat", "/chat"),
        ("/ws", "/ws/ws/chat", "/ws/chat"),
    ],
)
def test_the_path_below_where_the_app_is_mounted_decides(root, path, route):
    assert route_path({"path": path, "root_path": root}) == route


def test_a_scope_without_a_root_path_is_not_mounted():
    assert route_path({"path": "/chat"}) == "/chat"


def test_another_origin_is_refused_and_the_log_says_what_to_do(caplog):
    refused = refusal(admission(), handshake(origin="https://evil.example"))
    assert (refused.code, refused.message) == ("forbidden", "origin https://evil.example is not allowed")
    assert "list it in origins= to allow it" in caplog.text


@pytest.mark.parametrize("origin", ["http://example.com", "https://shop.example", None])
def test_the_own_origin_those_of_the_route_and_no_browser_are_admitted(origin):
    headers = {"origin": origin} if origin else {}
    asks = admission(endpoint("https://shop.example"))
    assert asks.admit(handshake(**headers), connected=0)[1] == {}


def test_as_many_connections_as_may_be_are_unavailable_and_told_when_to_return():
    asks = admission(max_connections=2, retry_after=3)
    asks.admit(handshake(), connected=1)
    refused = refusal(asks, handshake(), connected=2)
    assert (refused.code, refused.status, refused.retry_after) == ("unavailable", 503, 3)


def test_an_address_has_only_so_many_sockets_and_gives_them_back():
    asks = admission(max_connections_per_client=2)
    one, other = handshake(), handshake(client=("10.0.0.2", 1))
    for _ in range(2):
        asks.admit(one, connected=0)
        asks.entered(one)
    assert refusal(asks, one).code == "too_many"
    asks.admit(other, connected=2)
    asks.left(one)
    asks.admit(one, connected=1)


def test_what_was_only_admitted_is_not_counted():
    asks = admission(max_connections_per_client=1)
    for _ in range(3):
        asks.admit(handshake(), connected=0)


def test_clients_without_an_address_are_not_bounded_together():
    asks = admission(max_connections_per_client=1)
    unix = handshake(client=None)
    assert address_of(unix) == ""
    for _ in range(3):
        asks.admit(unix, connected=0)
        asks.entered(unix)


def test_nothing_is_left_of_an_address_whose_last_socket_has_gone():
    asks = admission()
    for _ in range(2):
        asks.entered(handshake())
    asks.left(handshake())
    assert dict(asks._per_address) == {"10.0.0.1": 1}
    asks.left(handshake())
    assert not asks._per_address


def test_a_server_that_stops_admits_nothing_whatever_is_asked_for():
    asks = admission(retry_after=2)
    asks.draining = True
    for path in ("/chat", "/other"):
        refused = refusal(asks, handshake(path))
        assert (refused.code, refused.message) == ("unavailable", "the server restarts")
        assert refused.retry_after == 2


def test_a_token_that_cannot_be_read_is_refused_at_once():
    good = f"symphony.v1.json, {token_subprotocol('secret')}"
    asked = handshake(sec_websocket_protocol=good)
    admission().admit(asked, connected=0)
    assert asked.token == "secret"
    assert refusal(admission(), handshake(sec_websocket_protocol="symphony.token.%")).code == "invalid"


def test_a_path_is_shown_on_one_line():
    assert shown_path(handshake("/chat/a\nb é")) == "/chat/a%0Ab%20%C3%A9"


@pytest.mark.parametrize(
    "path", ["/" + "x" * 60_000, "/\u202e" * 9000, "/a\nb", "/\x9b31m", "/\ufffd" * 5000]
)
def test_a_path_without_a_route_is_quoted_as_one_short_line(path: str):
    """A path of 64 KiB was a log line of 64 KiB, and of more if its characters were escaped."""
    refused = refusal(admission(), handshake(path))
    assert refused.message.isprintable()
    assert len(str(refused)) < 300
