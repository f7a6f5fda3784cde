"""Parses frames with picows, whose constructor is not public API: these tests fail when it changes."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from picows import WSAutoPingStrategy, WSListener, picows

from symphony.websocket import parser

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

WHAT_TO_DO = (
    f"picows {version('picows')} has a different WSProtocol constructor. Compare it (picows.pyx) "
    "with the call in src/symphony/websocket/parser.py, update the call and PARAMETERS "
    "here, run tests/integration/native, and only then move the pin in pyproject.toml."
)


class Recorded(Exception):
    """Raised instead of making a protocol, with what it was to be made of."""


def passed(monkeypatch: pytest.MonkeyPatch, *, is_client: bool) -> dict[str, Any]:
    """Return what the parser passes, by the name of the parameter it goes to."""

    def record(*arguments: object) -> None:
        raise Recorded(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(picows, "WSProtocol", record)
        with pytest.raises(Recorded) as caught:
            parser.Parser(
                WSListener(), max_frame_bytes=4321, broken=lambda code, reason: None, is_client=is_client
            )
    return dict(zip(PARAMETERS, caught.value.args, strict=True))


@pytest.mark.parametrize("is_client", [False, True])
async def test_the_constructor_has_the_parameters_that_were_pinned(
    monkeypatch: pytest.MonkeyPatch, is_client: bool
) -> None:
    by_name = passed(monkeypatch, is_client=is_client)
    try:
        picows.WSProtocol(**by_name)
    except TypeError as error:
        pytest.fail(f"{WHAT_TO_DO} ({error})")


def test_the_constructor_has_no_other_parameter() -> None:
    with pytest.raises(TypeError) as caught:
        picows.WSProtocol(*[None] * 100)
    assert f"takes exactly {len(PARAMETERS)} positional arguments" in str(caught.value), WHAT_TO_DO


def test_the_parameters_are_in_the_order_that_was_pinned() -> None:
    """The compiled class does not tell the order, but its source comes with it."""
    source = Path(picows.__file__).with_name("picows.pyx").read_text()
    found = re.search(r"cdef class WSProtocol.*?def __init__\(self,(.*?)\):", source, re.DOTALL)
    assert found, WHAT_TO_DO
    names = tuple(declared.split()[-1] for declared in found[1].split(","))
    assert names == PARAMETERS, WHAT_TO_DO


@pytest.mark.parametrize("is_client", [False, True])
def test_the_parser_leaves_picows_nothing_to_send_by_itself(
    monkeypatch: pytest.MonkeyPatch, is_client: bool
) -> None:
    assert {
        "is_client_side": is_client,
        "disconnect_on_exception": True,
        "websocket_handshake_timeout": None,
        "enable_auto_ping": False,
        "auto_ping_strategy": WSAutoPingStrategy.PING_WHEN_IDLE,
        "enable_auto_pong": False,
        "max_frame_size": 4321,
    }.items() <= passed(monkeypatch, is_client=is_client).items()


# A server's frames, as a client parses them


class Frames(WSListener):
    def __init__(self) -> None:
        self.seen: list[tuple[int, bytes]] = []

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.seen.append((frame.msg_type.value, frame.get_payload_as_bytes()))


async def test_frames_come_in_any_pieces() -> None:
    written = b"\x81\x02hi" + b"\x82\x7e\x01\x00" + bytes(256) + b"\x89\x00"
    for size in (1, 2, 3, 50, 1000):
        frames = Frames()
        parsing = parser.Parser(
            frames, max_frame_bytes=1000, broken=lambda code, reason: None, is_client=True
        )
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
async def test_an_invalid_frame_is_reported_with_code_and_reason(written: bytes, code: int) -> None:
    told: list[tuple[int, str]] = []
    parsing = parser.Parser(
        Frames(), max_frame_bytes=1000, broken=lambda *how: told.append(how), is_client=True
    )
    parsing.feed(written)
    ((found, reason),) = told
    assert found == code
    assert reason.startswith("Received ")
