"""picows parses a server's frames too; tests/unit/transport/test_picows_pin.py holds what it is made with."""

from typing import Any

import pytest
from picows import WSListener

from symphony.websocket import parser


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
async def test_what_is_broken_is_told_with_code_and_reason(written: bytes, code: int) -> None:
    told: list[tuple[int, str]] = []
    parsing = parser.Parser(
        Frames(), max_frame_bytes=1000, broken=lambda *how: told.append(how), is_client=True
    )
    parsing.feed(written)
    ((found, reason),) = told
    assert found == code
    assert reason.startswith("Received ")
