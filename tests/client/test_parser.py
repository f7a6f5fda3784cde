"""picows' constructor is no public API: this fails when it changes, for the client's call of it."""

from typing import Any

import pytest
from picows import WSListener, picows

from symphony.client import parser

# As tests/unit/transport/test_picows_pin.py has them.
PARAMETERS = (
    "host_port",
    "ws_path",
    "is_client_side",
    "ws_listener_factory",
    "logger",
    "disconnect_on_exception",
    "websocket_handshake_timeout",
    "enable_auto_ping",
    "auto_ping_idle_timeout",
    "auto_ping_reply_timeout",
    "auto_ping_strategy",
    "enable_auto_pong",
    "max_frame_size",
    "extra_headers",
    "read_buffer_init_size",
)


class Recorded(Exception):
    pass


def passed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    def record(*arguments: object) -> None:
        raise Recorded(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(picows, "WSProtocol", record)
        with pytest.raises(Recorded) as caught:
            parser.Parser(WSListener(), max_frame_bytes=4321, broken=lambda code, reason: None)
    return dict(zip(PARAMETERS, caught.value.args, strict=True))


async def test_the_constructor_has_the_parameters_that_were_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    picows.WSProtocol(**passed(monkeypatch))


def test_picows_is_left_nothing_to_send_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {
        "is_client_side": True,
        "websocket_handshake_timeout": None,
        "enable_auto_ping": False,
        "enable_auto_pong": False,
        "max_frame_size": 4321,
    }.items() <= passed(monkeypatch).items()


class Frames(WSListener):
    def __init__(self) -> None:
        self.seen: list[tuple[int, bytes]] = []

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.seen.append((frame.msg_type.value, frame.get_payload_as_bytes()))


async def test_frames_come_in_any_pieces() -> None:
    written = b"\x81\x02hi" + b"\x82\x7e\x01\x00" + bytes(256) + b"\x89\x00"
    for size in (1, 2, 3, 50, 1000):
        frames = Frames()
        parsing = parser.Parser(frames, max_frame_bytes=1000, broken=lambda code, reason: None)
        for at in range(0, len(written), size):
            parsing.feed(written[at : at + size])
        assert frames.seen == [(1, b"hi"), (2, bytes(256)), (9, b"")]


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (b"\x81\x82\x00\x00\x00\x00hi", 1002),
        (b"\x83\x00", 1002),
        (b"\x82\x7e\x03\xe9", 1009),
        (b"\x09\x00", 1002),
    ],
)
async def test_what_is_broken_is_told_with_code_and_reason(written: bytes, code: int) -> None:
    told: list[tuple[int, str]] = []
    parsing = parser.Parser(Frames(), max_frame_bytes=1000, broken=lambda *how: told.append(how))
    parsing.feed(written)
    ((found, reason),) = told
    assert found == code
    assert reason.startswith("Received ")
